# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The conflicts that the search for a driver can end in, one function each. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    driver_options,
    gpus,
    installer,
    kernels,
    parts,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import Driver


def foreign(decision: Decision, there: Driver) -> None:
    """A driver that does not serve and that nobody asked to replace."""
    origin = decision.facts["gpu"]["driver"]["source"] or "an unknown source"
    decision.conflict(
        "GF-DRIVER-FOREIGN",
        f"driver {there.version} does not drive {gpus.names(decision.devices)}",
        [f"it was installed from {origin}; a driver that was not installed from packages is not replaced unasked"],
        ["remove it with nvidia-uninstall, or name the version that shall take its place (nvidia_driver_version)"],
    )


def no_driver_for_all(decision: Decision) -> None:
    """The GPUs exclude each other."""
    because = [_range_in_words(decision, device, branches) for device, branches in gpus.driving_each(decision)]
    decision.conflict(
        "GF-DRIVER-FLAVOUR",
        "no one driver serves all GPUs of this node",
        because,
        ["move the GPUs to different nodes, or leave some of them to virtual machines"],
    )


def _range_in_words(decision: Decision, device: Row, branches: list[str]) -> str:
    modules = " or ".join(gpus.flavours(decision, device))
    source = decision.source("gpu", decision.catalog["gpu"]["open_only"])
    numbers = f"branch {branches[0]} to {branches[-1]}" if branches else "no branch of the catalog"
    return f"{device['name']} ({device['architecture']}): {numbers}, {modules} kernel modules ({source})"


def no_source(decision: Decision) -> None:
    """Neither packages nor a repository."""
    source = decision.wanted["nvidia_driver_source"]
    if source == "runfile":
        _no_installer(decision)
        return
    asked = "" if source == "auto" else f" ({source})"
    decision.conflict(
        "GF-DRIVER-SOURCE",
        f"no driver source{asked} is known for {decision.platform}",
        [
            "the catalog has neither packages of the distribution nor a repository of NVIDIA's for it that were asked for"
        ],
        ["install the driver yourself and set nvidia_driver_version: none"],
    )


def _no_installer(decision: Decision) -> None:
    """The named installer is of another version than the wanted one, or made for other processors."""
    wish, place = decision.wanted["nvidia_driver_version"], decision.wanted["nvidia_driver_runfile"]
    named = installer.driver(place)
    wrong = not installer.fits(decision)
    decision.conflict(
        "GF-DRIVER-SOURCE" if wrong else "GF-DRIVER-VERSION",
        f"the installer {installer.basename(place)} is not for {decision.architecture}"
        if wrong
        else f"driver {wish} is not to be had from the installer {installer.basename(place)}",
        [
            f"its name says version {named.version} for {named.architecture}",
            "the catalog knows the branches " + ", ".join(driver_options.branches(decision)),
        ],
        ["name the installer of this version and architecture: nvidia_driver_runfile and nvidia_driver_runfile_sha256"],
    )


def no_version(decision: Decision, options: list[Option]) -> None:
    """The wanted version is not offered."""
    wish = decision.wanted["nvidia_driver_version"]
    have: dict[str, list[str]] = {}
    for option in options:
        have.setdefault(option.source, []).append(option.driver.version)
    because = [f"{source} has {', '.join(dict.fromkeys(versions))}" for source, versions in have.items()]
    files = {option.catalog_file: option.repository or option.row for option in options}
    because += [f"source: {decision.source(name, row)}" for name, row in files.items()]
    because += [
        f"{row['driver_version'] or row['branch']}: {row['withdrawn']} ({decision.source('driver', row)})"
        for row in driver_options.withdrawn(decision, wish)
    ]
    decision.conflict("GF-DRIVER-VERSION", f"driver {wish} is not to be had for {decision.platform}", because, [])


def unserved(decision: Decision, options: list[Option]) -> None:
    """What is offered drives another generation of GPUs."""
    rows = list(dict.fromkeys(option.branch["branch"] for option in options))
    for device, branches in gpus.driving_each(decision):
        if set(branches) & set(rows):
            continue
        which = f"no driver of branch {rows[0]}" if len(rows) == 1 else f"none of the drivers for {decision.platform}"
        decision.conflict(
            "GF-DRIVER-UNSUPPORTED-GPU",
            f"{which} drives {device['name']} ({device['architecture']})",
            [_range_in_words(decision, device, branches), f"to be had: branch {', '.join(rows)}"],
            [],
        )
    if not any(conflict["code"] == "GF-DRIVER-UNSUPPORTED-GPU" for conflict in decision.conflicts):
        no_flavour(decision, options)


def no_flavour(decision: Decision, options: list[Option]) -> None:
    """What is offered has the wrong kernel modules."""
    have = sorted({f"{option.driver.version} {option.flavour}" for option in options})
    needs = [
        f"{device['name']}: {' or '.join(gpus.flavours(decision, device))} kernel modules"
        for device in gpus.kinds(decision)
    ]
    decision.conflict(
        "GF-DRIVER-FLAVOUR",
        "the kernel modules that can be had do not serve the GPUs of this node as asked",
        [*needs, f"to be had: {', '.join(have)} ({decision.source('gpu', decision.catalog['gpu']['open_only'])})"],
        [],
    )


def no_fabric(decision: Decision, options: list[Option]) -> None:
    """NVSwitches, and no fabric manager for them."""
    decision.conflict(
        "GF-DRIVER-FABRIC",
        "no fabric manager is to be had with the driver, and the GPUs of this node do not compute without one",
        [
            f"{option.source} {option.driver.version}: no package of it ({decision.source(option.catalog_file, option.row)})"
            for option in options
        ],
        ["install the driver with its fabric manager yourself and set nvidia_driver_version: none"],
    )


def no_parts(decision: Decision, options: list[Option]) -> None:
    """What was asked for besides is in NVIDIA's repository, and the driver is not."""
    parts.conflict(decision, parts.lacking(decision, options[0]), options[0])


def no_precompiled(decision: Decision, options: list[Option]) -> None:
    """Modules that somebody else built were asked for, and nobody builds any for this node."""
    reasons = dict.fromkeys(
        f"{option.driver.version}: {kernels.lacks_precompiled(decision, option)}" for option in options
    )
    decision.conflict(
        "GF-DRIVER-PRECOMPILED",
        "no driver for this node comes with modules that are built already",
        [*reasons],
        ["nvidia_driver_modules: dkms builds them on the node"],
    )
