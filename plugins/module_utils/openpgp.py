# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading OpenPGP public keys: which keys a file holds, and until when they count. Private to the collection.

A repository's key is pinned by its full fingerprint, before any program of the node is told to trust it. Signatures are
not verified here: apt and rpm do that with the key. Format: RFC 4880 and RFC 9580.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

PUBLIC_KEY, SIGNATURE = 6, 2
KEY_EXPIRES, SIGNED_AT = 9, 2  # kinds of subpackets
SELF_SIGNATURES = (0x10, 0x11, 0x12, 0x13, 0x1F)
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\r?\n(?:[\w-]+: [^\n]*\n)*\s*?\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)


class Key(NamedTuple):
    """One primary key: ``expires`` in seconds since 1970, None where it never does; ``start`` and ``end`` in the file."""

    fingerprint: str
    expires: int | None
    start: int
    end: int


class Packet(NamedTuple):
    """One packet: ``start`` is where its header begins."""

    tag: int
    body: bytes
    start: int
    end: int


def binary(data: bytes) -> bytes:
    """The packets themselves, of an armored file too.

    :raises ValueError: where the armor is damaged.
    """
    blocks = ARMOR.findall(data)
    if not blocks:
        return data
    try:
        return b"".join(base64.b64decode(_without_checksum(block), validate=True) for block in blocks)
    except binascii.Error as error:
        raise ValueError(f"damaged armor: {error}") from error


def _without_checksum(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    return b"".join(line for line in lines if line and not line.startswith(b"="))


def keys(data: bytes) -> list[Key]:
    """The primary keys of a file, armored or not, in its order; subkeys belong to the key before them.

    :raises ValueError: where it is no file of OpenPGP keys.
    """
    packets = list(_packets(binary(data)))
    starts = [number for number, packet in enumerate(packets) if packet.tag == PUBLIC_KEY]
    if not starts or starts[0] != 0:
        raise ValueError("no OpenPGP public key")
    groups = [packets[first:last] for first, last in zip(starts, [*starts[1:], len(packets)])]
    return [Key(_fingerprint(group[0].body), _expires(group), group[0].start, group[-1].end) for group in groups]


def _packets(data: bytes) -> Iterable[Packet]:
    position = 0
    while position < len(data):
        start, first = position, data[position]
        if not first & 0x80:
            raise ValueError("not an OpenPGP file")
        if first & 0x40:
            tag = first & 0x3F
            position, length = _new_length(data, position + 1)
        else:
            tag = (first >> 2) & 0x0F
            octets = {0: 1, 1: 2, 2: 4}.get(first & 3)
            if octets is None:
                raise ValueError("a packet without a length")
            length = int.from_bytes(data[position + 1 : position + 1 + octets], "big")
            position += 1 + octets
        end = position + length
        if end > len(data):
            raise ValueError("the file ends in the middle of a packet")
        yield Packet(tag, data[position:end], start, end)
        position = end


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    """Where the body begins, and its length."""
    first = data[position] if position < len(data) else 0
    if first < 192:
        return position + 1, first
    if first < 224:
        second = data[position + 1] if position + 1 < len(data) else 0
        return position + 2, ((first - 192) << 8) + second + 192
    if first < 255:
        raise ValueError("a packet in parts, which keys never are")
    return position + 5, int.from_bytes(data[position + 1 : position + 5], "big")


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    if version == 4:
        # The standard's own name for such a key; nothing here rests on SHA-1 being strong.
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()  # noqa: S324
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise ValueError(f"a key of version {version}")


def _expires(group: list[Packet]) -> int | None:
    """What the key's newest signature of itself says."""
    created = int.from_bytes(group[0].body[1:5], "big")
    newest: tuple[int, int | None] = (-1, None)
    for packet in group[1:]:
        if packet.tag != SIGNATURE or len(packet.body) < 6 or packet.body[1] not in SELF_SIGNATURES:
            continue
        fields = _subpackets(packet.body)
        signed = int.from_bytes(fields.get(SIGNED_AT, b""), "big")
        seconds = int.from_bytes(fields.get(KEY_EXPIRES, b""), "big")
        newest = max(newest, (signed, created + seconds if seconds else None), key=lambda pair: pair[0])
    return newest[1]


def _subpackets(body: bytes) -> dict[int, bytes]:
    """The signed subpackets of a signature of version 4 or 6."""
    octets = {4: 2, 6: 4}.get(body[0])
    if octets is None:
        return {}
    length = int.from_bytes(body[4 : 4 + octets], "big")
    data = body[4 + octets : 4 + octets + length]
    found: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if data[position] == 255:
            size, position = int.from_bytes(data[position + 1 : position + 5], "big"), position + 5
        elif data[position] >= 192:
            size = ((data[position] - 192) << 8) + (data[position + 1] if position + 1 < len(data) else 0) + 192
            position += 2
        else:
            size, position = data[position], position + 1
        if not size or position + size > len(data):
            break
        found[data[position] & 0x7F] = data[position + 1 : position + size]
        position += size
    return found
