# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's cache forgets the wheels of environments that were pruned. Private to the collection.

As long as an environment is there its files are links to those of the cache, which then costs nothing; once it went the cache
alone keeps them: gigabytes with each upgrade. What any other environment's lock names stays.
"""

from __future__ import annotations

import glob
import os
import shutil
from typing import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils import wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import locked_packages
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import LOCK_FILE, Wanted


def locks(paths: Iterable[str]) -> list[str]:
    """The locks of these environments; one that cannot be read has none."""
    texts = []
    for path in paths:
        try:
            with open(os.path.join(path, LOCK_FILE), encoding="utf-8") as handle:
                texts.append(handle.read())
        except (OSError, ValueError):
            continue
    return texts


def forget(wanted: Wanted, gone: list[str]) -> None:
    """Drop what these locks name and no environment's lock does.

    Only of a cache below the prefix: another one may be other nodes' or other programs' too.
    """
    if not os.path.realpath(wanted.cache_dir).startswith(os.path.realpath(wanted.prefix) + os.sep):
        return
    there = [*locks(glob.glob(os.path.join(glob.escape(wanted.prefix), "envs", "*", "*"))), wanted.lock_text]
    wheels = {each for text in gone for each in locked_packages(text).items()}
    wheels -= {each for text in there for each in locked_packages(text).items()}
    # Not by "uv cache prune": that takes everything in the directory that it does not know.
    with uv_tool.alone_with_cache(wanted.cache_dir) as alone:
        for path in _entries(wanted.cache_dir, wheels) if alone and wheels else ():
            unpacked = os.path.realpath(path)
            if os.path.islink(path) and unpacked.startswith(os.path.realpath(wanted.cache_dir) + os.sep):
                _remove(unpacked)
            _remove(path)
    files = {each["sha256"] for text in gone for each in wheelhouse.locked_files(text)}
    files -= {each["sha256"] for text in there for each in wheelhouse.locked_files(text)}
    for sha256 in files:
        _remove(os.path.join(wanted.cache_dir, "wheelhouse", sha256))


def _entries(cache_dir: str, wheels: set[tuple[str, str]]) -> list[str]:
    """What uv's cache has of wheels: ``wheels-v8/<index>/<name>/<version>-<tags>``, links to what was unpacked, and notes beside."""
    found: list[str] = []
    for top in glob.glob(os.path.join(glob.escape(cache_dir), "wheels-v*")):
        # Links are not followed.
        for folder, folders, names in os.walk(top):
            name = os.path.basename(folder)
            found += [
                os.path.join(folder, each) for each in [*folders, *names] if (name, each.partition("-")[0]) in wheels
            ]
    return sorted(found)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
