# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drivers come into question for a node, best first. Private to the collection.

The choice among them is made together with torch's (see __init__.py): the driver has to serve the CUDA of the build.
"""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    driver_conflicts,
    driver_options,
    gpus,
    installer,
    kernels,
    parts,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import Driver
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series

# Where a driver that is there already is nothing that the node itself can change.
_OWNERS = {"wsl": "Windows", "container": "the container's host"}


class Choice(NamedTuple):
    """A driver that would do, with what installs it; without an option it stays as it is, without a driver there is none."""

    driver: Driver | None
    option: Option | None
    why: str
    kept: bool = False


def choices(decision: Decision) -> list[Choice]:
    """The drivers that serve all GPUs of the node and the wishes, best first; empty where none does, with the conflict."""
    gpu, wanted = decision.facts["gpu"], decision.wanted
    if not decision.devices:
        return [Choice(None, None, "the node has no NVIDIA GPU" + _of_its_own(decision))]
    there = _installed(gpu)
    if "none" in (wanted["nvidia_driver_version"], wanted["nvidia_driver_source"]):
        return _left_alone(decision, there)
    owner = _owner(decision)
    if owner is not None:
        return _owned(decision, there, owner)
    kept = _kept(decision, there) if there else []
    if kept and not _replaceable(decision):
        return kept
    return kept + _installable(decision, there if not kept else None, quiet=bool(kept))


def _of_its_own(decision: Decision) -> str:
    return " of its own" if decision.facts["gpu"]["devices"] else ""


def _installed(gpu: Row) -> Driver | None:
    driver = gpu["driver"]
    version = driver["installed_version"] or driver["loaded_version"]
    return Driver(version, driver["cuda_version"], driver["source"] == "windows") if version else None


def _left_alone(decision: Decision, there: Driver | None) -> list[Choice]:
    if there is None:
        decision.warn("GF-DRIVER-NONE", "the node has an NVIDIA GPU, but no driver is wanted: PyTorch will use the CPU")
    return [Choice(there, None, "no driver work is wanted (nvidia_driver_version or nvidia_driver_source is none)")]


def _owner(decision: Decision) -> str | None:
    gpu = decision.facts["gpu"]
    if gpu["tegra"] is not None or gpu["driver"]["source"] == "l4t":
        return "NVIDIA's Jetson Linux"
    if any(device["vgpu"] for device in decision.devices):
        return "the vGPU software of the host"
    return _OWNERS.get(gpu["virtualization"])


def _owned(decision: Decision, there: Driver | None, owner: str) -> list[Choice]:
    if there is not None:
        return [Choice(there, None, f"the driver belongs to {owner}")]
    decision.conflict(
        "GF-DRIVER-HOST",
        f"no driver is in sight, and the one of this node belongs to {owner}",
        [f"the GPU facts name {gpus.names(decision.devices)}, and neither an installed nor a loaded driver"],
        [f"install or update the driver of {owner}, then run the playbook again"],
    )
    return []


def _kept(decision: Decision, there: Driver) -> list[Choice]:
    """The installed driver, where it serves the GPUs and is what was asked for."""
    wanted, driver = decision.wanted, decision.facts["gpu"]["driver"]
    wish, flavour, source = (wanted[f"nvidia_driver_{part}"] for part in ("version", "flavour", "source"))
    if wish != "auto" and not in_series(there.version, wish):
        return []
    if flavour != "auto" and driver["flavour"] not in (None, flavour):
        return []
    if source != "auto" and source != driver["source"]:
        return []
    if source == "runfile" and there.version != installer.wanted_version(decision):
        return []
    kind = driver["flavour"] or (None if flavour == "auto" else flavour)
    if not _drives_all(decision, there, kind):
        return []
    option = _option_in_care(decision, there, kind)
    origin = driver["source"] or "source unknown"
    why = f"driver {there.version} is there already ({origin}) and is taken as it is"
    return [Choice(option.driver if option else there, option, why, kept=True)]


def _drives_all(decision: Decision, there: Driver, flavour: str | None) -> bool:
    branch = there.version.split(".")[0]
    if branch not in driver_options.branches(decision):
        return True  # a branch that the catalog does not know: it is taken at its word
    return any(gpus.drives_all(decision, branch, kind) for kind in ([flavour] if flavour else gpus.FLAVOURS))


def _option_in_care(decision: Decision, there: Driver, flavour: str | None) -> Option | None:
    """What keeps an installed driver in the collection's care (packages, settings, receipt); None leaves it as it is.

    That is the distribution's own, one from NVIDIA's repository that we installed (of an image's driver nobody
    knows which packages were chosen), and one of an installer that is named.
    """
    source = decision.facts["gpu"]["driver"]["source"]
    if source == "distro":
        candidates = driver_options.archive(decision)
    elif source == "nvidia" and "nvidia_driver" in decision.facts["node"]["managed"]:
        candidates = driver_options.nvidia(decision)
    elif source == "runfile" and decision.wanted["nvidia_driver_source"] == "runfile":
        candidates = _sources(decision)
    else:
        candidates = []
    exact = decision.wanted["nvidia_driver_version"] if source == "nvidia" else "auto"
    options = [
        found
        for option in candidates
        if option.branch["branch"] == there.version.split(".")[0] and flavour in (None, option.flavour)
        for found in [driver_options.of_version(option, exact)]
        if found
    ]
    return next((option for option in options if _serves(decision, option)), None)


def immovable(decision: Decision) -> Driver | None:
    """The driver that stays whatever torch needs, because it is another's or was not installed from packages."""
    there = _installed(decision.facts["gpu"])
    if there is None or (_replaceable(decision) and _owner(decision) is None):
        return None
    return there if decision.wanted["nvidia_driver_version"] in ("auto", "none") else None


