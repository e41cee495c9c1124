# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else on a node names a vendor's repository: apt's and dnf's own files without those entries. Private to the collection.

Two entries for one address with different keys make apt refuse its whole configuration, and an older entry often names
a key that the vendor has retired. Only entries of the same address are taken out; the rest of a file stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from ansible_collections.gpufleet.stack.plugins.module_utils.apt_components import ONE_LINE

APT_FILES = re.compile(r"[\w.-]+\.(list|sources)", re.ASCII)  # the names that apt reads (sources.list(5))
URIS = re.compile(r"^URIs:(?P<uris>.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE)


def place(url: str) -> str:
    """The address without what makes no other place of it: scheme, user, a slash at the end."""
    parts = urlsplit(url.strip())
    return parts.netloc.rpartition("@")[2].lower() + parts.path.rstrip("/")


def without(family: str, addresses: Iterable[str], root: str = "/", ours: str = "") -> dict[str, str]:
    """Files that name one of the addresses, with the text that they have without it; empty where nothing is left.

    :param family: ``apt`` or ``dnf``.
    :param ours: the file, as the node names it, that is left out.
    """
    places = {place(address) for address in addresses}
    found = {}
    for path in _files(family, root):
        if path == ours:
            continue
        text = read(os.path.join(root, path.lstrip("/")))
        rest = _rest(path, text, places)
        if rest != text:
            found[path] = rest if _says_something(rest) else ""
    return found


def read(path: str) -> str:
    """The text of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _files(family: str, root: str) -> list[str]:
    folder = "/etc/apt/sources.list.d" if family == "apt" else "/etc/yum.repos.d"
    pattern = APT_FILES if family == "apt" else re.compile(r".+\.repo")
    try:
        names = sorted(name for name in os.listdir(os.path.join(root, folder.lstrip("/"))) if pattern.fullmatch(name))
    except FileNotFoundError:
        names = []
    return [*(["/etc/apt/sources.list"] if family == "apt" else []), *(f"{folder}/{name}" for name in names)]


def _rest(path: str, text: str, places: set[str]) -> str:
    if path.endswith(".sources"):
        return _without_stanzas(text, places)
    if path.endswith(".repo"):
        return _without_sections(text, places)
    return "".join(line for line in text.splitlines(keepends=True) if not _names(line, places))


def _names(line: str, places: set[str]) -> bool:
    match = ONE_LINE.match(line.split("#", 1)[0].strip())
    return match is not None and place(match["uri"]) in places


def _without_stanzas(text: str, places: set[str]) -> str:
    """deb822: a stanza with other addresses too keeps those."""
    parts = re.split(r"(\n[ \t]*\n+)", text)
    kept = []
    for stanza, gap in zip(parts[::2], [*parts[1::2], ""]):
        match = URIS.search(stanza)
        addresses = match["uris"].split() if match else []
        others = [address for address in addresses if place(address) not in places]
        if addresses and not others:
            continue
        if match and len(others) < len(addresses):
            kept.append(f"{stanza[: match.start()]}URIs: {' '.join(others)}{stanza[match.end() :]}{gap}")
        else:
            kept.append(stanza + gap)
    return "".join(kept)


def _without_sections(text: str, places: set[str]) -> str:
    sections = re.split(r"(?m)^(?=\[)", text)
    return "".join(section for section in sections if not _is_at(section, places))


def _is_at(section: str, places: set[str]) -> bool:
    match = re.search(r"(?m)^baseurl[ \t]*=(?P<urls>.*(?:\n[ \t].*)*)", section)
    return match is not None and any(place(url) in places for url in match["urls"].split())


def _says_something(text: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())
