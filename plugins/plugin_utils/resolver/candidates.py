# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wishes that might mend a conflict, nearest first; whether they do is for fixes.py to prove. Private to the collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    builds,
    cudnn,
    driver,
    driver_options,
    gpus,
    parts,
    profiles,
    python,
    selection,
    toolkit,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.wishes import DEFAULTS
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import (
    looks_like_version,
    nearest_first,
)

_NO_DRIVER = {"nvidia_driver_version": "none"}
_AUTO_DRIVER = {"nvidia_driver_version": "auto"}


def of(decision: Decision, conflict: Row) -> Iterator[Row]:
    """Changes of wishes for one conflict, nearest first; none that is the wish already."""
    maker = _MAKERS.get(conflict["code"])
    for candidate in maker(decision, conflict["about"]) if maker else ():
        if any(decision.wanted[name] != value for name, value in candidate.items()):
            yield candidate


def _misspelt(_decision: Decision, about: Row) -> Iterator[Row]:
    name, value = about["wish"], about["value"]
    if name not in DEFAULTS:
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield {name: str(value)}
    if isinstance(value, str):
        public, _plus, local = value.partition("+")
        read = public.strip().lstrip("vV").replace(",", ".").replace("O", "0").replace("o", "0").replace("l", "1")
        if looks_like_version(read):
            yield {name: read, "pytorch_cuda": local} if name == "pytorch_version" and local else {name: read}
    yield {name: DEFAULTS[name]}


def _environment(decision: Decision, about: Row, key: str, variable: str, value: str) -> Row:
    """The wish that changes one thing of the environment: its own key where it has one, else the variable of all."""
    wish = about["environment"]
    if key not in wish:
        return {variable: value}
    environments = decision.wanted["pytorch_environments"]
    return {"pytorch_environments": [{**each, key: value} if each == wish else each for each in environments]}


def _release(decision: Decision, about: Row, version: str) -> Row:
    return _environment(decision, about, "version", "pytorch_version", version)


def _variant(decision: Decision, about: Row, variant: str) -> Row:
    return _environment(decision, about, "cuda", "pytorch_cuda", variant)


def _releases(decision: Decision, about: Row, fits: Callable[[Row], bool]) -> Iterator[Row]:
    """The releases that pass a test, by their distance from the wanted one; then auto."""
    pythons = python.candidates(decision)
    versions = [
        row["version"]
        for row in decision.catalog["torch"]["releases"]
        if fits(row)
        and selection.glibc_fits(decision, row)
        and selection.macos_fits(decision, row)
        and selection.python_for(decision, about["environment"], row, pythons)
    ]
    wanted = selection.version_of(decision, about["environment"])
    for version in nearest_first(versions, wanted if looks_like_version(wanted) else "2.0.1")[:6]:
        yield _release(decision, about, version)
    yield _release(decision, about, "auto")


def _other_release(decision: Decision, about: Row) -> Iterator[Row]:
    yield from _releases(decision, about, lambda row: _covers(decision, row))


def _other_python(decision: Decision, about: Row) -> Iterator[Row]:
    yield {"python_provider": "auto"}
    freed = _environment(decision, about, "python", "python_version", "auto")
    yield freed
    yield {**freed, "python_provider": "auto"}
    yield from _other_release(decision, about)


def _other_profile(decision: Decision, about: Row) -> Iterator[Row]:
    """A Python, then a release, that the profile is known for."""
    name = about["environment"]["profile"]
    pythons = list(dict.fromkeys(row["version"] for row in python.candidates(decision)))
    release = selection.known(decision, selection.version_of(decision, about["environment"]))[0]
    for version in pythons:
        if profiles.row(decision, name, release["version"], version) is not None:
            yield _environment(decision, about, "python", "python_version", version)
    yield from _releases(
        decision,
        about,
        lambda row: any(profiles.row(decision, name, row["version"], version) for version in pythons),
    )


def _other_variant(decision: Decision, about: Row) -> Iterator[Row]:
    yield _variant(decision, about, "auto")
    releases = selection.known(decision, selection.version_of(decision, about["environment"]))
    for build in builds.of(decision, releases[0]) if releases else ():
        yield _variant(decision, about, build["variant"])
    wanted = selection.variant_of(decision, about["environment"])
    yield from _releases(
        decision, about, lambda row: any(wanted == each["variant"] for each in builds.of(decision, row))
    )


def _other_build(decision: Decision, about: Row) -> Iterator[Row]:
    yield _variant(decision, about, "auto")
    yield _AUTO_DRIVER
    yield {**_AUTO_DRIVER, "nvidia_driver_source": "auto"}
    yield from _releases(decision, about, lambda row: _covers(decision, row))
    for branch in _good_branches(decision):
        yield {"nvidia_driver_version": branch}
    yield _variant(decision, about, "cpu")


