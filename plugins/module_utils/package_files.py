# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files belong to packages. Private to the collection."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import of_rpm

LISTS = "var/lib/dpkg/info/*.list"
# Of these the root has links into /usr, and packages name either place.
_MERGED = ("/bin/", "/sbin/", "/lib/", "/lib64/", "/lib32/")


def names_of(path: str) -> set[str]:
    """The path as packages may write it, with /usr before it or without."""
    if path.startswith("/usr") and path[4:].startswith(_MERGED):
        return {path, path[4:]}
    return {path, "/usr" + path} if path.startswith(_MERGED) else {path}


def owned(run: Run, paths: Iterable[str], root: str = "/") -> set[str]:
    """Those of the paths that belong to a package."""
    asked = {name: path for path in paths for name in names_of(path)}
    lists = glob.glob(os.path.join(root, LISTS))
    if not asked:
        return set()
    if of_rpm(root) or not lists:
        return {path for path in set(asked.values()) if run(["rpm", "-qf", path])[0] == 0}
    found: set[str] = set()
    for name in lists:
        with open(name, encoding="utf-8", errors="replace") as stream:
            found.update(asked[line] for line in stream.read().splitlines() if line in asked)
    return found
