# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's installers as files: brought to the node once, and looked at before one of them runs. Private to the collection.

They are shell scripts with an archive behind (makeself). The script's beginning says what the archive is, and lists the
installer's options for its own --help.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import download
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest

# Not below gpufleet_cache_dir, which may be shared by nodes of other processors.
CACHE = "/var/cache/gpufleet-runfiles"
# The script before the archive has some 1000 lines.
SCRIPT = 1 << 18
PROGRAMS = {"nvidia_driver": "nvidia-installer", "cuda_toolkit": "cuda-installer"}


class Header(NamedTuple):
    """What the beginning of the file says; None is unknown."""

    version: str | None
    architecture: str | None
    text: str


def cached_path(role: str, sha256: str, cache: str = CACHE) -> str:
    """Where a role's installer lies on the node: by its content, so that no other file is ever taken for it."""
    return os.path.join(cache, role, sha256 + ".run")


def is_address(place: str) -> bool:
    """Whether the file is fetched; otherwise it is a path."""
    return re.match(r"^[a-z][a-z0-9+.-]*://", place) is not None


def bring(place: str, sha256: str, path: str) -> bool | None:
    """Put the installer at ``path``: fetched, or copied where it lies on the node.

    :returns: False where it was there already, None where ``place`` is a path that this node does not have.
    :raises GpufleetError: GF-RUNFILE-HASH, GF-DOWNLOAD-UNREACHABLE, GF-DOWNLOAD-SHORT
    """
    if file_digest(path) == sha256:
        return False
    if is_address(place):
        return _fetch(place, sha256, path)
    if not os.path.isfile(place):
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    found = _copy(place, path + ".part")
    if found != sha256:
        size = os.path.getsize(path + ".part")
        os.unlink(path + ".part")
        raise wrong_hash(place, sha256, found, size)
    os.replace(path + ".part", path)
    return True


def _copy(place: str, part: str) -> str:
    digest = hashlib.sha256()
    with open(place, "rb") as source, open(part, "wb") as target:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _fetch(place: str, sha256: str, path: str) -> bool:
    try:
        return download.fetch(place, path, sha256)
    except GpufleetError as error:
        if error.code != "GF-DOWNLOAD-HASH":
            raise
        found = re.search(r"SHA-256 ([0-9a-f]{64})", error.message)
        raise wrong_hash(download.shown(place), sha256, found[1] if found else "unknown", None) from error


def wrong_hash(place: str, sha256: str, found: str | None, size: int | None) -> GpufleetError:
    """GF-RUNFILE-HASH for a file that is not the one that was promised."""
    length = "" if size is None else f" ({size} bytes)"
    return GpufleetError(
        "GF-RUNFILE-HASH",
        f"{place}{length} has the SHA-256 {found}, expected {sha256}",
        "the file is cut off or was changed, or the SHA-256 in the inventory is another file's",
        "sha256sum of the file as NVIDIA publishes it; name that one, and bring the whole file here again",
    )


def nowhere(place: str) -> GpufleetError:
    """GF-RUNFILE-NOWHERE for a path that neither the node nor the controller has."""
    return GpufleetError(
        "GF-RUNFILE-NOWHERE",
        f"there is no file {place}, on this node or on the controller",
        "the path is misspelt, or a file system that holds it is not mounted",
        "ls -l of the path on both; name a path or an address that is there",
    )


def read(path: str) -> Header:
    """The beginning of an installer."""
    with open(path, "rb") as stream:
        text = stream.read(SCRIPT).decode("latin-1")
    label = re.search(r'^label="?[^"\n]*?(\d{3}\.[\d.]*\d)"?$', text, re.MULTILINE)
    version = _value(text, "version_string") or (label[1] if label else None)
    return Header(version, _value(text, "TARGET_ARCH"), text)


def _value(text: str, name: str) -> str | None:
    match = re.search(rf'^{name}="?([^"\s]+)"?$', text, re.MULTILINE)
    return match[1] if match else None


def check(path: str, role: str, version: str, architecture: str, place: str) -> Header:
    """Whether the file is the installer that it should be.

    :param place: where it came from, for the message.
    :raises GpufleetError: GF-RUNFILE-FOREIGN
    """
    header = read(path)
    if not header.text.startswith("#!") or PROGRAMS[role] not in header.text:
        raise _foreign(place, f"it does not start {PROGRAMS[role]}, as NVIDIA's own do")
    # A toolkit's says neither; nvcc_check asks what was installed.
    if role == "nvidia_driver" and header.version != version:
        raise _foreign(place, f"it brings version {header.version}, {version} is wanted")
    if header.architecture not in (None, architecture):
        raise _foreign(place, f"it is made for {header.architecture}, this node has {architecture}")
    return header


def _foreign(place: str, why: str) -> GpufleetError:
    return GpufleetError(
        "GF-RUNFILE-FOREIGN",
        f"{place} is not the wanted installer: {why}",
        "another file was named, or one was renamed",
        "name the installer of the wanted version and of the node's architecture, with its SHA-256",
    )


def known(header: Header, options: list[str]) -> list[str]:
    """Those of the options that the installer's own help names."""
    names = [(option, option.partition("=")[0]) for option in options]
    return [option for option, name in names if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", header.text)]
