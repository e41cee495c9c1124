# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a new directory or link in the place of an old one in one step. Private to the collection."""

from __future__ import annotations

import ctypes
import os
import shutil

AT_FDCWD = -100
RENAME_EXCHANGE = 2
NEW_SUFFIX = ".gpufleet-new"


def beside(path: str) -> str:
    """An empty directory beside ``path`` to build its successor in; what an interrupted run left there is removed."""
    new = path.rstrip("/") + NEW_SUFFIX
    remove(new)
    os.makedirs(new, mode=0o755)
    return new


def remove(path: str) -> None:
    """Remove a file, link or tree; nothing there is fine."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _exchange(one: str, other: str) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False  # glibc older than 2.28
    arguments = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return bool(renameat2(*arguments) == 0)


def switch_directory(new: str, path: str) -> None:
    """Let ``new`` take the place of the directory ``path``; at every moment one of the two is there, whole.

    Where the file system cannot exchange two names (NFS), there is a moment without the name.
    """
    if os.path.lexists(path):
        if not _exchange(new, path):
            former = path.rstrip("/") + ".gpufleet-old"
            remove(former)
            os.rename(path, former)
            os.rename(new, path)
            new = former
        remove(new)
    else:
        os.rename(new, path)


def switch_link(path: str, target: str) -> None:
    """Make ``path`` a link to ``target`` by one rename."""
    new = path + NEW_SUFFIX
    remove(new)
    os.symlink(target, new)
    os.replace(new, path)
