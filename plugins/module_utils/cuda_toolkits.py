# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA toolkits on a node, found without starting one. Private to the collection."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

DEFAULT_LINK = "/usr/local/cuda"
DEBIAN_DIRS = ("/usr/lib/cuda", "/usr/lib/nvidia-cuda-toolkit")
_HEAD = 64 * 1024  # of cuda.h, a megabyte that names its version on the first pages
DEBIAN_PACKAGE = "nvidia-cuda-toolkit"


def _from_version_json(sysroot: Sysroot, path: str) -> str | None:
    try:
        parts = json.loads(sysroot.text(path + "/version.json") or "")
        return str(parts["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None  # missing, or of another make: the next source is asked


def _from_version_txt(sysroot: Sysroot, path: str) -> str | None:
    match = re.search(r"CUDA Version (\d+\.\d+(?:\.\d+)?)", sysroot.text(path + "/version.txt") or "")
    return match.group(1) if match else None


def _from_header(sysroot: Sysroot, path: str) -> str | None:
    headers = [path + "/include/cuda.h"]
    headers += [target + "/include/cuda.h" for target in sysroot.listing(path + "/targets")]
    for header in headers:
        match = re.search(r"^#define CUDA_VERSION (\d+)", sysroot.text(header, _HEAD) or "", re.MULTILINE)
        if match:
            number = int(match.group(1))
            return f"{number // 1000}.{number % 1000 // 10}"
    return None


def _from_nvcc(sysroot: Sysroot, nvcc: str | None) -> str | None:
    """``nvcc --version`` prints a text that stands in its file."""
    if nvcc is None:
        return None
    import mmap  # seldom: other files tell it first

    try:
        path = sysroot.place(nvcc)
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            match = re.search(rb"release (\d+\.\d+), V(\d+\.\d+\.\d+)", data)
            return match.group(1).decode() if match else None
    except (OSError, ValueError):  # ValueError: an empty file can't be mapped
        return None


def _from_name(path: str) -> str | None:
    match = re.search(r"(?:^|-)(\d+\.\d+(?:\.\d+)?)$", os.path.basename(path))
    return match.group(1) if match else None


def _nvcc(sysroot: Sysroot, *candidates: str) -> str | None:
    return next((path for path in candidates if sysroot.exists(path)), None)


def _version(sysroot: Sysroot, path: str, nvcc: str | None) -> str | None:
    return (
        _from_version_json(sysroot, path)
        or _from_version_txt(sysroot, path)
        or _from_header(sysroot, path)
        or _from_nvcc(sysroot, nvcc)
        or _from_name(path)
    )


def _source(path: str, installed: dict[str, str]) -> str:
    """NVIDIA's packages name the series (``cuda-nvcc-12-4``); without one a runfile or a copy put it there."""
    series = "-".join((_from_name(path) or "").split(".")[:2])
    return (
        "nvidia" if any(f"cuda-{part}-{series}" in installed for part in ("nvcc", "toolkit", "cudart")) else "runfile"
    )


def _debian(sysroot: Sysroot, installed: dict[str, str]) -> dict[str, Any] | None:
    path = next((path for path in DEBIAN_DIRS if sysroot.is_dir(path)), None)
    nvcc = _nvcc(sysroot, *(f"{folder}/bin/nvcc" for folder in DEBIAN_DIRS), "/usr/bin/nvcc")
    if path is None or (nvcc is None and DEBIAN_PACKAGE not in installed):
        return None
    # "11.8.89~11.8.0-5~deb12u1": nvcc's own version, then the toolkit's
    match = re.search(r"~(\d+\.\d+(?:\.\d+)?)", installed.get(DEBIAN_PACKAGE, ""))
    version = match.group(1) if match else _version(sysroot, path, nvcc)
    return {"version": version, "path": path, "nvcc": nvcc, "source": "distro", "default": False}


def find(sysroot: Sysroot, prefix: str, installed: dict[str, str]) -> list[dict[str, Any]]:
    """The ``toolkits`` part of the CUDA facts; ``installed`` are the node's packages with their versions."""
    found: list[dict[str, Any]] = []
    for path in sysroot.listing(prefix + "/cuda") + sysroot.listing("/usr/local", "cuda-*"):
        if not sysroot.is_dir(path) or (not path.startswith(prefix + "/") and sysroot.real(path) != path):
            continue  # /usr/local/cuda-12 is NVIDIA's second link to /usr/local/cuda-12.4
        nvcc = _nvcc(sysroot, path + "/bin/nvcc")
        source = "gpufleet" if path.startswith(prefix + "/") else _source(path, installed)
        version = _from_name(path) if source == "gpufleet" else None
        version = version or _version(sysroot, path, nvcc)
        if version is not None:
            found.append({"version": version, "path": path, "nvcc": nvcc, "source": source, "default": False})
    debian = _debian(sysroot, installed)
    if debian is not None:
        found.append(debian)
    default = sysroot.real(DEFAULT_LINK) if sysroot.is_dir(DEFAULT_LINK) else None
    if default == DEFAULT_LINK:
        # A directory instead of a link: a toolkit that somebody unpacked there.
        nvcc = _nvcc(sysroot, DEFAULT_LINK + "/bin/nvcc")
        version = _version(sysroot, DEFAULT_LINK, nvcc)
        found.append({"version": version, "path": default, "nvcc": nvcc, "source": "runfile", "default": False})
    chosen = False
    for toolkit in found:
        # One is the default, even where a directory of ours is a link to another one of the list.
        toolkit["default"] = not chosen and default is not None and sysroot.real(toolkit["path"]) == default
        chosen = chosen or toolkit["default"]
    return found
