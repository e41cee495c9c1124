# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One version for all packages of the driver, found in apt's sources. Private to the collection."""

from __future__ import annotations

import os
import re
import tempfile
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

PREFERENCES = "/etc/apt/preferences.d/gpufleet-driver-version"
# What may be of the driver's version. The pin names a version: a package that has another one is not meant by it.
PATTERNS = ("*nvidia*", "cuda-drivers*", "libcuda*", "libnv*", "libxnvctrl*")
# Over 1000 apt also goes back to it.
PRIORITY = 1001


class Known(NamedTuple):
    """What apt knows of a package: the installed version, the one it would install, and all, newest first."""

    installed: str | None
    candidate: str | None
    versions: list[str]


def policies(run: Run, names: list[str], without: str | None = None) -> dict[str, Known]:
    """``apt-cache policy`` of some packages.

    :param without: a file of preferences that is left out of account.
    """
    with tempfile.TemporaryDirectory(prefix="gpufleet-apt-") as folder:
        options = ["-o", f"Dir::Etc::PreferencesParts={_without(without, folder)}"] if without else []
        code, out, _err = run(["apt-cache", *options, "policy", *names])
    if code != 0:
        return {}
    found = {}
    for block in re.split(r"^(?=\S)", out, flags=re.MULTILINE):
        head = re.match(r"(\S+):\n", block)
        if head:
            fields = dict(re.findall(r"^  (Installed|Candidate): (\S+)$", block, re.MULTILINE))
            versions = re.findall(r"^ (?:\*\*\*|   ) (\S+) -?\d+$", block, re.MULTILINE)
            installed, candidate = (_version(fields.get(name)) for name in ("Installed", "Candidate"))
            found[head[1]] = Known(installed, candidate, versions)
    return found


def _without(path: str, folder: str) -> str:
    """A directory with links to all files of preferences but this one."""
    place = os.path.dirname(path)
    for name in os.listdir(place) if os.path.isdir(place) else []:
        if name != os.path.basename(path):
            os.symlink(os.path.join(place, name), os.path.join(folder, name))
    return folder


def _version(text: str | None) -> str | None:
    return None if text in (None, "(none)") else text


def fits(version: str | None, series: str) -> bool:
    """Whether a package's version is of this version or branch of the driver."""
    own = upstream(version) if version else None
    return own is not None and (own == series or own.startswith(series + "."))


def choose(known: dict[str, Known], lead: str, series: str) -> dict[str, str]:
    """The version of each package: the installed driver's where it fits, else apt's choice, else the newest that all have.

    :raises GpufleetError: GF-DRIVER-VERSION-ABSENT
    """
    first = known.get(lead, Known(None, None, []))
    preferred = [each for each in (first.installed, first.candidate, *first.versions) if each]
    for version in preferred:
        if fits(version, series):
            own = upstream(version)
            chosen = {
                name: next((each for each in row.versions if upstream(each) == own), "") for name, row in known.items()
            }
            if all(chosen.values()):
                return chosen
    have = "; ".join(f"{name} {', '.join(row.versions) or 'in none'}" for name, row in sorted(known.items()))
    raise GpufleetError(
        "GF-DRIVER-VERSION-ABSENT",
        f"driver {series} is not whole in this node's package sources, which have: {have or f'no {lead}'}",
        "the repository or its mirror dropped that version, has it not yet, or lacks one of its packages",
        "set nvidia_driver_version to a version or branch that all of them have",
    )


def text(version: str) -> str:
    """The file that keeps apt on this version of the driver."""
    return (
        "# Written by gpufleet.stack: the driver and what belongs to it are of one version. Do not edit.\n\n"
        f"Package: {' '.join(PATTERNS)}\nPin: version {version}-*\nPin-Priority: {PRIORITY}\n"
    )


def named(packages: list[str], versions: dict[str, str]) -> list[str]:
    """The packages with the versions that are known; one that has a version already keeps it."""
    return [f"{name}={versions[name]}" if name in versions else name for name in packages]


def given(packages: list[str], lead: str) -> str | None:
    """The driver's version where the packages come with theirs already, as they do on the way back."""
    versions = dict(name.split("=", 1) for name in packages if "=" in name)
    return upstream(versions[lead]) if lead in versions else None
