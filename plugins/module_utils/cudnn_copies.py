# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of cuDNN on a node, outside Python environments. Private to the collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_SYSTEM_DIRS = ("/usr/lib64", "/usr/lib")
_DEFINES = ("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL")


def _header_version(sysroot: Sysroot, folder: str) -> str | None:
    text = sysroot.text(folder + "/cudnn_version.h") or sysroot.text(folder + "/cudnn.h") or ""
    numbers = [re.search(rf"^#define {name}\s+(\d+)", text, re.MULTILINE) for name in _DEFINES]
    return ".".join(number.group(1) for number in numbers if number) if all(numbers) else None


def _library_version(sysroot: Sysroot, folder: str) -> str | None:
    """The fullest version that a file name of the library carries."""
    names = [os.path.basename(path) for path in sysroot.listing(folder, "libcudnn.so.*")]
    return max((name[len("libcudnn.so.") :] for name in names), key=len, default=None)


def _package_major(installed: dict[str, str]) -> int | None:
    """The CUDA of the packaged cuDNN: in the name since version 9, in the package's version before."""
    for name, version in sorted(installed.items()):
        match = re.match(r"^libcudnn\d+-cuda-(\d+)$", name)
        if not match and re.match(r"^libcudnn\d+$", name):
            match = re.search(r"\+cuda(\d+)\.", version)
        if match:
            return int(match.group(1))
    return None


def _loader_dirs(sysroot: Sysroot) -> list[str]:
    """Directories the loader searches: its own and those of its configuration."""
    folders = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", *sysroot.listing("/usr/lib", "*-linux-gnu")]
    for path in ["/etc/ld.so.conf", *sysroot.listing("/etc/ld.so.conf.d", "*.conf")]:
        lines = (line.split("#")[0].strip() for line in (sysroot.text(path) or "").splitlines())
        folders += [line for line in lines if line.startswith("/")]
    return folders


def _prefix_copies(sysroot: Sysroot, prefix: str) -> Iterable[dict[str, Any]]:
    for path in sysroot.listing(prefix + "/cudnn"):
        match = re.match(r"^(\d+(?:\.\d+)+)-cuda(\d+)$", os.path.basename(path))
        if match and sysroot.listing(path + "/lib", "libcudnn.so*"):
            yield {
                "version": match.group(1),
                "path": path,
                "cuda_major": int(match.group(2)),
                "source": "gpufleet",
                "folder": path + "/lib",
            }


def _toolkit_copies(sysroot: Sysroot, toolkits: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    for toolkit in toolkits:
        if toolkit["source"] in ("gpufleet", "distro"):
            continue  # neither we nor Debian put cuDNN into the toolkit
        for folder in (toolkit["path"] + "/lib64", toolkit["path"] + "/lib"):
            version = _library_version(sysroot, folder)
            if version is not None:
                version = _header_version(sysroot, toolkit["path"] + "/include") or version
                major = int(toolkit["version"].split(".")[0]) if toolkit["version"] else None
                yield {
                    "version": version,
                    "path": toolkit["path"],
                    "cuda_major": major,
                    "source": "copy",
                    "folder": folder,
                }
                break


def _system_copies(sysroot: Sysroot, installed: dict[str, str]) -> Iterable[dict[str, Any]]:
    packaged = any(re.match(r"^(libcudnn\d|nvidia-cudnn$)", name) for name in installed)
    seen = set()
    for folder in [*sysroot.listing("/usr/lib", "*-linux-gnu"), *_SYSTEM_DIRS, "/usr/local/lib"]:
        version = _library_version(sysroot, folder)
        if version is None or sysroot.real(folder) in seen:
            continue
        seen.add(sysroot.real(folder))
        includes = ["/usr/include/" + os.path.basename(folder), "/usr/include", "/usr/local/include"]
        headers = [header for header in (_header_version(sysroot, include) for include in includes) if header]
        if version.count(".") == 0 and headers:
            version = headers[0]
        source = "package" if packaged and folder != "/usr/local/lib" else "copy"
        major = _package_major(installed) if source == "package" else None
        yield {"version": version, "path": folder, "cuda_major": major, "source": source, "folder": folder}


def find(
    sysroot: Sysroot,
    prefix: str,
    installed: dict[str, str],
    toolkits: Iterable[dict[str, Any]],
    ld_library_path: Iterable[str],
) -> list[dict[str, Any]]:
    """The ``cudnn`` part of the CUDA facts."""
    searched = {sysroot.real(folder) for folder in [*_loader_dirs(sysroot), *ld_library_path]}
    copies = [
        *_prefix_copies(sysroot, prefix),
        *_toolkit_copies(sysroot, toolkits),
        *_system_copies(sysroot, installed),
    ]
    for copy in copies:
        copy["on_loader_path"] = sysroot.real(copy.pop("folder")) in searched
    return copies
