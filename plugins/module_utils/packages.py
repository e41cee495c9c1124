# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the package manager has installed, read from its own records. Private to the collection."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from typing import NamedTuple

DPKG_STATUS = "var/lib/dpkg/status"
DPKG_JOURNAL = "var/lib/dpkg/updates"
RPM_DATABASES = ("var/lib/rpm", "usr/lib/sysimage/rpm")
UNFINISHED_STATES = ("half-installed", "unpacked", "half-configured")


class DpkgEntry(NamedTuple):
    """One package as dpkg knows it: ``state`` is the last word of its status."""

    name: str
    state: str
    version: str
    maintainer: str


def _field(stanza: str, name: str) -> str:
    # Continuation lines begin with a blank, so a field's name is found only where a line begins.
    start = stanza.find("\n" + name + ": ")
    if start < 0:
        return ""
    start += len(name) + 3
    end = stanza.find("\n", start)
    return stanza[start : end if end >= 0 else None].strip()


def dpkg_entries(root: str = "/") -> Iterator[DpkgEntry]:
    """Every package in ``<root>/var/lib/dpkg/status``; nothing where there is no dpkg."""
    try:
        with open(os.path.join(root, DPKG_STATUS), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return
    for block in text.split("\n\n"):
        stanza = "\n" + block
        name = _field(stanza, "Package")
        if name:
            status = _field(stanza, "Status").rsplit(" ", 1)[-1]
            yield DpkgEntry(name, status, _field(stanza, "Version"), _field(stanza, "Maintainer"))


def dpkg_interrupted(root: str = "/") -> bool:
    """Whether dpkg was cut off: a journal it did not merge, or a package it did not finish."""
    try:
        if any(name.isdigit() for name in os.listdir(os.path.join(root, DPKG_JOURNAL))):
            return True
    except OSError:
        pass  # no dpkg here: its status file, looked at next, is missing too
    return any(entry.state in UNFINISHED_STATES for entry in dpkg_entries(root))


def _rpm_database_stamp(root: str) -> tuple[int, ...]:
    """Times of change of rpm's database; empty where there is none."""
    stamps = []
    for folder in RPM_DATABASES:
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                stamps += [entry.stat().st_mtime_ns for entry in entries if re.match(r"rpmdb|Packages", entry.name)]
        except OSError:
            continue  # each family keeps it in one of these places
    return tuple(sorted(stamps))


@functools.lru_cache(maxsize=None)
def _rpm_versions(root: str, stamp: tuple[int, ...]) -> dict[str, str]:
    """What rpm says; asked once as long as the database, whose ``stamp`` this is, does not change."""
    rpm = shutil.which("rpm") or shutil.which("rpm", path="/usr/bin:/bin")
    if rpm is None or not stamp:
        return {}
    command = [rpm, "--root", os.path.abspath(root), "-qa", "--qf", "%{INSTALLTIME}\t%{NAME}\t%{EVR}\n"]
    result = subprocess.run(  # pylint: disable=ansible-bad-function
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANGUAGE": "C", "LC_ALL": "C"},
        check=False,
    )
    rows = [line.split("\t") for line in result.stdout.decode("utf-8", "replace").splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[0].isdigit() and row[1] != "gpg-pubkey"]
    # Several versions of one package (kernels) may stand side by side: the one installed last counts.
    return {name: version for _when, name, version in sorted(rows, key=lambda row: int(row[0]))}


def installed_versions(names: Collection[str] | None = None, root: str = "/") -> dict[str, str]:
    """Versions of the installed packages, ``{name: version}``.

    A package on hold counts as installed; one that is half unpacked or only left its configuration does not.

    :param names: only these; ``None`` means every package.
    :param root: the tree whose records are read.
    """
    found = {entry.name: entry.version for entry in dpkg_entries(root) if entry.state == "installed"}
    if names is None or any(name not in found for name in names):
        found.update(_rpm_versions(root, _rpm_database_stamp(root)))
    if names is None:
        return found
    wanted = set(names)
    return {name: version for name, version in found.items() if name in wanted}
