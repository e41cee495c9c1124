# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage ``nvidia_driver``, once the driver is chosen. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    driver,
    driver_options,
    former,
    gpus,
    headers,
    installer,
    kernels,
    node,
    parts,
    repository,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series

EMPTY: Row = {
    "version": None, "source": None, "flavour": None, "components": [], "packages": [], "obsolete": [], "blacklist": [],
    "kernel_release": None, "sysroot": "/", "repository": None, "pin": None, "module_stream": None, "versionlock": None,
    "download_mib": None, "disk_mib": None, "reboot": False, "hold": [], "hold_kernel": False,
    "headers": [], "parts": [], "match": None, "modules": None, "suite": None, "installer": None, "replaces": None,
}  # fmt: skip


def plan(decision: Decision, choice: driver.Choice | None) -> Row:
    """What the driver role has to do."""
    if choice is None:
        return nothing("no driver serves this node", **EMPTY)
    if choice.option is None:
        pending = bool(decision.devices and choice.driver and decision.facts["gpu"]["reboot_needed"])
        return nothing(choice.why, **{**EMPTY, "reboot": pending})
    option = choice.option
    way, reason = kernels.modules(decision, option)
    own = _own(decision, option, way)
    # An installer brings no service of the system.
    others = parts.plan(decision, option) if option.source != "runfile" else []
    tied = [name for part in others for name in part["tied"]]
    decision.uses(f"the packages of driver {option.driver.version}", option.row)
    if way == "dkms":  # Ubuntu signed the others
        _check_secure_boot(decision)
    return {
        **EMPTY,
        "wanted": True,
        "why": [
            choice.why,
            f"{option.flavour} kernel modules: {_flavour_reason(decision, option)}",
            _built(way, reason),
            *parts.reasons(decision, others),
        ],
        "version": option.branch["branch"] if option.source == "distro" else option.driver.version,
        "source": option.source,
        "flavour": option.flavour,
        "components": option.row.get("components", []),
        "suite": driver_options.suite(decision, option.row),
        "modules": way,
        "packages": _packages(decision, option, way, own, others),
        "headers": headers.lacking(decision) if way == "dkms" else [],
        "obsolete": _obsolete(decision, option, way),
        "blacklist": decision.catalog["driver"]["competitors"]["modules"],
        "kernel_release": decision.facts["gpu"]["kernel"]["release"],
        "sysroot": decision.wanted["gpufleet_gpu_sysroot"],
        **_repository(decision, option),
        "download_mib": option.row.get("download_mib"),
        "disk_mib": option.row.get("disk_mib"),
        "reboot": _reboot(decision, option),
        # Not the headers: a kernel that comes without them would have no module.
        "hold": _held(decision, option, [*own, *tied]),
        "hold_kernel": decision.wanted["gpufleet_hold"] and decision.wanted["gpufleet_hold_kernel"],
        "parts": others,
        "match": _match(decision, option, own, tied),
        "installer": installer.stage(decision, option),
        "replaces": former.replaced(decision, option),
    }


def _held(decision: Decision, option: Option, names: list[str]) -> list[str]:
    if not decision.wanted["gpufleet_hold"]:
        return []
    if option.source == "runfile":
        decision.warn(
            "GF-HOLD-RUNFILE",
            "gpufleet_hold has nothing to hold of a driver from NVIDIA's installer: no package manager upgrades it",
        )
    return names


def _built(way: str, reason: str) -> str:
    return f"modules {'built on the node (DKMS)' if way == 'dkms' else 'that are built already'}: {reason}"


def _own(decision: Decision, option: Option, way: str) -> list[str]:
    """The driver's packages without the headers, with the modules as they come."""
    names = driver_options.packages(option)
    return names if way == "dkms" else kernels.with_modules(decision, option, names)


