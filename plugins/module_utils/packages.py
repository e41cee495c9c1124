# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the package manager has installed, read from its own records. Private to the collection."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection
from typing import NamedTuple

DPKG_STATUS = "var/lib/dpkg/status"
DPKG_JOURNAL = "var/lib/dpkg/updates"
RPM_DATABASES = ("var/lib/rpm", "usr/lib/sysimage/rpm")
RECORDED_RPM = ".gpufleet/rpm.json"  # what rpm said on a node that was recorded, {name: version}
UNFINISHED_STATES = ("half-installed", "unpacked", "half-configured")
_OF_RPM = re.compile(r"^ID(?:_LIKE)?=.*\b(?:rhel|fedora|centos|amzn|sles|suse|opensuse)\b", re.MULTILINE)


class DpkgEntry(NamedTuple):
    """One package as dpkg knows it: ``state`` is the last word of its status."""

    name: str
    state: str
    version: str


def _value(stanza: str, mark: str) -> str:
    """What follows the mark up to the end of its line. A continuation line begins with a blank: it is no field."""
    start = stanza.find(mark)
    if start < 0:
        return ""
    end = stanza.find("\n", start + 1)
    return stanza[start + len(mark) : end if end >= 0 else None]


def of_rpm(root: str = "/") -> bool:
    """Whether the distribution is made of rpm's packages; a dpkg that stands there too is nobody's package manager."""
    try:
        with open(os.path.join(root, "etc/os-release"), encoding="utf-8", errors="replace") as stream:
            return _OF_RPM.search(stream.read()) is not None
    except OSError:
        return False


def dpkg_entries(root: str = "/") -> tuple[DpkgEntry, ...]:
    """Every package in ``<root>/var/lib/dpkg/status``; nothing where dpkg is not the distribution's own."""
    if of_rpm(root):
        return ()
    path = os.path.join(root, DPKG_STATUS)
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return _dpkg_entries(path, (status.st_mtime_ns, status.st_size, status.st_ino))


@functools.lru_cache(maxsize=4)
def _dpkg_entries(path: str, _stamp: tuple[int, ...]) -> tuple[DpkgEntry, ...]:
    """The status file taken apart, once for as long as it does not change: it is megabytes, and many ask for it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return ()
    found = []
    for stanza in text.split("\n\n"):
        # dpkg itself begins every stanza with the name.
        name = _value(stanza, "Package: ") if stanza[:10].lstrip().startswith("Package: ") else ""
        if name:
            state = _value(stanza, "\nStatus: ").rsplit(" ", 1)[-1]
            found.append(DpkgEntry(name, state, _value(stanza, "\nVersion: ")))
    return tuple(found)


def present(root: str = "/") -> set[str]:
    """Names of the packages that are there in whatever state: whole, or half unpacked by work that failed."""
    there = {entry.name for entry in dpkg_entries(root) if entry.state not in ("config-files", "not-installed")}
    return there | set(rpm_versions(root))


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


def _rpm(root: str, arguments: list[str]) -> list[str]:
    """What rpm says, by lines; nothing where there is no rpm."""
    import shutil
    import subprocess

    rpm = shutil.which("rpm") or shutil.which("rpm", path="/usr/bin:/bin")
    if rpm is None:
        return []
    result = subprocess.run(  # pylint: disable=ansible-bad-function
        [rpm, "--root", os.path.abspath(root), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANGUAGE": "C", "LC_ALL": "C"},
        check=False,
    )
    return result.stdout.decode("utf-8", "replace").splitlines()


@functools.lru_cache(maxsize=None)
def _rpm_versions(root: str, stamp: tuple[int, ...]) -> dict[str, str]:
    """What rpm says; asked once as long as the database, whose ``stamp`` this is, does not change."""
    if not stamp:
        return {}
    said = _rpm(root, ["-qa", "--qf", "%{INSTALLTIME}\t%{NAME}\t%{EVR}\n"])
    rows = [line.split("\t") for line in said]
    rows = [row for row in rows if len(row) == 3 and row[0].isdigit() and row[1] != "gpg-pubkey"]
    # Several versions of one package (kernels) may stand side by side: the one installed last counts.
    return {name: version for _when, name, version in sorted(rows, key=lambda row: int(row[0]))}


def rpm_files(names: list[str], root: str = "/") -> list[str]:
    """Files, links and directories of rpm's packages; of one that is not installed none."""
    return [line for line in _rpm(root, ["-ql", *names]) if line.startswith("/")]


def _recorded_rpm(root: str) -> dict[str, str] | None:
    try:
        with open(os.path.join(root, RECORDED_RPM), encoding="utf-8") as stream:
            return {str(name): str(version) for name, version in json.load(stream).items()}
    except (OSError, ValueError, AttributeError):
        return None


def rpm_versions(root: str = "/") -> dict[str, str]:
    """What rpm has installed, ``{name: version}``; empty on a node without it."""
    recorded = _recorded_rpm(root) if os.path.abspath(root) != "/" else None
    # A tree without a record may have a database of its own.
    return recorded if recorded is not None else _rpm_versions(root, _rpm_database_stamp(root))


def versions_on_file(root: str = "/") -> dict[str, str]:
    """The installed packages as far as a file tells them: rpm, which takes half a second, is not started."""
    found = {entry.name: entry.version for entry in dpkg_entries(root) if entry.state == "installed"}
    if os.path.abspath(root) != "/":
        found.update(_recorded_rpm(root) or {})
    return found


def installed_versions(names: Collection[str] | None = None, root: str = "/") -> dict[str, str]:
    """Versions of the installed packages, ``{name: version}``.

    A package on hold counts as installed; one that is half unpacked or only left its configuration does not.

    :param names: only these; ``None`` means every package.
    :param root: the tree whose records are read.
    """
    found = {entry.name: entry.version for entry in dpkg_entries(root) if entry.state == "installed"}
    if names is None or any(name not in found for name in names):
        found.update(rpm_versions(root))
    if names is None:
        return found
    wanted = set(names)
    return {name: version for name, version in found.items() if name in wanted}
