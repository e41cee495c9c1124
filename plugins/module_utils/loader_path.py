# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the dynamic loader looks for a library, and which file it takes. Private to the collection.

For a program without a search path of its own: LD_LIBRARY_PATH of the login shells, the loader's cache, its default
directories. Where there is no cache (a container that never ran ldconfig) its configuration stands in for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import loader_cache
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

CACHE = "/etc/ld.so.cache"
CONFIGURATION = "/etc/ld.so.conf"
_DEPTH = 5  # of files that include files


def default_dirs(sysroot: Sysroot) -> list[str]:
    """The directories built into the loader; Debian's come with the architecture's name, Red Hat's with 64."""
    multiarch = [
        folder + "/" + os.path.basename(path)
        for path in sysroot.listing("/usr/lib", "*-linux-gnu")
        for folder in ("/lib", "/usr/lib")
    ]
    return [*multiarch, "/lib64", "/usr/lib64", "/lib", "/usr/lib"]


def configured_dirs(sysroot: Sysroot, path: str = CONFIGURATION, depth: int = 0) -> list[str]:
    """The directories that ld.so.conf names, in its order."""
    folders: list[str] = []
    text = sysroot.text(path)
    if text is None and depth == 0:
        text = "include ld.so.conf.d/*.conf"  # what every distribution's says
    for line in (text or "").splitlines():
        words = line.split("#")[0].split()
        if len(words) == 2 and words[0] == "include" and depth < _DEPTH:
            pattern = os.path.join(os.path.dirname(path), words[1])
            for included in sysroot.listing(os.path.dirname(pattern), os.path.basename(pattern)):
                folders += configured_dirs(sysroot, included, depth + 1)
        elif words and words[0].startswith("/"):
            folders.append(words[0].split("=")[0])  # "/lib=libc6", as it was once written
    return folders


class Loader:
    """Answers which file a program gets for the name of a library."""

    def __init__(self, sysroot: Sysroot, ld_library_path: Iterable[str]) -> None:
        self._sysroot = sysroot
        self._wished = list(ld_library_path)
        cache = loader_cache.read(sysroot.place(CACHE))
        self._cached: dict[str, str] = {}
        for name, path in cache or []:
            self._cached.setdefault(name, path)
        defaults = default_dirs(sysroot)
        self._fallback = defaults if cache else [*configured_dirs(sysroot), *defaults]

    def searched(self) -> set[str]:
        """The real paths of all directories in which libraries are found without being named by their path."""
        configured = configured_dirs(self._sysroot)
        return {self._sysroot.real(path) for path in [*self._wished, *configured, *default_dirs(self._sysroot)]}

    def takes(self, name: str) -> str | None:
        """The path of the file that is loaded for ``name``, or None where none is found."""
        for path in (f"{folder}/{name}" for folder in self._wished):
            if self._sysroot.exists(path):
                return path
        cached = self._cached.get(name)
        if cached is not None and self._sysroot.exists(cached):
            return cached
        return next((p for p in (f"{f}/{name}" for f in self._fallback) if self._sysroot.exists(p)), None)
