# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which interface and address a node talks to others. Private to the collection.

Without the program ``ip``, which a node need not have.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

# From linux/sockios.h: the addresses of all interfaces; and the size of its struct ifreq on 64-bit machines.
SIOCGIFCONF = 0x8912
IFREQ_BYTES = 40
MOST_ADDRESSES = 256


def addresses(proc: str = "/proc", ipv4: list[tuple[str, str]] | None = None) -> list[tuple[str, str]]:
    """Interface and address, IPv4 first; without loopback and without addresses that hold on one link only."""
    found = _ipv4() if ipv4 is None else ipv4
    return [
        (interface, address)
        for interface, address in found + _ipv6(proc)
        if interface != "lo" and not address.startswith(("127.", "169.254.", "fe80:"))
    ]


def _ipv4() -> list[tuple[str, str]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        buffer = array.array("B", bytes(IFREQ_BYTES * MOST_ADDRESSES))
        request = struct.pack("iL", len(buffer), buffer.buffer_info()[0])
        length = struct.unpack("iL", fcntl.ioctl(probe.fileno(), SIOCGIFCONF, request))[0]
    rows = (buffer[start : start + IFREQ_BYTES].tobytes() for start in range(0, length, IFREQ_BYTES))
    return [(row[:16].split(b"\0")[0].decode().split(":")[0], socket.inet_ntoa(row[20:24])) for row in rows]


def _ipv6(proc: str) -> list[tuple[str, str]]:
    try:
        with open(os.path.join(proc, "net", "if_inet6"), encoding="ascii") as file:
            rows = [line.split() for line in file]
    except OSError:
        return []
    return [(row[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))) for row in rows if len(row) == 6]


def default_interface(proc: str = "/proc") -> str | None:
    """The interface of the route to everywhere, or None."""
    try:
        with open(os.path.join(proc, "net", "route"), encoding="ascii") as file:
            rows = [line.split() for line in file][1:]
    except OSError:
        return None
    found = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(found)[1] if found else None


def choose(found: list[tuple[str, str]], wanted: str, default: str | None) -> tuple[str, str] | None:
    """The address to meet at: of the wanted interface, else of the one with the default route, else the first."""
    if wanted:
        return next((row for row in found if row[0] == wanted), None)
    return next((row for row in found if row[0] == default), found[0] if found else None)


def interface_towards(target: str, port: int, found: list[tuple[str, str]]) -> str | None:
    """The interface whose address this node uses towards the target. Nothing is sent."""
    try:
        family, kind, protocol, _name, place = socket.getaddrinfo(target, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            own = probe.getsockname()[0]
    except OSError:
        return None
    return next((interface for interface, address in found if address == own), None)


def port_is_free(port: int) -> bool:
    """Whether something else listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("", port))
        except OSError:
            return False
    return True
