# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A vendor's package repository on a node: its pinned key, its entry, and what stood in its place. Private to the collection.

All of it or nothing: the repository is read once with the new entry, and where that fails every file is put back.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import openpgp, receipts, vendor_sources
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

NOTE = "var/lib/gpufleet/repositories/nvidia.json"  # what the files were before us
KEY_FILES = {"apt": "/etc/apt/keyrings/gpufleet-nvidia.gpg", "dnf": "/etc/pki/rpm-gpg/RPM-GPG-KEY-gpufleet-nvidia"}
SOURCE_FILES = {
    "apt": "/etc/apt/sources.list.d/gpufleet-nvidia.sources",
    "dnf": "/etc/yum.repos.d/gpufleet-nvidia.repo",
}
APT_SOURCE = """# Written by gpufleet.stack: NVIDIA's repository.
Types: deb
URIs: {url}
Suites: /
Signed-By: {key}
"""
DNF_SOURCE = """# Written by gpufleet.stack: NVIDIA's repository.
[gpufleet-nvidia]
name=NVIDIA's repository
baseurl={url}
enabled=1
gpgcheck=1
gpgkey=file://{key}
"""
UNTRUSTED = re.compile(
    r"is not signed|NO_PUBKEY|EXPKEYSIG|BADSIG|REVKEYSIG|signatures? (?:couldn't be verified|were invalid)|not valid yet|expired"
    r"|Hash Sum mismatch|unexpected size|checksum|GPG",
    re.IGNORECASE,
)
KEYRINGS = "etc/apt/trusted.gpg.d"


class Wish(NamedTuple):
    """What is wanted; ``retired`` are fingerprints of keys that the vendor no longer signs with."""

    family: str
    url: str
    key_url: str
    fingerprint: str
    addresses: list[str]
    retired: list[str]

    @property
    def key_file(self) -> str:
        """Where the key lies on the node."""
        return KEY_FILES[self.family]

    @property
    def source_file(self) -> str:
        """Where the entry lies on the node."""
        return SOURCE_FILES[self.family]


class Change(NamedTuple):
    """One file: its content before and after, None where there is no file."""

    path: str
    before: bytes | None
    after: bytes | None


def check_key(data: bytes, fingerprint: str, origin: str, now: float | None = None) -> None:
    """See that a file holds the pinned key and no other.

    :raises GpufleetError: GF-KEY-WRONG, GF-KEY-EXPIRED.
    """
    try:
        found = openpgp.keys(data)
    except ValueError as error:
        raise _wrong(origin, f"it holds no usable key ({error})", fingerprint) from error
    names = [key.fingerprint for key in found]
    if names != [fingerprint.upper()]:
        raise _wrong(origin, f"it holds {', '.join(names)}", fingerprint)
    expires = found[0].expires
    if expires is not None and expires <= (time.time() if now is None else now):
        raise GpufleetError(
            "GF-KEY-EXPIRED",
            f"the key {fingerprint} from {origin} expired on {time.strftime('%Y-%m-%d', time.gmtime(expires))}",
            "a mirror serves an old copy of the key, or the node's clock is wrong",
            "fetch the mirror's key anew from NVIDIA; compare `date` on the node",
        )


def plan(wish: Wish, fetch: Callable[[str], bytes], root: str = "/", dry: bool = False) -> list[Change]:
    """The files that have to change. The key is fetched only where the node lacks it, and never in a dry run."""
    rows = [_key(wish, fetch, root, dry), _source(wish, root)]
    rest = vendor_sources.without(wish.family, [wish.url, *wish.addresses], root, wish.source_file)
    rows += [
        Change(path, content(root, path), text.encode("utf-8", "surrogateescape") if text else None)
        for path, text in rest.items()
    ]
    rows += _retired(wish, root) if wish.family == "apt" else []
    return [row for row in rows if row.before != row.after]


def _key(wish: Wish, fetch: Callable[[str], bytes], root: str, dry: bool) -> Change:
    before = content(root, wish.key_file)
    if before is not None and _is_good(before, wish.fingerprint):
        return Change(wish.key_file, before, before)
    if dry:
        return Change(wish.key_file, before, f"the key {wish.fingerprint}\n".encode())
    data = fetch(wish.key_url)
    check_key(data, wish.fingerprint, wish.key_url)
    # apt tells the form by the file's name, rpm takes the armored one only.
    return Change(wish.key_file, before, openpgp.binary(data) if wish.family == "apt" else data)


def _is_good(data: bytes, fingerprint: str) -> bool:
    try:
        check_key(data, fingerprint, "the node")
    except GpufleetError:
        return False
    return True


def _source(wish: Wish, root: str) -> Change:
    text = (APT_SOURCE if wish.family == "apt" else DNF_SOURCE).format(
        url=wish.url + ("/" if wish.family == "apt" else ""), key=wish.key_file
    )
    return Change(wish.source_file, content(root, wish.source_file), text.encode())


def _retired(wish: Wish, root: str) -> list[Change]:
    """Keyrings that every repository of the node is trusted by, without the vendor's retired keys."""
    folder = os.path.join(root, KEYRINGS)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = ["/etc/apt/trusted.gpg", *(f"/{KEYRINGS}/{name}" for name in names)]
    rows = []
    for path in paths:
        data = content(root, path)
        rest = _without_keys(data, {name.upper() for name in wish.retired}) if data is not None else None
        if rest != data:
            rows.append(Change(path, data, rest))
    return rows


