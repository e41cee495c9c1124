# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pythons of a node and their versions, told without starting one where that can be. Private to the collection."""

from __future__ import annotations

import os
import re

from ansible_collections.gpufleet.stack.plugins.module_utils import elf, packages
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_NAME = re.compile(r"^python(3\.\d+)$")
_RPM_NAMES = ("python{0}", "python{0}-libs", "python{1}", "python{1}-base", "python3", "python3-libs")


def _interpreters(node: Sysroot) -> list[tuple[str, str]]:
    """Paths of Pythons with who provided them."""
    places = [("/usr/bin", "distribution"), ("/usr/local/bin", "installed")]
    places += [(path + "/bin", "installed") for path in node.listing("/opt")]
    return [(path, provider) for folder, provider in places for path in node.listing(folder, "python3.*")]


def _packaged(installed: dict[str, str], series: str) -> str | None:
    """The full version by the package of the distribution: python3.11-minimal, python3.11, python311 or python3."""
    names = [f"python{series}-minimal", *(name.format(series, series.replace(".", "")) for name in _RPM_NAMES)]
    for name in names:
        match = re.match(rf"(?:\d+:)?({re.escape(series)}\.\d+)", installed.get(name, ""))
        if match:
            return match.group(1)
    return None


def _in_header(node: Sysroot, path: str, series: str) -> str | None:
    """The full version by the C headers that an installation from source, conda or uv brings along."""
    for base in (os.path.dirname(os.path.dirname(place)) for place in (node.real(path), path)):
        text = node.text(f"{base}/include/python{series}/patchlevel.h")
        match = re.search(r'^#define PY_VERSION\s+"(3\.\d+\.\d+)', text or "", re.MULTILINE)
        if match:
            return match.group(1)
    return None


def _in_binary(node: Sysroot, path: str, series: str) -> str | None:
    """The full version by a constant in the interpreter, or in the library that it is a mere shell of."""
    base = os.path.dirname(os.path.dirname(node.real(path)))
    for place in (f"{base}/lib64/libpython{series}.so.1.0", f"{base}/lib/libpython{series}.so.1.0", path):
        try:
            constants = elf.section(node.place(place), ".rodata")
        except OSError:
            continue
        match = re.search(rb"\0(" + re.escape(series).encode() + rb"\.\d+)\+?\0", constants or b"")
        if match:
            return match.group(1).decode()
    return None


def _asked(path: str) -> str | None:
    """The full version that an interpreter prints: the last resort, at some 10 ms each."""
    import subprocess

    try:
        result = subprocess.run(  # pylint: disable=ansible-bad-function
            [path, "-V"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(rb"Python (3\.\d+\.\d+)", result.stdout)
    return match.group(1).decode() if match and result.returncode == 0 else None


def find(node: Sysroot, live: bool) -> list[dict[str, str]]:
    """Every CPython 3 to be found; one whose version can't be told is left out.

    :param live: the node is this machine, so that an interpreter may be asked.
    """
    candidates = _interpreters(node)
    installed = packages.versions_on_file(node.root) if candidates else {}
    found = []
    for path, provider in candidates:
        match = _NAME.match(os.path.basename(path))
        if not match or not node.exists(path) or (live and not os.access(path, os.X_OK)):
            continue
        series = match.group(1)
        full = _packaged(installed, series) if provider == "distribution" else None
        full = full or _in_header(node, path, series) or _in_binary(node, path, series)
        full = full or (_asked(node.below(path)) if live else None)
        if full is not None and full.startswith(series + "."):
            found.append({"version": series, "full_version": full, "path": path, "provider": provider})
    return found