def _covers(decision: Decision, release: Row) -> bool:
    """Whether a build has code for all GPUs, and runs on the driver where that can't be replaced."""
    if not decision.devices:
        return bool(builds.of(decision, release))
    there = driver.immovable(decision)
    if there is None:
        return builds.first_with_code(decision, [release]) is not None
    return builds.best(decision, release, "auto", there) is not None


def _good_branches(decision: Decision) -> list[str]:
    """Branches that drive every GPU of the node, the best kept ones first."""
    driving = gpus.driving_all(decision)
    rows = [row for row in decision.catalog["driver"]["branches"] if row["branch"] in driving]
    return [row["branch"] for row in sorted(rows, key=driver_options.preference)][:3]


def _other_driver(decision: Decision, _about: Row) -> Iterator[Row]:
    wanted = decision.wanted["nvidia_driver_version"]
    yield {"nvidia_driver_flavour": "auto"}
    if looks_like_version(wanted):
        for branch in nearest_first(gpus.driving_all(decision), wanted)[:4]:
            yield {"nvidia_driver_version": branch}
    yield _AUTO_DRIVER
    yield {"nvidia_driver_source": "auto"}
    yield {**_AUTO_DRIVER, "nvidia_driver_source": "auto", "nvidia_driver_flavour": "auto"}
    for branch in _good_branches(decision):
        yield {"nvidia_driver_version": branch}
    yield _NO_DRIVER


def _other_modules(_decision: Decision, _about: Row) -> Iterator[Row]:
    yield {"nvidia_driver_modules": "auto"}
    yield {"nvidia_driver_modules": "auto", "nvidia_driver_source": "auto"}


def _listed(decision: Decision, name: str, old: str, new: str) -> Row:
    wish: Any = decision.wanted[name]
    return {name: [new if each == old else each for each in wish] if isinstance(wish, list) else new}


def _other_toolkit(decision: Decision, about: Row) -> Iterator[Row]:
    have = [offer.series for offer in toolkit.offers(decision) if toolkit.unfit(decision, offer, None) is None]
    for series in nearest_first(have, about["toolkit"])[:3]:
        yield _listed(decision, "cuda_toolkit_version", about["toolkit"], series)
    yield {"cuda_toolkit_version": "auto"}
    yield {"cuda_toolkit_version": "none"}


def _other_cudnn(decision: Decision, about: Row) -> Iterator[Row]:
    have = [row["version"] for row in cudnn.fitting(decision, None)]
    for version in nearest_first(have, about["cudnn"])[:5]:
        yield _listed(decision, "cudnn_version", about["cudnn"], version)
    yield {"cudnn_source": "auto"}
    yield {"cudnn_version": "auto"}
    yield {"cudnn_version": "none"}


def _cudnn_of_wheels(_decision: Decision, about: Row) -> Iterator[Row]:
    yield {"cudnn_source": "wheels"}
    yield {"cudnn_version": about["cudnn"]}
    yield {"cudnn_version": "none"}


def _parts(_decision: Decision, about: Row) -> Iterator[Row]:
    yield {"nvidia_driver_source": "nvidia"}
    yield {"nvidia_driver_source": "nvidia", "nvidia_driver_version": "auto"}
    yield {parts.ASKED[part][0]: parts.OFF[parts.ASKED[part][0]] for part in about["parts"]}


def _own_gpus_alone(_decision: Decision, _about: Row) -> Iterator[Row]:
    yield _NO_DRIVER


_MAKERS: dict[str, Callable[[Decision, Row], Iterator[Row]]] = {
    "GF-WISH-INVALID": _misspelt,
    "GF-TORCH-UNKNOWN": _other_release,
    "GF-TORCH-PLATFORM": _other_release,
    "GF-TORCH-GLIBC": _other_release,
    "GF-TORCH-PYTHON": _other_python,
    "GF-TORCH-VARIANT": _other_variant,
    "GF-TORCH-PROFILE": _other_profile,
    "GF-TORCH-NO-BUILD": _other_build,
    "GF-DRIVER-VERSION": _other_driver,
    "GF-DRIVER-UNSUPPORTED-GPU": _other_driver,
    "GF-DRIVER-FLAVOUR": _other_driver,
    "GF-DRIVER-SOURCE": _other_driver,
    "GF-DRIVER-FABRIC": _other_driver,
    "GF-DRIVER-PRECOMPILED": _other_modules,
    "GF-DRIVER-FOREIGN": _other_driver,
    "GF-DRIVER-PART": _parts,
    "GF-DRIVER-HOST": _own_gpus_alone,
    "GF-TOOLKIT-UNAVAILABLE": _other_toolkit,
    "GF-TOOLKIT-UNFIT": _other_toolkit,
    "GF-CUDNN-UNAVAILABLE": _other_cudnn,
    "GF-CUDNN-SIDE-BY-SIDE": _cudnn_of_wheels,
}
