# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of cuDNN on a node, outside Python environments. Private to the collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

if TYPE_CHECKING:
    from ansible_collections.gpufleet.stack.plugins.module_utils.loader_path import Loader

_SYSTEM_DIRS = ("/usr/lib64", "/usr/lib")
_DEFINES = ("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL")


class _Copy(NamedTuple):
    """One copy; ``folder`` holds the libraries, ``path`` is what a user calls its place."""

    version: str
    path: str
    cuda_major: int | None
    source: str
    folder: str


def _header_version(sysroot: Sysroot, folder: str, major: str) -> str | None:
    """The version in the headers, where they are of this major version."""
    # "_v9": NVIDIA's packages, which leave the plain name to alternatives. cuDNN 7 had it all in cudnn.h.
    for name in (f"cudnn_version_v{major}.h", "cudnn_version.h", "cudnn.h"):
        text = sysroot.text(f"{folder}/{name}") or ""
        numbers = [re.search(rf"^#define {define}\s+(\d+)", text, re.MULTILINE) for define in _DEFINES]
        version = ".".join(number.group(1) for number in numbers if number)
        if all(numbers) and version.split(".", maxsplit=1)[0] == major:
            return version
    return None


def _library_versions(sysroot: Sysroot, folder: str) -> dict[str, str]:
    """For each major version the fullest version that a file name of the library carries."""
    found: dict[str, str] = {}
    for path in sysroot.listing(folder, "libcudnn.so.[0-9]*"):
        version = os.path.basename(path)[len("libcudnn.so.") :]
        major = version.split(".", maxsplit=1)[0]
        found[major] = max(found.get(major, ""), version, key=len)
    return found


def _package_cuda(installed: dict[str, str], major: str) -> int | None:
    """The CUDA of the packaged cuDNN: in the name since version 9, in the package's version before."""
    for name, version in sorted(installed.items()):
        match = re.match(rf"^libcudnn{major}-cuda-(\d+)$", name)
        if not match and name == f"libcudnn{major}":
            match = re.search(r"[+.]cuda(\d+)\.", version)  # rpm has a full stop for the plus
        if match:
            return int(match.group(1))
    return None


def _prefix_copies(sysroot: Sysroot, prefix: str) -> Iterator[_Copy]:
    for path in sysroot.listing(prefix + "/cudnn"):
        match = re.match(r"^(\d+(?:\.\d+)+)-cuda(\d+)$", os.path.basename(path))
        if match and sysroot.listing(path + "/lib", "libcudnn.so*"):
            yield _Copy(match.group(1), path, int(match.group(2)), "gpufleet", path + "/lib")


def _toolkit_copies(sysroot: Sysroot, toolkits: Iterable[dict[str, Any]]) -> Iterator[_Copy]:
    seen = set()
    for toolkit in toolkits:
        if toolkit["source"] in ("gpufleet", "distro"):
            continue  # neither we nor Debian put cuDNN into the toolkit
        cuda = int(toolkit["version"].split(".")[0]) if toolkit["version"] else None
        for folder in (toolkit["path"] + "/lib64", toolkit["path"] + "/lib"):
            if sysroot.real(folder) in seen:
                continue  # lib64 leads to lib of targets/x86_64-linux
            seen.add(sysroot.real(folder))
            for major, version in sorted(_library_versions(sysroot, folder).items()):
                header = _header_version(sysroot, toolkit["path"] + "/include", major)
                yield _Copy(header or version, toolkit["path"], cuda, "copy", folder)


def _system_dirs(sysroot: Sysroot) -> list[str]:
    return [*sysroot.listing("/usr/lib", "*-linux-gnu"), *_SYSTEM_DIRS, "/usr/local/lib"]


def in_system(sysroot: Sysroot) -> bool:
    """Whether cuDNN stands in a directory of the system's."""
    return any(sysroot.listing(folder, "libcudnn.so.*") for folder in _system_dirs(sysroot))


def _system_copies(sysroot: Sysroot, installed: dict[str, str]) -> Iterator[_Copy]:
    packaged = any(re.match(r"^(libcudnn\d|nvidia-cudnn$)", name) for name in installed)
    seen = set()
    for folder in _system_dirs(sysroot):
        if sysroot.real(folder) in seen:
            continue
        seen.add(sysroot.real(folder))
        for major, named in sorted(_library_versions(sysroot, folder).items()):
            includes = ["/usr/include/" + os.path.basename(folder), "/usr/include", "/usr/local/include"]
            headers = (_header_version(sysroot, include, major) for include in includes)
            version = named if "." in named else next((header for header in headers if header), named)
            source = "package" if packaged and folder != "/usr/local/lib" else "copy"
            cuda = _package_cuda(installed, major) if source == "package" else None
            yield _Copy(version, folder, cuda, source, folder)


def _facts(sysroot: Sysroot, copy: _Copy, loader: Loader, searched: set[str]) -> dict[str, Any]:
    folder = sysroot.real(copy.folder)
    taken = loader.takes("libcudnn.so." + copy.version.split(".", maxsplit=1)[0])
    return {
        "version": copy.version,
        "path": copy.path,
        "cuda_major": copy.cuda_major,
        "source": copy.source,
        "on_loader_path": folder in searched,
        # The directory of the name that the loader takes, not of a file that this leads to.
        "loader_takes": taken is not None and sysroot.real(os.path.dirname(taken)) == folder,
    }


def find(
    sysroot: Sysroot,
    prefix: str,
    installed: dict[str, str],
    toolkits: Iterable[dict[str, Any]],
    ld_library_path: Iterable[str],
) -> list[dict[str, Any]]:
    """The ``cudnn`` part of the CUDA facts."""
    copies = [
        *_prefix_copies(sysroot, prefix),
        *_toolkit_copies(sysroot, toolkits),
        *_system_copies(sysroot, installed),
    ]
    if not copies:
        return []
    # Most nodes have no cuDNN of their own, and then nobody needs to know where the loader looks.
    from ansible_collections.gpufleet.stack.plugins.module_utils.loader_path import Loader

    loader = Loader(sysroot, ld_library_path)
    searched = loader.searched()
    return [_facts(sysroot, copy, loader, searched) for copy in copies]