def _packages(decision: Decision, option: Option, way: str, own: list[str], others: list[Row]) -> list[str]:
    if option.source == "runfile":
        # What the installer builds with.
        family = (node.distribution(decision) or {"family": None})["family"]
        tools = decision.catalog["driver"]["installer_packages"].get(family, [])
        return [headers.package(decision, option.row), *tools]
    needed = [headers.package(decision, option.row)] if way == "dkms" else []
    tied = {*own, *(name for part in others for name in part["tied"])}
    names = [*own, *(name for part in others for name in part["packages"])]
    named = [driver_options.versioned(name, option) if name in tied else name for name in names]
    return [*needed, *named]


def _match(decision: Decision, option: Option, own: list[str], tied: list[str]) -> Row | None:
    """The packages that the role has to name with one version: the one wanted, else the newest of the branch.

    Where the names say the branch, and nothing else has to fit, apt finds it by itself.
    """
    distribution = node.distribution(decision)
    exact = "." in option.driver.version
    if option.source != "nvidia" or distribution is None or distribution["family"] != "apt":
        return None
    if not (exact or tied or option.row["pin"]):
        return None
    return {
        "lead": own[0],
        "series": option.driver.version,
        "packages": [*own, *tied],
        # With NVIDIA's own package for the branch beside it, others' upgrades stay in the branch.
        "pin": bool(exact or tied),
    }


def _obsolete(decision: Decision, option: Option, way: str) -> list[str]:
    """Packages of the distribution's other drivers: they can stand beside the wanted ones, and the node would have two."""
    if option.source != "distro":
        return []  # NVIDIA's branches and flavours exclude each other
    others = {
        name for other in driver_options.archive(decision) for name in driver_options.packages(other, fabric=True)
    }
    wanted = set(driver_options.packages(option, fabric=True))
    return sorted(others - wanted | set(kernels.other_way(decision, option, way)))


def _repository(decision: Decision, option: Option) -> Row:
    if option.repository is None:
        return {}
    row = option.row
    return {
        "repository": repository.description(decision, option.repository),
        **{name: driver_options.filled(row[name], option) if row[name] else None for name in ("pin", "module_stream")},
        "versionlock": driver_options.version(option) if row["versionlock"] else None,
        **_holder(decision, option),
    }


def _holder(decision: Decision, option: Option) -> Row:
    """dnf can hold packages only with a plugin of its own."""
    held = decision.wanted["gpufleet_hold"] and option.row["module_stream"]
    return {"pin": driver_options.VERSIONLOCK} if held else {}


def _reboot(decision: Decision, option: Option) -> bool | None:
    """Whether the GPUs serve only after a reboot: another driver holds them now."""
    now = decision.facts["gpu"]["driver"]
    if now["loaded_version"] is None:
        return now["competitor"] is not None
    # The distribution may have a newer one of the branch by now than the catalog knows; NVIDIA's is what was asked for.
    wanted = option.driver.version if option.source == "nvidia" else option.branch["branch"]
    same = in_series(now["loaded_version"], wanted) or in_series(now["loaded_version"], option.driver.version)
    return not same or bool(decision.facts["gpu"]["reboot_needed"])


def _flavour_reason(decision: Decision, option: Option) -> str:
    if decision.wanted["nvidia_driver_flavour"] != "auto":
        return "asked for"
    possible = {kind for device in decision.devices for kind in gpus.flavours(decision, device)}
    if possible == {option.flavour}:
        return "the only ones for these GPUs"
    start = decision.catalog["driver"]["open_default_from"]["branch"]
    default = "open" if at_least(option.branch["branch"], start) else "proprietary"
    if option.flavour == default:
        return f"the default {'from' if default == 'open' else 'before'} branch {start}{' on' if default == 'open' else ''}"
    return "the ones that can be had and drive all of these GPUs"


def _check_secure_boot(decision: Decision) -> None:
    if decision.facts["gpu"]["kernel"]["secure_boot"]:
        decision.warn(
            "GF-SECURE-BOOT",
            "Secure Boot is on: the kernel refuses a module that is not signed with a key the firmware knows; "
            "enrol the key that DKMS signs with (mokutil --import) before the driver is installed",
        )
