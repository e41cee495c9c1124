# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cuDNN from NVIDIA's packages, as a directory of links that looks like one from a wheel. Private to the collection.

The packages leave the plain names of headers and libraries to alternatives or not at all; here they lead to this version,
whatever the node's own choice is.
"""

from __future__ import annotations

import os
import re

from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_layout, trees
from ansible_collections.gpufleet.stack.plugins.module_utils.cudnn import wrong
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import of_rpm, rpm_files

_LIBRARY = re.compile(r"^/usr/lib(?:64)?/(?:[^/]+/)*(libcudnn[\w-]*)\.so((?:\.\d+)*)$")
_HEADER = re.compile(r"^/usr/include/(?:[^/]+/)*(cudnn\w*?)(_v\d+)?\.h$")


def links(files: list[str], headers: bool) -> dict[str, str]:
    """``{path in the directory: the package's file}``; the soname and the plain name of each library, and of each header."""
    found: dict[str, str] = {}
    for path in sorted(files):
        library, header = _LIBRARY.match(path), _HEADER.match(path)
        if library and library[2]:
            name, number = library[1], library[2]
            found[f"lib/{name}.so{number}"] = path
            found.setdefault(f"lib/{name}.so.{number.split('.')[1]}", path)
            if headers:
                found[f"lib/{name}.so"] = path
        elif header and headers:
            if header[2]:
                found[f"include/{header[1]}{header[2]}.h"] = path
            # The name with the version is a file, the plain one may be somebody's alternative.
            if header[2] or f"include/{header[1]}.h" not in found:
                found[f"include/{header[1]}.h"] = path
    return dict(sorted(found.items()))


def wanted(packages: list[str], path: str, headers: bool, root: str = "/") -> dict[str, str]:
    """What the directory must hold.

    :raises GpufleetError: GF-CUDNN-WRONG where the packages are not installed or hold no cuDNN.
    """
    names = [name.partition("=")[0] for name in packages]
    files = _of_rpm(names, root) if of_rpm(root) else _of_dpkg(names, root)
    found = links(files, headers)
    if not any(place.startswith("lib/libcudnn.so") for place in found):
        raise wrong(f"{', '.join(names)} hold no libcudnn.so", path)
    return found


def _of_dpkg(names: list[str], root: str) -> list[str]:
    known = cuda_layout.installed_packages(root)
    files = [file for name in names if name in known for file in cuda_layout.package_files(known[name], root)]
    # The headers of newer releases lie in a package of their own, which the development package depends on.
    for name in names:
        for other in known[name].depends if name in known else ():
            if re.match(r"^libcudnn\d+-headers", other) and other in known:
                files += cuda_layout.package_files(known[other], root)
    return files


def _of_rpm(names: list[str], root: str) -> list[str]:
    return rpm_files([*names, *(name.replace("-devel-", "-headers-") for name in names)], root)


def make(path: str, places: dict[str, str]) -> None:
    """Build the directory beside ``path`` and switch to it."""
    new = trees.beside(path)
    for place, target in places.items():
        inside = os.path.join(new, place)
        os.makedirs(os.path.dirname(inside), mode=0o755, exist_ok=True)
        os.symlink(target, inside)
    trees.switch_directory(new, path)
