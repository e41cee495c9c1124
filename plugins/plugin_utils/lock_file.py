# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock as a file: read, checked, written. Private to the collection.

A lock is a ``pylock.toml`` (PEP 751) for one platform and one Python, with exactly one wheel for each package: its
address, SHA-256 and size. What it was made for, and a digest of the rest, stand in its header.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any

import tomllib
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import write_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import without_credentials
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_wheels import Wheel, label, misfits

HEADER = "# made-for: "
DIGEST = "# digest: "
BEGIN = "lock-version = "
PLATFORM = ("architecture", "glibc", "python")


@dataclass(frozen=True)
class Wish:
    """What a lock is for.

    :param requirements: as PEP 508 has them.
    :param python: major and minor, ``3.11``.
    :param architecture: ``x86_64`` or ``aarch64``.
    :param glibc: major and minor of the node's C library; None asks for wheels that every supported node can load.
    :param name: first part of the file's name.
    :param index_url: the index in place of uv's own default.
    :param indexes: the index of each package that comes from another one, by the package's name. These packages come from there
        alone, and all others from the first index alone.
    """

    requirements: list[str]
    python: str
    architecture: str
    glibc: str | None
    name: str
    index_url: str | None = None
    indexes: dict[str, str] = field(default_factory=dict)

    def file(self, directory: str) -> str:
        """Where the lock lies."""
        # PEP 751: pylock.<name>.toml, without further dots.
        platform = f"{self.architecture}-glibc{self.glibc or 'any'}"
        stem = re.sub(r"[^A-Za-z0-9_+-]", "_", f"{self.name}-py{self.python}-{platform}")
        return os.path.join(directory, f"pylock.{stem}.toml")

    def header(self) -> dict[str, Any]:
        """What the lock says that it was made for."""
        return {
            "architecture": self.architecture,
            "glibc": self.glibc,
            "index": without_credentials(self.index_url or ""),
            "indexes": {name: without_credentials(url) for name, url in sorted(self.indexes.items())},
            "python": self.python,
            "requirements": sorted(self.requirements),
        }

    def platform(self) -> str:
        """The platform in words."""
        return _platform(self.header())


@dataclass(frozen=True)
class Lock:
    """A lock as text and as data.

    :param path: the file on the controller, written or not.
    :param text: content of the file; what the node installs from.
    :param sha256: SHA-256 of the text.
    :param download_bytes: sum of all wheels, None where the index does not tell every size.
    :param wheels: ``{name, version, url, sha256, size}`` each, sorted by name.
    """

    path: str
    text: str
    sha256: str
    download_bytes: int | None
    wheels: list[Wheel]


def kept(wish: Wish, directory: str) -> Lock | None:
    """The lock in this directory, where it was made for just this; no index is asked.

    :raises GpufleetError: GF-LOCK-INVALID for one that is damaged, GF-LOCK-PLATFORM for one of another platform.
    """
    path = wish.file(directory)
    text = read(path)
    if text is None:
        return None
    made_for, wanted = _made_for(path, text), wish.header()
    if made_for.keys() != wanted.keys():
        return None  # of an earlier version of the collection, which asked two indexes for everything
    if any(made_for.get(key) != wanted[key] for key in PLATFORM):
        raise _foreign(path, f"was made for {_platform(made_for)}, and {_platform(wanted)} is wanted")
    lock = parse(path, text)
    if made_for != wanted:
        return None
    strange = misfits(lock.wheels, wish.python, wish.architecture, wish.glibc)
    if strange:
        raise _foreign(path, f"has {strange[0]}, which {_platform(wanted)} cannot load")
    return lock


def former(wish: Wish, directory: str) -> Lock | None:
    """The lock that another one is about to take the place of; None where there is none that can be read."""
    path = wish.file(directory)
    try:
        text = read(path)
        return parse(path, text) if text is not None else None
    except GpufleetError:
        return None


