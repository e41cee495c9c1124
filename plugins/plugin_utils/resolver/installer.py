# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's installers (runfiles) that a user named: what their names say, and how they are called. Private to the collection.

Nobody knows the SHA-256 of a file that the user did not name, so there is none by default.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, looks_like_version

_DRIVER = re.compile(r"^NVIDIA-Linux-(x86_64|aarch64)-(\d{3}\.\d+(?:\.\d+)*)(?:-[a-z][\w-]*)?\.run$")
_TOOLKIT = re.compile(r"^cuda_(\d+\.\d+\.\d+)(?:_\d[\d.]*)?_linux(_sbsa)?\.run$")
SHA256 = re.compile(r"^[0-9a-f]{64}$")


class Named(NamedTuple):
    """What a file's name says; None where it is not one of NVIDIA's names."""

    version: str | None
    architecture: str | None


def basename(place: str) -> str:
    """The file's name in a path or an address."""
    return place.partition("?")[0].rstrip("/").rpartition("/")[2]


def driver(place: str) -> Named:
    """What the name of the driver's installer says."""
    match = _DRIVER.match(basename(place))
    return Named(match[2], match[1]) if match else Named(None, None)


def toolkit(place: str) -> Named:
    """What the name of a toolkit's installer says."""
    match = _TOOLKIT.match(basename(place))
    return Named(match[1], "aarch64" if match[2] else "x86_64") if match else Named(None, None)


def wanted_version(decision: Decision) -> str | None:
    """The driver that the named file brings: as its name says, else as the user does."""
    wish = str(decision.wanted["nvidia_driver_version"])
    named = driver(decision.wanted["nvidia_driver_runfile"]).version
    return named or (wish if looks_like_version(wish) and "." in wish else None)


def fits(decision: Decision) -> bool:
    """Whether the file's name speaks of this node's architecture, or of none."""
    return driver(decision.wanted["nvidia_driver_runfile"]).architecture in (None, decision.architecture)


def of_version(decision: Decision, option: Option) -> Option | None:
    """The option as the driver that the named file brings, None for other branches and where another one is wanted."""
    wish, have = decision.wanted["nvidia_driver_version"], wanted_version(decision)
    if have is None or have.split(".", maxsplit=1)[0] != option.branch["branch"]:
        return None
    if wish != "auto" and not in_series(have, wish):
        return None
    return option._replace(driver=option.driver._replace(version=have))


def stage(decision: Decision, option: Option) -> Row | None:
    """The part of the driver's stage that says which installer runs with which options."""
    if option.source != "runfile":
        return None
    rows = [
        row
        for row in decision.catalog["driver"]["installer_options"]
        if row["flavour"] in ("any", option.flavour) and _has(option, row)
    ]
    return {
        "url": decision.wanted["nvidia_driver_runfile"],
        "sha256": decision.wanted["nvidia_driver_runfile_sha256"],
        "version": option.driver.version,
        "architecture": decision.architecture,
        "options": [row["option"] for row in rows if row["required"]],
        # These are given where the installer's own help names them.
        "optional": [row["option"] for row in rows if not row["required"]],
    }


def _has(option: Option, row: Row) -> bool:
    branch, first, last = option.branch["branch"], row["first_branch"], row["last_branch"]
    return (first is None or at_least(branch, first)) and (last is None or at_least(last, branch))


def toolkits(decision: Decision) -> list[tuple[str, Row]]:
    """Version and installer of each named toolkit that is made for this node."""
    found = []
    for wish in decision.wanted["cuda_toolkit_runfiles"]:
        named = toolkit(wish["file"])
        if named.version is not None and named.architecture == decision.architecture:
            found.append((named.version, {"url": wish["file"], "sha256": wish["sha256"], "version": named.version}))
    return found
