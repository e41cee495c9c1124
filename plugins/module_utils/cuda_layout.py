# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's directory layout for a toolkit that Debian spread over /usr. Private to the collection.

Everything that expects ``/usr/local/cuda/{bin,include,lib64,nvvm}`` finds it there, as links to Debian's files.
``lib64`` has CUDA's own libraries only: it stands in users' LD_LIBRARY_PATH and must not bring any other library
forward.
"""

from __future__ import annotations

import json
import os
import re
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import trees
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Built from sources of their own in Debian, part of the toolkit at NVIDIA.
HEADER_PACKAGES = ("libthrust-dev", "libcub-dev", "libcu++-dev")
DEBIAN_HOME = "/usr/lib/nvidia-cuda-toolkit/"
TRIPLET = r"(?:[^/]+-linux-gnu/)?"
LIBRARY = re.compile(rf"^/usr/lib/{TRIPLET}(lib[^/]+\.(?:so(?:\.[\d.]+)?|a))$")
STUB = re.compile(rf"^/usr/lib/{TRIPLET}stubs/([^/]+)$")
HEADER = re.compile(rf"^/usr/include/{TRIPLET}(.+)$")
VERSION_FILE = "version.json"


class Package(NamedTuple):
    """What dpkg's status file says of an installed package."""

    name: str
    architecture: str
    version: str
    source: str
    source_version: str
    depends: tuple[str, ...]


