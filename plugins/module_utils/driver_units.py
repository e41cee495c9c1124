# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver's services: quiet on a node without a GPU, enabled, started where there is one. Private to the collection.

Whether a node has a GPU shows in what the loaded driver offers. At boot the driver may not be loaded yet when a service's turn
comes: the service therefore waits for systemd's own attempt to load it, which never fails. Where systemd lacks that unit
(before version 245) a service may be skipped at a boot on which the driver is late.
"""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions
from ansible_collections.gpufleet.stack.plugins.module_utils.vendor_repository import content, write

SYSTEM = "/etc/systemd/system"
PLACES = (
    SYSTEM,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
DROPIN = "50-gpufleet.conf"
LOADER = "modprobe@nvidia.service"
RUNNING = "run/systemd/system"


class Unit(NamedTuple):
    """One unit: what has to be there for it to start, and whether a release may lack it."""

    name: str
    paths: list[str]
    optional: bool


def dropin_path(unit: str) -> str:
    """Our addition to a unit."""
    return f"{SYSTEM}/{unit}.d/{DROPIN}"


def dropin_text(unit: Unit) -> str:
    """The addition that has a unit skipped, instead of failing, where something of it is missing."""
    conditions = "".join(
        f"ConditionPathExists{'Glob' if set(path) & set('*?[') else ''}={path}\n" for path in unit.paths
    )
    return (
        "# Written by gpufleet.stack: skipped, not failed, on a node that has no use for it. Do not edit.\n"
        f"[Unit]\nWants={LOADER}\nAfter={LOADER}\n{conditions}"
    )


def quiet(units: list[Unit], root: str = "/", dry: bool = False) -> list[str]:
    """Write the additions; the paths of those that changed."""
    changed = []
    for unit in units:
        path, wanted = dropin_path(unit.name), dropin_text(unit).encode()
        if content(root, path) != wanted:
            changed.append(path)
            if not dry:
                write(root, path, wanted)
    return changed


def reload(run: Run, root: str = "/") -> None:
    """Have systemd read the units anew, where it runs."""
    if os.path.isdir(os.path.join(root, RUNNING)):
        run(["systemctl", "daemon-reload"])


def is_there(unit: str, root: str = "/") -> bool:
    """Whether any directory of systemd's has the unit."""
    return any(os.path.lexists(os.path.join(root, f"{place}/{unit}".lstrip("/"))) for place in PLACES)


def links(units: list[Unit], root: str = "/") -> list[str]:
    """The links that make the units start at boot, for a receipt."""
    found = []
    for unit in units:
        pattern = f"{SYSTEM}/*.wants/{glob.escape(unit.name)}".lstrip("/")
        found += [f"/{os.path.relpath(path, root)}" for path in glob.glob(os.path.join(glob.escape(root), pattern))]
    return sorted(path for path in found if os.path.islink(os.path.join(root, path.lstrip("/"))))


def enable(units: list[Unit], run: Run, root: str = "/", dry: bool = False) -> dict[str, str]:
    """Have each unit start at boot; what was done: ``enabled``, ``kept``, or ``absent`` where a release lacks it.

    :raises GpufleetError: GF-DRIVER-UNIT
    """
    done = {}
    for unit in units:
        if not is_there(unit.name, root):
            if not unit.optional and not dry:
                raise _failed(unit.name, "is not there, although its package was installed")
            done[unit.name] = "absent"
            continue
        state = run(["systemctl", "is-enabled", unit.name])[1].strip()
        if state.startswith("masked"):
            raise _failed(unit.name, "is masked: somebody does not want it to run")
        done[unit.name] = "enabled" if state == "disabled" else "kept"
        if state == "disabled" and not dry:
            code, out, err = run(["systemctl", "enable", unit.name])
            if code != 0:
                raise _failed(unit.name, f"cannot be enabled: {(err or out).strip()}")
    return done


def start(units: list[Unit], run: Run, root: str = "/", dry: bool = False) -> dict[str, str]:
    """Start each unit that is there; what it is then: ``started``, ``running``, ``skipped`` or ``absent``.

    :raises GpufleetError: GF-DRIVER-UNIT
    """
    done = {}
    for unit in units:
        if not is_there(unit.name, root):
            done[unit.name] = "absent"
            continue
        before = run(["systemctl", "is-active", unit.name])[1].strip()
        if before == "active" or dry:
            done[unit.name] = "running" if before == "active" else "started"
            continue
        code, out, err = run(["systemctl", "start", unit.name])
        if code != 0:
            log = run(["journalctl", "-b", "-q", "-n", "15", "-o", "cat", "-u", unit.name])[1].strip()
            raise _failed(unit.name, f"does not start: {(err or out).strip()}\n{log}")
        after = run(["systemctl", "is-active", unit.name])[1].strip()
        # A unit of the kind that does its work and ends, or one whose condition was not met.
        done[unit.name] = "started" if after == "active" else "skipped"
    return done


def check_versions(tied: list[str], version: str, root: str = "/") -> dict[str, str]:
    """The versions of the packages that have to be the driver's.

    :raises GpufleetError: GF-DRIVER-PART-VERSION
    """
    found = installed_versions(tied, root) if tied else {}
    wrong = {name: found.get(name) for name in tied if upstream(found.get(name) or "") != version}
    if wrong:
        have = ", ".join(f"{name} is {there or 'not installed'}" for name, there in sorted(wrong.items()))
        raise GpufleetError(
            "GF-DRIVER-PART-VERSION",
            f"the driver is {version}, and what has to be of exactly its version is not: {have}",
            "the package sources have no such version of it, or somebody installed another one or holds it",
            f"install them in version {version}, or set nvidia_driver_version to one that the sources have all of",
        )
    return found


def _failed(unit: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-DRIVER-UNIT",
        f"the service {unit} {what}",
        "its package is damaged or of another version than the driver, its configuration is wrong, or it was masked",
        f"systemctl status {unit}; systemctl unmask {unit} where it was masked; then run the playbook again",
    )
