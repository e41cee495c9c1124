# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to the driver on some nodes only: services and their packages. Private to the collection.

Packages that are ``tied`` have to be of exactly the driver's version.
"""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import driver_options, gpus, node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver_options import Option
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

# The parts that somebody has to ask for: the variable, the value that asks, and what a person calls the part.
ASKED = {
    "imex": ("nvidia_driver_imex", "true", "IMEX"),
    "dcgm": ("nvidia_driver_dcgm", True, "DCGM"),
    "container_toolkit": ("nvidia_driver_container_toolkit", True, "NVIDIA's container toolkit"),
}
OFF = {"nvidia_driver_imex": "false", "nvidia_driver_dcgm": False, "nvidia_driver_container_toolkit": False}


def asked(decision: Decision) -> list[str]:
    """The parts that a variable asks for; none on a node without a GPU."""
    if not decision.devices:
        return []
    return [part for part, (name, value, _title) in ASKED.items() if decision.wanted[name] == value]


def lacking(decision: Decision, option: Option | None) -> list[str]:
    """The parts that were asked for and that this driver's source does not have."""
    return [part for part in asked(decision) if option is None or not _rows(decision, option, part)]


def plan(decision: Decision, option: Option) -> list[Row]:
    """``{name, packages[], tied[], units[]}`` of each part that the node gets."""
    return [_part(decision, option, name) for name in _names(decision, option)]


def reasons(decision: Decision, others: list[Row]) -> list[str]:
    """Why the node gets what not every node gets, one sentence each."""
    sentences = []
    for part in others:
        name = part["name"]
        if name == "fabric_manager":
            sentences.append("fabric manager of exactly the driver's version: the GPUs are behind NVSwitches")
        elif name == "imex" and name not in asked(decision):
            sentences.append("IMEX: these GPUs share memory between nodes")
        elif name in ASKED:
            sentences.append(f"{ASKED[name][2]}: asked for")
    return sentences


def _names(decision: Decision, option: Option) -> Iterator[str]:
    yield "persistence"
    if gpus.has_fabric(decision) and option.row.get("fabric_manager"):
        yield "fabric_manager"
    for part in ASKED:
        wanted = part in asked(decision) or (part == "imex" and _imex_is_needed(decision))
        if wanted and _rows(decision, option, part):
            yield part


def _imex_is_needed(decision: Decision) -> bool:
    known = decision.catalog["gpu"]["imex"]["pci_ids"]
    return decision.wanted["nvidia_driver_imex"] == "auto" and any(
        device["pci_id"] in known for device in decision.devices
    )


def _part(decision: Decision, option: Option, name: str) -> Row:
    rows = _rows(decision, option, name)
    tied = [each for row in rows for each in row["tied"]]
    kind = name
    if name == "fabric_manager":
        tied += option.row["fabric_manager"]
        if gpus.hides_switches(decision):
            kind = "nvlink5"
            rows = _rows(decision, option, kind)
            tied += [each for row in rows for each in row["tied"]]
    for row in rows:
        decision.uses(f"the packages of {name}", row)
    free = [each for row in rows for each in row["packages"]]
    return {
        "name": name,
        "packages": [_filled(decision, each, option) for each in [*tied, *free]],
        "tied": [_filled(decision, each, option) for each in tied],
        "units": [
            {"name": row["unit"], "paths": row["paths"], "optional": row["optional"]}
            for row in decision.catalog["repository"]["units"]
            if row["part"] == kind
        ],
    }


def _rows(decision: Decision, option: Option, part: str) -> list[Row]:
    """The rows of NVIDIA's repository for a part; none where the driver is from elsewhere."""
    distribution = node.distribution(decision)
    if option.repository is None or distribution is None:
        return []
    return [
        row
        for row in decision.catalog["repository"]["parts"]
        if row["part"] == part
        and row["family"] == distribution["family"]
        and driver_options.between(option.branch["branch"], row)
    ]


def _filled(decision: Decision, name: str, option: Option) -> str:
    majors = [row["major"] for row in decision.catalog["cuda"]["compatibility"]]
    cuda = option.branch["max_cuda"]
    major = str(key(cuda)[0]) if cuda else max(majors, key=key)
    return driver_options.filled(name, option).replace("{cuda}", major)


def check(decision: Decision, option: Option | None) -> None:
    """A conflict for what was asked for and does not come with the chosen driver."""
    missing = lacking(decision, option)
    if missing:
        conflict(decision, missing, option)


def conflict(decision: Decision, missing: list[str], option: Option | None) -> None:
    """GF-DRIVER-PART."""
    titles = " and ".join(ASKED[part][2] for part in missing)
    source = "is taken as it is, or left alone" if option is None else f"comes from {option.source}"
    row = decision.catalog["repository"]["parts"][0]
    decision.conflict(
        "GF-DRIVER-PART",
        f"{titles} cannot be had with the driver of this node",
        [f"the driver {source}; packages of it are in NVIDIA's repository ({decision.source('repository', row)})"],
        [],
        {"parts": missing},
    )
