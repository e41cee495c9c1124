# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cuDNN as NVIDIA's repository has it. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import driver_options, node, repository
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import in_series, key


def wanted(decision: Decision) -> bool:
    """Whether cuDNN is to come from NVIDIA's repository; unasked it comes from wheels."""
    return bool(decision.wanted["cudnn_source"] == "nvidia")


@once_per_node
def _place(decision: Decision) -> Row | None:
    return driver_options.repository(decision, node.distribution(decision))


def with_dnf(decision: Decision) -> bool:
    """Whether the node's packages are dnf's."""
    distribution = node.distribution(decision)
    return distribution is not None and _family(distribution) == "dnf"


def _family(distribution: Row) -> str:
    return str(distribution["family"].partition("-")[0])


def row_of(decision: Decision, cudnn: Row) -> Row | None:
    """The row with the names of a cuDNN's packages; None where the node's repository does not have it."""
    distribution, place = node.distribution(decision), _place(decision)
    if distribution is None or place is None or place["first_cuda"] is None:
        return None
    major = cudnn["cuda_major"]
    last = place["last_cuda"]
    if key(place["first_cuda"])[0] > major or (last is not None and key(last)[0] < major):
        return None
    family = _family(distribution)
    rows = (
        row
        for row in decision.catalog["cudnn"]["packages"]
        if row["family"] == family and in_series(cudnn["version"], row["series"]) and str(major) in row["cuda_majors"]
    )
    found = next(rows, None)
    # Up to 8 the package's version says for which CUDA it is: without that nothing can be named.
    if found is not None and "{cuda}" in found["runtime"] and cudnn["packaged_for"] is None:
        return None
    return found


def describe(decision: Decision, cudnn: Row) -> Row:
    """The keys that a cuDNN of packages has in the plan."""
    row, place = row_of(decision, cudnn), _place(decision)
    if row is None or place is None:
        return {"packages": [], "repository": None}
    decision.uses(f"the packages of cuDNN {cudnn['version']}", row)
    names = [row["runtime"]]
    if decision.wanted["cudnn_headers"]:
        names.append(row["development"])
    values = {"version": cudnn["version"], "major": str(cudnn["cuda_major"]), "cuda": str(cudnn["packaged_for"])}
    # With dnf this plugin is what keeps a version.
    plugin = [driver_options.VERSIONLOCK] if row["family"] == "dnf" else []
    return {
        "packages": [*(_filled(name, values) for name in names), *plugin],
        "repository": repository.description(decision, place),
    }


def _filled(name: str, values: dict[str, str]) -> str:
    for field, value in values.items():
        name = name.replace(f"{{{field}}}", value)
    return name


def check(decision: Decision, rows: list[Row]) -> None:
    """A conflict where two would take each other's place."""
    by_series: dict[int, list[Row]] = {}
    for row in rows:
        by_series.setdefault(key(row["version"])[0], []).append(row)
    for series, several in by_series.items():
        if len(several) > 1:
            names = " and ".join(f"{row['version']} for CUDA {row['cuda_major']}" for row in several)
            source = decision.source("cudnn", decision.catalog["cudnn"]["packages"][-1])
            decision.conflict(
                "GF-CUDNN-SIDE-BY-SIDE",
                f"cuDNN {names} cannot stand side by side as packages",
                [
                    f"NVIDIA's packages of cuDNN {series} have one name or the same files, whatever their CUDA ({source})"
                ],
                [],
                {"cudnn": several[0]["version"]},
            )