def _replaceable(decision: Decision) -> bool:
    """Whether another driver may take the place of the one that is there, should torch need that."""
    return decision.wanted["nvidia_driver_version"] == "auto" and decision.facts["gpu"]["driver"]["source"] in (
        "distro",
        "nvidia",
    )


def _serves(decision: Decision, option: Option) -> bool:
    return gpus.drives_all(decision, option.branch["branch"], option.flavour)


def _installable(decision: Decision, there: Driver | None, quiet: bool) -> list[Choice]:
    """What can be installed; ``quiet`` where a driver is there that does, so that finding no other is no fault."""
    unasked = all(decision.wanted[f"nvidia_driver_{part}"] == "auto" for part in ("version", "source"))
    if there is not None and unasked and decision.facts["gpu"]["driver"]["source"] not in ("distro", "nvidia"):
        driver_conflicts.foreign(decision, there)
        return []
    before = len(decision.conflicts)
    options = _filtered(decision)
    if quiet:
        del decision.conflicts[before:]
    return [Choice(option.driver, option, _why(decision, option)) for option in _by_default_flavour(decision, options)]


def _sources(decision: Decision) -> list[Option]:
    ways = {"distro": driver_options.archive, "nvidia": driver_options.nvidia, "runfile": driver_options.runfile}
    source = decision.wanted["nvidia_driver_source"]
    names = ("distro", "nvidia") if source == "auto" else (source,)
    found = [option for name in names for option in ways[name](decision)]
    if source != "runfile":
        return found
    named = (installer.of_version(decision, option) for option in found if installer.fits(decision))
    return [option for option in named if option]


def _filtered(decision: Decision) -> list[Option]:
    """The options that pass every test; the first test that none passes is the conflict."""
    if not gpus.driving_all(decision):
        driver_conflicts.no_driver_for_all(decision)
        return []
    options = _sources(decision)
    if not options:
        driver_conflicts.no_source(decision)
        return []
    for test, conflict in _TESTS:
        passed = [found for found in (test(decision, option) for option in options) if found]
        if not passed:
            conflict(decision, options)
            return []
        options = passed
    return options


def _of_version(decision: Decision, option: Option) -> Option | None:
    if option.source == "runfile":
        return option  # it is of the file's version already
    return driver_options.of_version(option, decision.wanted["nvidia_driver_version"])


def _serving(decision: Decision, option: Option) -> Option | None:
    return option if _serves(decision, option) else None


def _of_flavour(decision: Decision, option: Option) -> Option | None:
    return option if decision.wanted["nvidia_driver_flavour"] in ("auto", option.flavour) else None


def _with_fabric(decision: Decision, option: Option) -> Option | None:
    return option if option.row["fabric_manager"] or not gpus.has_fabric(decision) else None


def _with_parts(decision: Decision, option: Option) -> Option | None:
    return None if parts.lacking(decision, option) else option


def _built_as_wished(decision: Decision, option: Option) -> Option | None:
    asked = decision.wanted["nvidia_driver_modules"] == "precompiled"
    return None if asked and kernels.lacks_precompiled(decision, option) else option


_TESTS = (
    (_of_version, driver_conflicts.no_version),
    (_serving, driver_conflicts.unserved),
    (_of_flavour, driver_conflicts.no_flavour),
    (_with_fabric, driver_conflicts.no_fabric),
    (_with_parts, driver_conflicts.no_parts),
    (_built_as_wished, driver_conflicts.no_precompiled),
)


def _by_default_flavour(decision: Decision, options: list[Option]) -> list[Option]:
    """Of one branch the flavour first that is the default there; the order of branches stays."""
    start = decision.catalog["driver"]["open_default_from"]["branch"]

    def unusual(option: Option) -> bool:
        return (option.flavour == "open") != at_least(option.branch["branch"], start)

    places: dict[tuple[str, str], int] = {}
    for option in options:
        places.setdefault((option.source, option.branch["branch"]), len(places))
    return sorted(options, key=lambda option: (places[option.source, option.branch["branch"]], unusual(option)))


def _why(decision: Decision, option: Option) -> str:
    places = {"distro": decision.platform, "nvidia": "NVIDIA's repository", "runfile": "NVIDIA's installer"}
    where = option.row.get("suite", places[option.source])
    return f"driver {option.driver.version} from {where}: it serves {gpus.names(decision.devices)}"
