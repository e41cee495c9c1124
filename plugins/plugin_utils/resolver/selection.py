# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one choice that can't be split: the driver and the torch of every environment. Private to the collection."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import builds, node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver import Choice
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key


class Environment(NamedTuple):
    """What one environment gets."""

    wish: Row
    release: Row
    build: Row
    python: Row


def version_of(decision: Decision, wish: Row) -> str:
    """The torch that an environment asks for."""
    return str(wish.get("version", decision.wanted["pytorch_version"]))


def variant_of(decision: Decision, wish: Row) -> str:
    """The CUDA variant that an environment asks for."""
    return str(wish.get("cuda", decision.wanted["pytorch_cuda"]))


def python_of(decision: Decision, wish: Row) -> str:
    """The Python that an environment asks for."""
    return str(wish.get("python", decision.wanted["python_version"]))


@once_per_node
def known(decision: Decision, version: str) -> list[Row]:
    """The releases of the catalog that a wish can mean, newest first."""
    rows = [
        row for row in decision.catalog["torch"]["releases"] if version == "auto" or in_series(row["version"], version)
    ]
    return sorted(rows, key=lambda row: key(row["version"]), reverse=True)


def python_for(decision: Decision, wish: Row, release: Row, pythons: list[Row]) -> Row | None:
    """The first of the node's Pythons that the environment allows and for which the release is published."""
    published = release["pythons"].get(node.wheel_platform(decision), [])
    return next((row for row in allowed(decision, wish, pythons) if row["version"] in published), None)


def allowed(decision: Decision, wish: Row, pythons: list[Row]) -> list[Row]:
    """The Pythons among which the environment may choose."""
    asked = python_of(decision, wish)
    return [row for row in pythons if asked == "auto" or in_series(row["version"], asked)]


def glibc_fits(decision: Decision, release: Row) -> bool:
    """Whether the release runs with the node's C library; unknown counts as the distribution's."""
    floor, have = release["glibc_min"].get(decision.architecture), glibc_of(decision)
    mac = decision.facts["node"]["distribution"] == "MacOSX"
    return mac or floor is None or have is None or at_least(have, floor)


def glibc_of(decision: Decision) -> str | None:
    """The node's C library, by its facts, else by its distribution."""
    row = node.distribution(decision)
    have: str | None = decision.facts["node"]["glibc"] or (row["glibc"] if row else None)
    return have


def macos_fits(decision: Decision, release: Row) -> bool:
    """Whether the wheels of the release install on this macOS."""
    floor = (release.get("macos_min") or {}).get(node.wheel_platform(decision))
    return floor is None or at_least(decision.facts["node"]["version"] or "0", floor)


def choose(decision: Decision, drivers: list[Choice], pythons: list[Row]) -> tuple[Choice | None, list[Environment]]:
    """The driver and what every environment gets; environments for which there is nothing are left out."""
    wishes = decision.wanted["pytorch_environments"]
    remaining = drivers
    releases: dict[str, Row] = {}
    # The environments that leave least room go first: an exact release, a series, then auto.
    for wish in sorted(wishes, key=lambda wish: len(known(decision, version_of(decision, wish)))):
        release, remaining_after = _release(decision, wish, remaining, pythons)
        if release is not None:
            releases[wish["name"]], remaining = release, remaining_after
    driver = remaining[0] if remaining else None
    chosen = []
    for wish in wishes:
        release = releases.get(wish["name"])
        if release is None:
            continue
        build = builds.best(decision, release, variant_of(decision, wish), driver.driver if driver else None)
        python = python_for(decision, wish, release, pythons)
        if build is not None and python is not None:
            chosen.append(Environment(wish, release, build, python))
    return driver, chosen


def _release(
    decision: Decision, wish: Row, drivers: list[Choice], pythons: list[Row]
) -> tuple[Row | None, list[Choice]]:
    """The newest release that fits, with the drivers that serve it; a driver that is there is not replaced for a newer one."""
    own = [python for python in pythons if python["provider"] != "managed"]
    there = drivers[:1] if drivers and drivers[0].kept else []
    for pool in ([there] if there else []) + [drivers]:
        # A Python has to be fetched only where the node's own serve no release.
        for few in [own, pythons] if own else [pythons]:
            for release in _fitting(decision, wish, few):
                serving = [choice for choice in pool if _serves(decision, release, wish, choice)]
                if serving:
                    return release, serving if pool is drivers else drivers_serving(decision, release, wish, drivers)
    return None, drivers


def _fitting(decision: Decision, wish: Row, pythons: list[Row]) -> list[Row]:
    return [
        release
        for release in known(decision, version_of(decision, wish))
        if python_for(decision, wish, release, pythons)
        and glibc_fits(decision, release)
        and macos_fits(decision, release)
    ]


def drivers_serving(decision: Decision, release: Row, wish: Row, drivers: list[Choice]) -> list[Choice]:
    """The drivers under which the release serves the environment."""
    return [choice for choice in drivers if _serves(decision, release, wish, choice)]


def _serves(decision: Decision, release: Row, wish: Row, choice: Choice) -> bool:
    return builds.best(decision, release, variant_of(decision, wish), choice.driver) is not None