def _without_keys(data: bytes, retired: set[str]) -> bytes | None:
    """The keyring without these keys, None where none is left; what can't be read stays as it is."""
    try:
        found = openpgp.keys(data)
    except ValueError:
        return data
    kept = [key for key in found if key.fingerprint not in retired]
    if len(kept) == len(found):
        return data
    packets = openpgp.binary(data)
    if kept and packets != data:
        return data  # several keys in one armored file: ours is not the tool to write it anew
    return b"".join(packets[key.start : key.end] for key in kept) or None


def carry_out(changes: list[Change], refresh: Callable[[], None], root: str = "/") -> None:
    """Write the files and read the repository; where that fails every file is as it was."""
    note = os.path.join(root, NOTE)
    noted = content(root, "/" + NOTE)
    try:
        _remember(changes, note)
        for change in changes:
            write(root, change.path, change.after)
        refresh()
    except BaseException:
        for change in reversed(changes):
            write(root, change.path, change.before)
        write(root, "/" + NOTE, noted)
        raise


def _remember(changes: list[Change], note: str) -> None:
    """Keep what others' files were: removal puts it back."""
    known: dict[str, Any] = receipts.read_json(note) or {"schema": 1, "files": {}}
    ours = {*KEY_FILES.values(), *SOURCE_FILES.values()}
    for change in changes:
        if change.path in ours or change.before is None:
            continue
        row = known["files"].setdefault(change.path, {"before": change.before.hex()})
        row["after"] = change.after.hex() if change.after is not None else None
    if known["files"]:
        receipts.write_json(note, known)


def note_key(root: str = "/") -> None:
    """Remember that rpm trusted the key already when we came: removal leaves it there."""
    note = os.path.join(root, NOTE)
    known: dict[str, Any] = receipts.read_json(note) or {"schema": 1, "files": {}}
    receipts.write_json(note, {**known, "key_before": True})


def imported_keys(root: str = "/") -> list[str]:
    """Fingerprints of the keys that rpm took over from our entry, and from nobody before us."""
    data = content(root, KEY_FILES["dnf"])
    if data is None or (receipts.read_json(os.path.join(root, NOTE)) or {}).get("key_before"):
        return []
    try:
        return [key.fingerprint for key in openpgp.keys(data)]
    except ValueError:
        return []


def restore(root: str = "/", dry: bool = False) -> list[Change]:
    """Put back what others' files were, where nobody changed them since; answers what was changed."""
    known = receipts.read_json(os.path.join(root, NOTE)) or {"files": {}}
    done = []
    for path, row in sorted(known["files"].items()):
        now = content(root, path)
        if now == (bytes.fromhex(row["after"]) if row["after"] is not None else None):
            done.append(Change(path, now, bytes.fromhex(row["before"])))
    ours = [path for folder in (KEY_FILES, SOURCE_FILES) for path in folder.values()]
    done += [Change(path, content(root, path), None) for path in [*ours, "/" + NOTE]]
    done = [change for change in done if change.before != change.after]
    for change in [] if dry else done:
        write(root, change.path, change.after)
    return done


def content(root: str, path: str) -> bytes | None:
    """The bytes of a file of the node, None where there is none."""
    try:
        with open(os.path.join(root, path.lstrip("/")), "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(root: str, path: str, data: bytes | None) -> None:
    """Replace a file in one step and keep its mode; None removes it."""
    inside = os.path.join(root, path.lstrip("/"))
    if data is None:
        if os.path.lexists(inside):
            os.unlink(inside)
        return
    mode = os.stat(inside).st_mode & 0o7777 if os.path.exists(inside) else 0o644
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    partial = os.path.join(os.path.dirname(inside), f".{os.path.basename(inside)}.gpufleet")
    with open(partial, "wb") as stream:
        stream.write(data)
    os.chmod(partial, mode)
    os.replace(partial, inside)


def judge(url: str, code: int, said: str) -> None:
    """See that the package manager could read the repository.

    :raises GpufleetError: GF-REPOSITORY-UNTRUSTED, GF-REPOSITORY-UNREACHABLE.
    """
    lines = [line.strip() for line in said.splitlines() if re.match(r"\s*(E:|W:|Err:|Error|Warning|Failed)", line)]
    if code == 0 and not any(re.search(r"Failed to fetch|is not signed", line) for line in lines):
        return
    words = " ".join(dict.fromkeys(lines)) or said.strip()[-500:]
    if UNTRUSTED.search(words):
        raise GpufleetError(
            "GF-REPOSITORY-UNTRUSTED",
            f"{url} is not signed by its pinned key, or its files do not match: {words}",
            "a mirror that was cut off in the middle of its copy, a changed signing key, or somebody in between",
            "compare the mirror with NVIDIA's own repository; where NVIDIA changed its key, take a newer release of the collection",
        )
    raise GpufleetError(
        "GF-REPOSITORY-UNREACHABLE",
        f"{url} could not be read: {words}",
        "the node has no way to it (network, proxy), or the mirror lacks this distribution",
        f"on the node: curl -I {url}/; set nvidia_repository_url to a mirror that the node reaches",
    )


def _wrong(origin: str, found: str, fingerprint: str) -> GpufleetError:
    return GpufleetError(
        "GF-KEY-WRONG",
        f"{origin} is not the pinned key: {found}, expected {fingerprint} alone",
        "a mirror serves another file, NVIDIA changed its key, or somebody between node and mirror put in another",
        "compare with the fingerprint that NVIDIA publishes; a key that you have checked goes into gpufleet_catalog_overlay",
    )