def read(path: str) -> str | None:
    """The file's text, None where it is not there."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, f"cannot be read: {error}") from error


def _made_for(path: str, text: str) -> dict[str, Any]:
    said = _comment(text, HEADER)
    if said is None:
        raise _invalid(path, "does not say what it was made for")
    try:
        found = json.loads(said)
    except ValueError as error:
        raise _invalid(path, f"has a damaged header: {error}") from error
    if not isinstance(found, dict):
        raise _invalid(path, "has a damaged header")
    return found


def _comment(text: str, mark: str) -> str | None:
    return next((line[len(mark) :] for line in text.splitlines() if line.startswith(mark)), None)


def _platform(made_for: dict[str, Any]) -> str:
    glibc = f"with glibc {made_for['glibc']}" if made_for.get("glibc") else "with any glibc"
    return f"Python {made_for.get('python')} on {made_for.get('architecture')} {glibc}"


def _invalid(path: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-LOCK-INVALID",
        f"the lock {path} {what}",
        "it was edited, cut off, or merged with conflicts",
        f"restore it from version control, or remove it so that a new one is made: rm {path}",
    )


def _foreign(path: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-LOCK-PLATFORM",
        f"the lock {path} {what}",
        "it was copied or renamed from the lock of another platform",
        f"restore it from version control, or remove it so that one for this platform is made: rm {path}",
    )


def parse(path: str, text: str) -> Lock:
    """The lock in this text, checked."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(path, f"is not TOML: {error}") from error
    packages = document.get("packages")
    if not isinstance(packages, list) or not packages:
        raise _invalid(path, "holds no packages")
    wheels = [_wheel(path, package) for package in packages]
    if _comment(text, DIGEST) != _digest(text):
        raise _invalid(path, "is not as it was written: its digest does not fit its content")
    sizes = [wheel["size"] for wheel in wheels]
    total = None if any(size is None for size in sizes) else sum(sizes)
    return Lock(path, text, hashlib.sha256(text.encode()).hexdigest(), total, wheels)


def _wheel(path: str, package: Any) -> Wheel:
    found = package.get("wheels") if isinstance(package, dict) else None
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        raise _invalid(path, f"has not exactly one wheel for {label(package)}")
    wheel = {
        "name": package.get("name"),
        "version": package.get("version"),
        "url": found[0].get("url"),
        "sha256": (found[0].get("hashes") or {}).get("sha256"),
        "size": found[0].get("size"),
    }
    whole = all(isinstance(wheel[key], str) for key in ("name", "version", "url", "sha256"))
    if not whole or not re.fullmatch(r"[0-9a-f]{64}", wheel["sha256"]):
        raise _invalid(path, f"lacks address, version or SHA-256 of {label(package)}")
    return wheel


def _digest(text: str) -> str:
    """SHA-256 of the packages: a file that was cut off between two of them is TOML all the same."""
    return hashlib.sha256(text[text.find(BEGIN) :].encode()).hexdigest()


def render(wish: Wish, wheels: list[Wheel]) -> str:
    """The lock as text. JSON strings are TOML strings as long as they are ASCII, which ``json.dumps`` sees to."""
    lines = [f'{BEGIN}"1.0"', 'created-by = "gpufleet.stack"', f'requires-python = ">={wish.python}"']
    for wheel in wheels:
        size = "" if wheel["size"] is None else f"size = {wheel['size']}, "
        url, sha256 = json.dumps(wheel["url"]), json.dumps(wheel["sha256"])
        lines += [
            "",
            "[[packages]]",
            f"name = {json.dumps(wheel['name'])}",
            f"version = {json.dumps(wheel['version'])}",
            f"wheels = [{{ url = {url}, {size}hashes = {{ sha256 = {sha256} }} }}]",
        ]
    body = "\n".join(lines) + "\n"
    head = [
        "# Made by gpufleet.stack: one wheel for each package, for this platform only. Keep it under version control.",
        HEADER + json.dumps(wish.header(), sort_keys=True),
        DIGEST + _digest(body),
    ]
    return "\n".join([*head, body])


def write(path: str, text: str) -> None:
    """Put the lock where it belongs; whole at any time."""
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(f"the lock {path} cannot be written", error) from error


def unwritable(what: str, error: OSError) -> GpufleetError:
    """The directory of locks cannot be written."""
    return GpufleetError(
        "GF-LOCK-INVALID",
        f"{what}: {error.strerror}",
        "the directory of locks on the controller is not writable, or its disk is full",
        "set gpufleet_lock_directory to a directory that you can write to",
    )
