# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that have to come from one suite of the distribution's own archive. Private to the collection.

A pin says so to apt, for all packages of the named source packages; where the node's sources do not serve the suite, it is
added from the archives that serve ``main`` of the node's release. Everything else stays where it comes from.
"""

from __future__ import annotations

import os
import re
from typing import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import apt_components
from ansible_collections.gpufleet.stack.plugins.module_utils.apt_components import Source
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SOURCES_FILE = "etc/apt/sources.list.d/gpufleet-suite-{}.sources"
PIN_FILE = "etc/apt/preferences.d/gpufleet-suite-{}"
# Above 1000 apt goes back to an older version as well: a suite is named because another one must not be used.
PRIORITY = 1001
_WORD = re.compile(r"[a-z0-9][a-z0-9+._-]*")


def pin_text(suites: Iterable[str], packages: Iterable[str]) -> str:
    """The file for /etc/apt/preferences.d."""
    names = " ".join(f"src:{name}" for name in packages)
    pins = [f"Package: {names}\nPin: release n={suite}\nPin-Priority: {PRIORITY}\n" for suite in suites]
    return "\n".join(["# Written by gpufleet.stack. Do not edit.\n", *pins])


def plan_files(root: str, name: str, suite: str, packages: list[str], components: list[str]) -> dict[str, str]:
    """The texts that our files must have (empty: no such file).

    :param name: for whom the suite is: each has files of its own.
    :raises GpufleetError: GF-APT-SUITE, GF-APT-SOURCES
    """
    wrong = [word for word in (name, suite, *packages) if not _WORD.fullmatch(word.replace("_", "-"))]
    if wrong:
        raise GpufleetError(
            "GF-APT-SUITE",
            f"{wrong[0]!r} is no name of a suite or of a source package",
            "a row of gpufleet_catalog_overlay names it",
            "correct that row: suites and source packages are written in small letters, as in /etc/apt/sources.list",
        )
    ours = SOURCES_FILE.format(name)
    return {
        ours: apt_components.render(_missing(root, ours, suite, components)),
        PIN_FILE.format(name): pin_text([suite], packages),
    }


def _missing(root: str, ours: str, suite: str, components: list[str]) -> list[Source]:
    """The suite in each archive that serves ``main`` of the release, unless the node's other sources have it."""
    codename = apt_components.codename_of(root)
    sources = apt_components.read_sources(root, without=ours)
    if suite == codename or any(source.suite == suite for source in sources):
        return []
    names = {codename, *(alias for alias, means in apt_components.aliases(codename, root).items() if means == codename)}
    base = [source for source in sources if source.suite in names and "main" in source.components]
    if not base:
        raise apt_components.no_source(codename)
    found: dict[str, Source] = {}
    for source in base:
        found.setdefault(source.uri.rstrip("/"), source._replace(suite=suite, components=tuple(sorted(components))))
    return list(found.values())


def plan_return(root: str, name: str) -> dict[str, str]:
    """The texts of our files with which apt goes back from a suite to the release's own; none where there was no suite.

    Without a pin apt would keep the suite's version for being the newer one, and find no way to install others beside it.
    """
    files = no_files(name)
    packages = re.search(r"^Package: (.*)$", there(root, PIN_FILE.format(name)), re.MULTILINE)
    if packages:
        codename = apt_components.codename_of(root)
        suites = [codename + suffix for suffix in ("", "-updates", "-security")]
        files[PIN_FILE.format(name)] = pin_text(suites, [word[len("src:") :] for word in packages[1].split()])
    return files


def no_files(name: str) -> dict[str, str]:
    """Neither of the files."""
    return {SOURCES_FILE.format(name): "", PIN_FILE.format(name): ""}


def there(root: str, path: str) -> str:
    """Text of a file, empty where there is none."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
