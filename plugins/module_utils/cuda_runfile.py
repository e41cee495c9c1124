# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CUDA toolkit put into a directory of its own by NVIDIA's installer, and never the driver. Private to the collection."""

from __future__ import annotations

import hashlib
import os

from ansible_collections.gpufleet.stack.plugins.module_utils import receipts, trees
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Says that the directory is whole, and of which installer.
MARK = ".gpufleet-runfile"
OLD_SUFFIX = ".gpufleet-old"
LOG = "var/log/cuda-installer.log"
LOG_LINES = 15
OPTIONS = ("--silent", "--toolkit", "--override", "--no-man-page")
# Where installers write besides: the default link, which is ours to set, and what would bring the toolkit before torch's libraries.
OUTSIDE = (
    "etc/ld.so.conf.d",
    "usr/lib/pkgconfig",
    "usr/lib64/pkgconfig",
    "usr/local",
    "usr/share/pkgconfig",
)


def is_installed(path: str, sha256: str) -> bool:
    """Whether the directory holds the toolkit of this installer, every file of it with its size."""
    return receipts.read_json(os.path.join(path, MARK)) == {"sha256": sha256, "content": _content(path)}


def _content(path: str) -> str:
    digest = hashlib.sha256()
    for folder, directories, names in os.walk(path):
        directories.sort()
        for name in sorted(names):
            inside = os.path.join(folder, name)
            if name != MARK:
                place, size = os.path.relpath(inside, path), os.lstat(inside).st_size
                digest.update(f"{place}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def install(run: Run, installer: str, path: str, sha256: str, root: str = "/") -> None:
    """Run the installer; where it fails, what was in the directory before is there again.

    It gets its final place at once, since it writes that into its files.

    :raises GpufleetError: GF-CUDA-RUNFILE
    """
    former, unpacked = path + OLD_SUFFIX, path + ".unpacked"
    if os.path.isdir(path) and not os.path.exists(former):
        os.rename(path, former)
    trees.remove(path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.makedirs(unpacked, mode=0o700, exist_ok=True)
    before = _outside(root)
    try:
        code, out, err = run(["sh", installer, *OPTIONS, f"--toolkitpath={path}", f"--tmpdir={unpacked}"])
    finally:
        trees.remove(unpacked)
        _tidy(before, path, root)
    if code != 0 or not os.path.exists(os.path.join(path, "bin/nvcc")):
        trees.remove(path)
        if os.path.isdir(former):
            os.rename(former, path)
        said = _last_lines(root) or (err or out).strip() or "it left no nvcc"
        raise GpufleetError(
            "GF-CUDA-RUNFILE",
            f"NVIDIA's installer of the toolkit ended with status {code}:\n{said}",
            "the disk is full, or the installer does not run on this distribution",
            f"read /{LOG} on the node; another source: cuda_toolkit_source",
        )
    receipts.write_json(os.path.join(path, MARK), {"sha256": sha256, "content": _content(path)})
    trees.remove(former)


def _last_lines(root: str) -> str:
    try:
        with open(os.path.join(root, LOG), encoding="utf-8", errors="replace") as stream:
            return "\n".join([line.rstrip() for line in stream if line.strip()][-LOG_LINES:])
    except OSError:
        return ""


def _outside(root: str) -> set[str]:
    found: set[str] = set()
    for folder in OUTSIDE:
        try:
            found.update(os.path.join(folder, name) for name in os.listdir(os.path.join(root, folder)))
        except OSError:
            continue  # not every distribution has them all
    return found


def _tidy(before: set[str], path: str, root: str) -> None:
    """Take away what the installer wrote outside of its directory."""
    for name in _outside(root) - before:
        inside = os.path.join(root, name)
        target = receipts.link_target(inside)
        if (target is not None and target.startswith(path)) or (target is None and _speaks_of(inside, path)):
            os.unlink(inside)


def _speaks_of(file: str, path: str) -> bool:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return path in stream.read(1 << 16)
    except OSError:
        return False  # a directory: not one of these
