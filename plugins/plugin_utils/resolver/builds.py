# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which builds of torch serve a node, and what speaks against the others. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import fit, gpus, node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import Driver
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key


def of(decision: Decision, release: Row) -> list[Row]:
    """The builds of a release for the node's platform."""
    return _of_series(decision, release["series"])


@once_per_node
def _of_series(decision: Decision, series: str) -> list[Row]:
    platform = node.wheel_platform(decision)
    rows: list[Row] = decision.catalog["torch"]["builds"].get(series, [])
    return [row for row in rows if row["platform"] == platform]


@once_per_node
def _without_code(decision: Decision, series: str, variant: str) -> list[str]:
    """The compute capabilities of the node that only PTX could serve."""
    build = next(row for row in _of_series(decision, series) if row["variant"] == variant)
    own = decision.catalog["torch"]["own_code_only"]["devices"]
    return [each for each in gpus.capabilities(decision) if not fit.runs_on(build["compiled_for"], each, own)]


def _uncovered(decision: Decision, series: str, build: Row, driver: Driver | None) -> list[str]:
    left = _without_code(decision, series, build["variant"])
    return [each for each in left if driver is None or not fit.compiles_ptx(driver, build, each)]


def serves(decision: Decision, release: Row, build: Row, variant: str, driver: Driver | None) -> bool:
    """Whether a build serves the node under this driver; ``variant`` is the wish."""
    return _fault(decision, release, build, variant, driver) is None


def _fault(decision: Decision, release: Row, build: Row, variant: str, driver: Driver | None) -> str | None:
    if build["cuda"] is None:
        return "unused" if variant == "auto" and decision.devices and driver is not None else None
    if variant == "auto" and decision.devices and driver is None:
        return "no driver"
    if _uncovered(decision, release["series"], build, driver):
        return "no code"
    compatibility = decision.catalog["cuda"]["compatibility"]
    return None if driver is None or fit.serves_cuda(driver, build["cuda"], compatibility) else "old driver"


def objection(decision: Decision, release: Row, build: Row, variant: str, driver: Driver | None) -> str | None:
    """What speaks against a build, in words, or None where it serves."""
    fault = _fault(decision, release, build, variant, driver)
    if fault is None:
        return None
    uncovered = ", ".join(_uncovered(decision, release["series"], build, driver))
    return {
        "unused": "it has no CUDA, and the node has a GPU",
        "no driver": "it needs a driver, and the node has none and gets none",
        "no code": f"it is compiled for {', '.join(build['compiled_for'])}, not for {uncovered}",
        "old driver": f"it needs driver {build['min_driver']}, the node has or gets {driver.version if driver else 'none'}",
    }[fault]


def best(decision: Decision, release: Row, variant: str, driver: Driver | None) -> Row | None:
    """The build to take: a published one, a CPU build where no GPU is used, then the package index's, then the newest CUDA."""
    asked = (best, release["version"], variant, driver)
    if asked not in decision.known:
        decision.known[asked] = _best(decision, release, variant, driver)
    row: Row | None = decision.known[asked]
    return row


def _best(decision: Decision, release: Row, variant: str, driver: Driver | None) -> Row | None:
    cpu_first = not decision.devices or driver is None
    serving = [
        build
        for build in of(decision, release)
        if variant in ("auto", build["variant"]) and serves(decision, release, build, variant, driver)
    ]
    return min(serving, key=lambda build: _rank(build, cpu_first), default=None)


def _rank(build: Row, cpu_first: bool) -> tuple[bool, bool, bool, tuple[int, ...]]:
    newest = tuple(-number for number in key(build["cuda"] or "0"))
    return (
        "variant" in build.get("unverified", ()),
        cpu_first and build["cuda"] is not None,
        build["index"] != "package",
        newest,
    )


def from_package_index(decision: Decision, release: Row, build: Row) -> Row | None:
    """The package index's own build, where it could stand in for a CPU build of the PyTorch index."""
    if build["cuda"] is not None or build["index"] == "package":
        return None
    return next((row for row in of(decision, release) if row["index"] == "package"), None)


def first_with_code(decision: Decision, releases: list[Row]) -> tuple[Row, Row] | None:
    """The oldest release with a build that has code for every GPU of the node, and that build."""
    for release in sorted(releases, key=lambda row: key(row["version"])):
        for build in of(decision, release):
            if build["cuda"] and not _without_code(decision, release["series"], build["variant"]):
                return release, build
    return None
