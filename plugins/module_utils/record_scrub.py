# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes out of text what would tell whose machine a record is of. Private to the collection.

The same thing is replaced by the same word throughout a record, so that what belongs together stays so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_SERIALS = ("product_serial", "board_serial", "chassis_serial", "product_uuid", "chassis_asset_tag")
# What firmware writes where nobody filled a number in, and names that are nobody's.
_NOT_SECRET = {"not specified", "none", "default string", "to be filled by o.e.m.", "0", "localhost", "root", "node"}
_SHORTEST = 3  # a shorter word is a part of too many others

_EFI_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
_UUID = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?![0-9a-fA-F])")
_MAC = re.compile(r"(?<![0-9a-fA-F:])(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}(?![0-9a-fA-F:])")
# A version may have four numbers too: it stands in a path or has a suffix.
_IPV4 = re.compile(r"(?<![\w./+~-])(?:\d{1,3}\.){3}\d{1,3}(?![\w.+~-])")
_IPV6 = re.compile(
    r"(?<![0-9a-zA-Z:./])(?=[0-9a-fA-F:]*::|(?:[0-9a-fA-F]+:){6})(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}"
)
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\"']+")
_SERIAL = re.compile(r"(?i)(serial(?: ?number| ?no\.?)?\s*[:=]\s*)\S+")
_HOME = re.compile(r"(/home/|/Users/)([^/\s:\"']+)")


def _words(text: str | None) -> list[str]:
    return (text or "").split()


def host_names(node: Sysroot, live: bool) -> list[str]:
    """Every name by which the node is known to itself, short and long."""
    names = [os.uname().nodename] if live else []
    names += _words(node.text("/etc/hostname"))[:1] + _words(node.text("/proc/sys/kernel/hostname"))[:1]
    for line in (node.text("/etc/hosts") or "").splitlines():
        names += line.split("#")[0].split()[1:]
    names += [name.split(".")[0] for name in names]
    return [name for name in names if not re.match(r"(ip6-|localhost|broadcasthost)", name)]


def user_names(node: Sysroot) -> list[str]:
    """The people with an account or a home directory on the node."""
    names = [os.path.basename(path) for path in node.listing("/home")]
    for line in (node.text("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 3 and fields[2].isdigit() and 1000 <= int(fields[2]) < 65534:
            names.append(fields[0])
    names += [os.environ.get(name, "") for name in ("SUDO_USER", "LOGNAME")]
    return names


def serial_numbers(node: Sysroot) -> list[str]:
    """The numbers of the machine itself, where this user may read them."""
    return [(node.text("/sys/class/dmi/id/" + name) or "").strip() for name in _SERIALS]


class Scrubber:
    """Replaces in text the names and numbers of one node, and whatever looks like an address or a credential."""

    def __init__(self, hosts: Iterable[str] = (), users: Iterable[str] = (), serials: Iterable[str] = ()) -> None:
        self._seen: dict[str, dict[str, str]] = {}
        self._known: list[tuple[re.Pattern[str], str, str]] = []
        for names, form in ((serials, "SERIAL{0}"), (hosts, "node{0}"), (users, "user{0}")):
            # The longest first: a host's short name is a part of its long one.
            for name in sorted({name for name in names if self._is_secret(name)}, key=lambda word: (-len(word), word)):
                pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
                self._known.append((pattern, form, name.lower()))

    @classmethod
    def of(cls, node: Sysroot, live: bool) -> Scrubber:
        """The one for a node."""
        return cls(host_names(node, live), user_names(node), serial_numbers(node))

    @staticmethod
    def _is_secret(name: str) -> bool:
        return len(name) >= _SHORTEST and name.lower() not in _NOT_SECRET

    def _fake(self, form: str, original: str) -> str:
        seen = self._seen.setdefault(form, {})
        return seen.setdefault(original.lower(), form.format(len(seen) + 1))

    def _faker(self, form: str) -> Callable[[re.Match[str]], str]:
        return lambda match: self._fake(form, match.group())

    def text(self, text: str) -> str:
        """The text without what is nobody else's business."""
        text = _URL.sub("url-removed", text)
        text = _SERIAL.sub(r"\g<1>SERIAL", text)
        text = _UUID.sub(self._uuid, text)
        text = _MAC.sub(self._faker("02:00:00:00:00:{0:02x}"), text)
        text = _IPV6.sub(self._faker("2001:db8::{0:x}"), text)
        text = _IPV4.sub(self._faker("192.0.2.{0}"), text)
        text = _HOME.sub(lambda match: match.group(1) + self._fake("user{0}", match.group(2)), text)
        for pattern, form, name in self._known:
            text = pattern.sub(lambda _match, form=form, name=name: self._fake(form, name), text)  # type: ignore[misc]
        return text

    def _uuid(self, match: re.Match[str]) -> str:
        # One of ours, since a record may be recorded again, or the one in the names of the firmware's own variables.
        if match.group().startswith("00000000-0000-0000-0000-") or match.group() == _EFI_GLOBAL:
            return match.group()
        return self._fake("00000000-0000-0000-0000-{0:012x}", match.group())

    def data(self, value: Any) -> Any:
        """The same for every string of plain data, however deep it stands."""
        if isinstance(value, dict):
            return {key: self.data(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.data(each) for each in value]
        return self.text(value) if isinstance(value, str) else value