def installed_packages(root: str = "/") -> dict[str, Package]:
    """Installed packages by name. Of a name with several architectures the first counts."""
    found: dict[str, Package] = {}
    try:
        with open(os.path.join(root, "var/lib/dpkg/status"), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except FileNotFoundError:
        return found
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        name = fields.get("Package")
        if not name or not fields.get("Status", "").endswith(" installed") or name in found:
            continue
        source, _blank, source_version = (fields.get("Source") or name).partition(" ")
        depends = re.split(r"[,|]", ", ".join(fields.get(key, "") for key in ("Pre-Depends", "Depends")))
        found[name] = Package(
            name,
            fields.get("Architecture", ""),
            fields.get("Version", ""),
            source,
            source_version.strip("()") or fields.get("Version", ""),
            tuple(item.split("(")[0].split(":")[0].strip() for item in depends if item.strip()),
        )
    return found


def toolkit_packages(installed: dict[str, Package], roots: list[str]) -> list[Package]:
    """The packages of the toolkit: what ``roots`` need, as far as it was built from the toolkit's own source.

    :raises GpufleetError: GF-CUDA-LAYOUT when no root is a package of the toolkit.
    """
    sources = {installed[name].source for name in roots if name in installed and "cuda" in installed[name].source}
    if not sources:
        raise GpufleetError(
            "GF-CUDA-LAYOUT",
            f"none of {', '.join(roots)} is installed as a package of the CUDA toolkit",
            "the installation was interrupted, or the package was removed since",
            "apt-get install --no-install-recommends " + " ".join(roots),
        )
    found: dict[str, Package] = {}
    queue = [name for name in roots if name in installed]
    while queue:
        package = installed[queue.pop()]
        if package.name in found or (package.source not in sources and package.name not in HEADER_PACKAGES):
            continue
        found[package.name] = package
        queue += [name for name in package.depends if name in installed]
    return [found[name] for name in sorted(found)]


def package_files(package: Package, root: str = "/") -> list[str]:
    """Files and links (no directories) of a package, from dpkg's list."""
    folder = os.path.join(root, "var/lib/dpkg/info")
    for name in (package.name, f"{package.name}:{package.architecture}"):
        try:
            with open(os.path.join(folder, name + ".list"), encoding="utf-8", errors="replace") as stream:
                paths = stream.read().splitlines()
        except FileNotFoundError:
            continue
        return [path for path in paths if path != "/." and not _is_directory(path, root)]
    return []


def _is_directory(path: str, root: str) -> bool:
    inside = os.path.join(root, path.lstrip("/"))
    return os.path.isdir(inside) and not os.path.islink(inside)


def _place(path: str) -> str | None:
    """Where a file of Debian's belongs in NVIDIA's layout; None: nowhere."""
    for pattern, folder in ((LIBRARY, "lib64/"), (STUB, "lib64/stubs/"), (HEADER, "include/")):
        match = pattern.match(path)
        if match:
            return folder + match[1]
    if re.fullmatch(r"/usr/bin/[^/]+", path):
        return "bin/" + os.path.basename(path)
    if path == DEBIAN_HOME + "bin/cicc":
        return "nvvm/bin/cicc"
    if path.startswith((DEBIAN_HOME + "libdevice/", DEBIAN_HOME + "compute-sanitizer/")):
        inside = path[len(DEBIAN_HOME) :]
        return "nvvm/" + inside if inside.startswith("libdevice/") else inside
    return None


def links(files: list[str], root: str = "/") -> dict[str, str]:
    """``{path in the layout: what it links to}``.

    A directory of headers that belongs to the toolkit alone becomes one link; one shared with others, a link per file.
    """
    owned = set(files)
    wanted: dict[str, str] = {}
    for path in files:
        place = _place(path)
        if place is None:
            continue
        top = place.split("/")
        if top[0] == "include" and len(top) > 2:
            directory = path[: len(path) - len("/".join(top[2:])) - 1]
            if _only_ours(directory, owned, root):
                wanted["include/" + top[1]] = directory
                continue
        wanted[place] = path
    return dict(sorted(wanted.items()))


def _only_ours(directory: str, owned: set[str], root: str) -> bool:
    for folder, _directories, names in os.walk(os.path.join(root, directory.lstrip("/"))):
        inside = "/" + os.path.relpath(folder, root)
        if any(os.path.join(inside, name) not in owned for name in names):
            return False
    return True


def version_text(packages: list[Package]) -> str:
    """``version.json`` as NVIDIA's toolkits have it: the version of CUDA, of nvcc and of the runtime."""
    rows = {}
    for package in packages:
        component = package.version.split("~")[0].split("-")[0]
        if package.name == "nvidia-cuda-toolkit":
            rows["cuda"] = {"name": "CUDA SDK", "version": package.source_version.split("-")[0].split("~")[0]}
            rows["cuda_nvcc"] = {"name": "CUDA NVCC", "version": component}
        elif re.fullmatch(r"libcudart[\d.]+(t64)?", package.name):
            rows["cuda_cudart"] = {"name": "CUDA Runtime (cudart)", "version": component}
    return json.dumps(rows, indent=2, sort_keys=True) + "\n"


def present(path: str) -> dict[str, str]:
    """The links of a layout that is there; ``version.json`` with its text."""
    found: dict[str, str] = {}
    for folder, directories, names in os.walk(path):
        for name in names + directories:
            inside = os.path.join(folder, name)
            relative = os.path.relpath(inside, path)
            if os.path.islink(inside):
                found[relative] = os.readlink(inside)
            elif os.path.isfile(inside):
                found[relative] = _small_text(inside)
    return found


def _small_text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(1 << 16)


def wanted_layout(roots: list[str], root: str = "/") -> dict[str, str]:
    """What the directory must hold, in the form of ``present``.

    :raises GpufleetError: GF-CUDA-LAYOUT when the toolkit is not installed.
    """
    packages = toolkit_packages(installed_packages(root), roots)
    files = sorted({path for package in packages for path in package_files(package, root)})
    return {**links(files, root), VERSION_FILE: version_text(packages)}


def make(path: str, wanted: dict[str, str]) -> None:
    """Build the directory beside ``path`` and switch to it."""
    new = trees.beside(path)
    for place, target in wanted.items():
        inside = os.path.join(new, place)
        os.makedirs(os.path.dirname(inside), mode=0o755, exist_ok=True)
        if place == VERSION_FILE:
            with open(inside, "w", encoding="utf-8") as stream:
                stream.write(target)
            os.chmod(inside, 0o644)
        else:
            os.symlink(target, inside)
    trees.switch_directory(new, path)


def check_link(path: str, ours: list[str]) -> str | None:
    """Where the link ``path`` leads now (None: nothing there), provided that we may set it.

    :param ours: our toolkits, or directories in which they lie; a link that leads elsewhere is somebody else's.
    :raises GpufleetError: GF-CUDA-LINK when it is somebody else's.
    """
    if os.path.islink(path):
        target = os.readlink(path)
        absolute = os.path.normpath(os.path.join(os.path.dirname(path), target))
        if not os.path.exists(path) or any((absolute + "/").startswith(each.rstrip("/") + "/") for each in ours):
            return target
        what = f"a link to {target}"
    elif os.path.lexists(path):
        what = "a directory" if os.path.isdir(path) else "a file"
    else:
        return None
    raise GpufleetError(
        "GF-CUDA-LINK",
        f"{path} is {what} that this collection did not make; it is left alone",
        "another CUDA toolkit is installed there, from a runfile or NVIDIA's packages",
        f"mv {path} {path}.foreign (or remove that toolkit), or set cuda_toolkit_version: none",
    )
