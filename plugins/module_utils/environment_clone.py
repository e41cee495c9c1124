# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new environment out of links to one of the same lock that stands on the node already. Private to the collection.

What was compared with its wheels and imported once need not be unpacked, compared, compiled and imported again: the
files are the same ones. Only what holds the path of its environment is written anew.
"""

from __future__ import annotations

import base64
import csv
import errno
import glob
import hashlib
import os
import stat
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import site_packages
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import COMPLETE, DOOMED, Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json, tree_state

# Where these are the same, so is what was proved.
PROVED = ("lock_sha256", "interpreter", "torch_version", "cuda", "companions")


def source(wanted: Wanted) -> str | None:
    """An environment of the same lock and interpreter whose packages are as they were proved; None where there is none."""
    for complete in sorted(glob.glob(os.path.join(glob.escape(wanted.prefix), "envs", "*", "*", COMPLETE))):
        path = os.path.dirname(complete)
        known = read_json(complete) or {}
        same = all(known.get(name) == getattr(wanted, name) for name in PROVED)
        if same and path != wanted.path and not os.path.islink(path) and not os.path.basename(path).startswith(DOOMED):
            site = site_packages(path)
            if site is not None and known.get("site") and tree_state(site) == known["site"]:
                return path
    return None


def link(path: str, wanted: Wanted) -> bool:
    """Fill the environment with links to the files of ``path``; its skeleton is there.

    :returns: whether all of it is there. On two file systems it is not, nor where a file has too many links, nor where
        the other environment was changed meanwhile.
    """
    for folder in ("lib", "bin", "share", "etc", "include"):
        try:
            _link_tree(path, wanted.path, folder)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOENT):
                raise
            return False
    site = site_packages(wanted.path)
    known = read_json(os.path.join(path, COMPLETE)) or {}
    if site is None or tree_state(site) != known.get("site"):
        return False
    _correct_records(site, _rewrite_scripts(path, wanted.path))
    return True


def _link_tree(old: str, new: str, relative: str) -> None:
    """Link every file below a folder; programs that the new environment has already are its own."""
    source_folder, folder = os.path.join(old, relative), os.path.join(new, relative)
    if not os.path.isdir(source_folder) or os.path.islink(source_folder):
        return
    os.makedirs(folder, mode=0o755, exist_ok=True)
    own = relative.partition(os.sep)[0] == "bin"
    there = set(os.listdir(folder))
    with os.scandir(source_folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _link_tree(old, new, os.path.join(relative, entry.name))
            elif not (own and entry.name in there):
                place = os.path.join(folder, entry.name)
                if entry.name in there:
                    os.unlink(place)
                os.link(entry.path, place, follow_symlinks=False)


def _rewrite_scripts(old: str, new: str) -> list[str]:
    """Programs begin with the path of their environment's Python: each gets a file of its own."""
    rewritten = []
    for entry in os.scandir(os.path.join(new, "bin")):
        if entry.is_symlink() or not entry.is_file():
            continue
        with open(entry.path, "rb") as handle:
            content = handle.read()
        if os.fsencode(old) + b"/" not in content:
            continue
        mode = stat.S_IMODE(os.stat(entry.path).st_mode)
        os.unlink(entry.path)
        with open(entry.path, "wb") as handle:
            handle.write(content.replace(os.fsencode(old) + b"/", os.fsencode(new) + b"/"))
        os.chmod(entry.path, mode)
        rewritten.append(entry.path)
    return rewritten


def _correct_records(site: str, scripts: list[str]) -> None:
    """The RECORDs state the programs' digests."""
    rows_by_path = {os.path.relpath(path, site): path for path in scripts}
    for record in glob.glob(os.path.join(glob.escape(site), "*.dist-info", "RECORD")) if scripts else ():
        with open(record, encoding="utf-8", newline="") as handle:
            rows = list(csv.reader(handle))
        corrected = [_stated(row, rows_by_path) for row in rows]
        if corrected == rows:
            continue
        os.unlink(record)
        with open(record, "w", encoding="utf-8", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows(corrected)


def _stated(row: list[str], scripts: dict[str, str]) -> list[Any]:
    path = scripts.get(os.path.normpath(row[0])) if row else None
    if path is None:
        return row
    with open(path, "rb") as handle:
        content = handle.read()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return [row[0], f"sha256={digest}", str(len(content))]
