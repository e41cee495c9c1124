# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PyTorch in the environments under the prefix, read without importing it. Private to the collection."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot


def _assigned(text: str, name: str) -> str | None:
    """``name = 'value'``, with or without a type between; None for anything that is not a string."""
    match = re.search(rf"^{name}\s*(?::[^=]+)?=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else None


def _site_packages(sysroot: Sysroot, path: str) -> str | None:
    for library in ("lib", "lib64"):
        for folder in sysroot.listing(f"{path}/{library}", "python3.*"):
            if sysroot.is_dir(folder + "/site-packages"):
                return folder + "/site-packages"
    return None


def _python(sysroot: Sysroot, path: str) -> str | None:
    # "version" is venv's word, "version_info" virtualenv's and uv's.
    match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+(?:\.\d+)?)", sysroot.text(path + "/pyvenv.cfg") or "", re.M)
    return match.group(1) if match else None


def _cudnn(sysroot: Sysroot, site: str) -> str | None:
    for path in sysroot.listing(site, "nvidia_cudnn_cu*.dist-info"):
        return os.path.basename(path)[: -len(".dist-info")].partition("-")[2]
    return None


def _describe(sysroot: Sysroot, environment: str, path: str, current: bool) -> dict[str, Any] | None:
    site = _site_packages(sysroot, path)
    text = sysroot.text(site + "/torch/version.py") if site else None
    if site is None or text is None:
        return None
    # Only a node that has a torch needs to read into its library.
    from ansible_collections.gpufleet.stack.plugins.module_utils import torch_arch

    version, cuda = _assigned(text, "__version__"), _assigned(text, "cuda")
    return {
        "environment": environment,
        "path": path,
        "current": current,
        "version": version,
        "cuda": cuda,
        "cudnn": _cudnn(sysroot, site),
        "python": _python(sysroot, path),
        "arch_list": torch_arch.arch_list(sysroot, site, cuda) if version else None,
    }


def _is_whole(sysroot: Sysroot, path: str) -> bool:
    """Whether a directory is an environment, and not what a killed run left of one."""
    unfinished = sysroot.exists(path + "/.gpufleet-building") and not sysroot.exists(path + "/.complete")
    return sysroot.is_dir(path) and not unfinished


def find(sysroot: Sysroot, prefix: str) -> list[dict[str, Any]]:
    """The ``torch`` part of the CUDA facts: each version that stands in an environment."""
    found = []
    for folder in sysroot.listing(prefix + "/envs"):
        environment, link = os.path.basename(folder), folder + "/current"
        target = sysroot.real(link) if sysroot.is_dir(link) else None
        versions = [path for path in sysroot.listing(folder, "[!.]*") if path != link and _is_whole(sysroot, path)]
        if target is not None and target not in [sysroot.real(path) for path in versions]:
            versions.append(link)  # it leads out of the environment's own directory
        for path in versions:
            description = _describe(sysroot, environment, path, sysroot.real(path) == target)
            if description is not None:
                found.append(description)
    return found


def _libraries(sysroot: Sysroot, path: str) -> Iterable[str]:
    site = _site_packages(sysroot, path)
    if site is None:
        return []
    folders = [site + "/torch/lib", *(part + "/lib" for part in sysroot.listing(site + "/nvidia"))]
    return [library for folder in folders for library in sysroot.listing(folder, "*.so*")]


def shadowed(sysroot: Sysroot, torches: Iterable[dict[str, Any]], ld_library_path: list[str]) -> list[dict[str, str]]:
    """Libraries of torch's that the loader would take from a directory of LD_LIBRARY_PATH instead."""
    taken: dict[str, str] = {}
    for folder in reversed(ld_library_path):  # the first directory wins
        taken.update({os.path.basename(path): path for path in sysroot.listing(folder, "*.so*")})
    return [
        {"library": os.path.basename(path), "path": path, "by": taken[os.path.basename(path)]}
        for torch in torches
        for path in (_libraries(sysroot, torch["path"]) if taken else [])
        if os.path.basename(path) in taken
        # The same directory, put on LD_LIBRARY_PATH itself, shadows nothing.
        and sysroot.real(path) != sysroot.real(taken[os.path.basename(path)])
    ]
