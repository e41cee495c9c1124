# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stage ``pytorch``, and why an environment can't be. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import without_credentials
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    builds,
    environment,
    gpus,
    node,
    profiles,
    selection,
    site_indexes,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.driver import Choice
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key, nearest_first

COMPANIONS = ("torchvision", "torchaudio")


def plan(decision: Decision, driver: Choice | None, chosen: list[Environment]) -> Row:
    """The stage: every environment with its requirements, and the reason for its build."""
    wanted = decision.wanted
    return {
        "wanted": True,
        "why": [f"{each.wish['name']}: {_why(decision, each, driver)}" for each in chosen],
        "environments": [_environment(decision, each) for each in chosen],
        "cache_dir": wanted["gpufleet_cache_dir"],
        **environment.description(decision),
        "keep": wanted["pytorch_keep"],
        "kernels": wanted["pytorch_kernels"],
    }


def _why(decision: Decision, each: Environment, driver: Choice | None) -> str:
    name = f"torch {each.release['version']} {each.build['variant']}"
    if each.build["variant"] == "mps":
        return f"{name}: Apple's GPU is used through Metal (MPS)"
    if not decision.devices:
        return f"{name}: the node has no NVIDIA GPU, and this build runs on its CPU"
    if driver is None or driver.driver is None or each.build["cuda"] is None:
        return f"{name}: runs on the CPU"
    has = f"has code for compute capability {', '.join(gpus.capabilities(decision))}"
    return f"{name}: {has} and runs on driver {driver.driver.version} (it needs {each.build['min_driver']})"


def _environment(decision: Decision, each: Environment) -> Row:
    wish, release = each.wish, each.release
    companions = {name: _companion(wish, release, name) for name in COMPANIONS}
    more = [*profiles.requirements(decision, each), *wish.get("requirements", [])]
    more += ["ipykernel"] if decision.wanted["pytorch_kernels"] else []
    row = {
        "name": wish["name"],
        "torch": release["version"],
        **companions,
        "python": each.python["version"],
        "interpreter": each.python["path"],
        "index_url": decision.wanted["pytorch_index_url"],
        "indexes": site_indexes.of(decision),
        "link": f"{decision.wanted['gpufleet_prefix']}/envs/{wish['name']}/current",
        **_of_build(decision, release, each.build, companions, more),
        "instead": None,
    }
    stand_in = builds.from_package_index(decision, release, each.build)
    if stand_in is not None and selection.variant_of(decision, wish) == "auto":
        row["instead"] = _of_build(decision, release, stand_in, companions, more)
    decision.uses(f"torch {release['version']}", release)
    if "variant" in each.build.get("unverified", ()):
        decision.uses(f"torch {release['version']} {each.build['variant']}", each.build)
    return row


def _companion(wish: Row, release: Row, name: str) -> str | None:
    """The version of torchvision or torchaudio: the one that belongs to the release, the one that is asked for, or none."""
    asked = wish.get(name, "auto")
    known: str | None = release[name]
    return known if asked == "auto" else None if asked == "none" else str(asked)


def _of_build(decision: Decision, release: Row, build: Row, companions: dict[str, str | None], more: list[str]) -> Row:
    """The keys of an environment that another build of the same release changes."""
    version, local = release["version"], build["local_version"]
    pytorch_index = build["index"] == "pytorch"
    return {
        "variant": build["variant"],
        "torch_version": f"{version}+{local}" if local else version,
        "cuda": build["cuda"],
        "cudnn": build["cudnn"],
        "requirements": _requirements(release, f"+{local}" if pytorch_index and local else "", companions, more),
        "torch_index_url": f"{_builds_index(decision)}/{build['variant']}" if pytorch_index else "",
        # Of torch and what it needs the size is known; with more beside it, twice the download is nearer.
        "disk_mib": None if more else build["disk_mib"],
    }


def _builds_index(decision: Decision) -> str:
    """The PyTorch project's index or its mirror; without a password, which a catalog's overlay may have."""
    wish: str = decision.wanted["pytorch_builds_index_url"]
    return without_credentials(wish or decision.catalog["torch"]["pytorch_index"]).rstrip("/")


def _requirements(release: Row, pin: str, companions: dict[str, str | None], more: list[str]) -> list[str]:
    return [
        f"torch=={release['version']}{pin}",
        *(f"{name}=={version}{pin}" for name, version in companions.items() if version),
        f"numpy{release['numpy'] or ''}",
        "pip",
        "setuptools",
        *release["constraints"],
        *more,
    ]


def explain(decision: Decision, drivers: list[Choice], pythons: list[Row], chosen: list[Environment]) -> None:
    """A conflict for every environment for which nothing was found: the first reason that excludes all releases."""
    done = {each.wish["name"] for each in chosen}
    for wish in decision.wanted["pytorch_environments"]:
        if wish["name"] not in done:
            _explain(decision, wish, drivers, pythons)


def _explain(decision: Decision, wish: Row, drivers: list[Choice], pythons: list[Row]) -> None:
    version = selection.version_of(decision, wish)
    releases = selection.known(decision, version)
    if not releases:
        _unknown(decision, wish, version)
        return
    tests = (
        (_published, _not_published),
        (selection.glibc_fits, _old_glibc),
        (selection.macos_fits, _old_macos),
        (lambda decision, release: selection.python_for(decision, wish, release, pythons), _no_python),
    )
    for passes, conflict in tests:
        fitting = [release for release in releases if passes(decision, release)]
        if not fitting:
            conflict(decision, wish, releases[0], pythons)
            return
        releases = fitting
    variant = selection.variant_of(decision, wish)
    if variant != "auto" and not any(
        variant == row["variant"] for each in releases for row in builds.of(decision, each)
    ):
        _no_variant(decision, wish, releases[0], variant)
    elif drivers:
        _no_build(decision, wish, releases, variant, drivers)


def _published(decision: Decision, release: Row) -> bool:
    return bool(builds.of(decision, release) and release["pythons"].get(node.wheel_platform(decision)))


def _unknown(decision: Decision, wish: Row, version: str) -> None:
    versions = [row["version"] for row in decision.catalog["torch"]["releases"]]
    near = ", ".join(nearest_first(versions, version)[:3])
    because = [f"the catalog has torch {versions[0]} to {versions[-1]}; the nearest are {near}"]
    decision.conflict("GF-TORCH-UNKNOWN", f"torch {version} is not known", because, [], {"environment": wish})


def _not_published(decision: Decision, wish: Row, release: Row, _pythons: list[Row]) -> None:
    decision.conflict(
        "GF-TORCH-PLATFORM",
        f"torch {release['version']} is not published for {decision.platform}",
        [f"it has wheels for {', '.join(release['pythons'])} ({decision.source('torch', release)})"],
        [],
        {"environment": wish},
    )


def _old_glibc(decision: Decision, wish: Row, release: Row, _pythons: list[Row]) -> None:
    floor, have = release["glibc_min"].get(decision.architecture), selection.glibc_of(decision)
    decision.conflict(
        "GF-TORCH-GLIBC",
        f"torch {release['version']} does not run with this node's C library",
        [f"it needs glibc {floor}, the node has {have} ({decision.source('torch', release)})"],
        ["upgrade the node's distribution"],
        {"environment": wish},
    )


def _old_macos(decision: Decision, wish: Row, release: Row, _pythons: list[Row]) -> None:
    floor = release["macos_min"].get(node.wheel_platform(decision))
    decision.conflict(
        "GF-TORCH-PLATFORM",
        f"torch {release['version']} does not run on macOS {decision.facts['node']['version']}",
        [f"its wheels are for macOS {floor} and newer ({decision.source('torch', release)})"],
        ["update macOS"],
        {"environment": wish},
    )


def _no_python(decision: Decision, wish: Row, release: Row, pythons: list[Row]) -> None:
    published = release["pythons"].get(node.wheel_platform(decision), [])
    found = ", ".join(dict.fromkeys(row["version"] for row in selection.allowed(decision, wish, pythons))) or "none"
    asked = selection.python_of(decision, wish)
    of_wish = "" if asked == "auto" else f" {asked}"
    decision.conflict(
        "GF-TORCH-PYTHON",
        f"torch {release['version']} has no build for a Python{of_wish} of this node",
        [
            f"torch {release['version']} is published for Python {', '.join(published)} ({decision.source('torch', release)})",
            f"the node has or can have Python{of_wish and ' of that version'}: {found}",
        ],
        [f"install Python {published[-1]} on the node (as /usr/local/bin/python{published[-1]}); it is found there"],
        {"environment": wish},
    )


def _no_variant(decision: Decision, wish: Row, release: Row, variant: str) -> None:
    have = sorted({row["variant"] for row in builds.of(decision, release)})
    decision.conflict(
        "GF-TORCH-VARIANT",
        f"torch {release['version']} has no build {variant} for {decision.architecture}",
        [f"there are: {', '.join(have)} ({decision.source('torch', release)})"],
        [],
        {"environment": wish},
    )


def _no_build(decision: Decision, wish: Row, releases: list[Row], variant: str, drivers: list[Choice]) -> None:
    newest = releases[0]
    because = []
    for build in builds.of(decision, newest):
        if variant in ("auto", build["variant"]):
            reason = builds.objection(decision, newest, build, variant, drivers[0].driver)
            because.append(
                f"torch {newest['version']} {build['variant']}: {reason} ({decision.source('torch', build)})"
            )
    because.append(_what_would_do(decision, releases))
    asked = selection.version_of(decision, wish)
    which = "no known torch" if asked == "auto" else f"no build of torch {asked}"
    what = f"{which} runs on every GPU of this node ({gpus.names(decision.devices)})"
    decision.conflict("GF-TORCH-NO-BUILD", what, because, [], {"environment": wish})


def _what_would_do(decision: Decision, releases: list[Row]) -> str:
    if builds.first_with_code(decision, releases) is not None:
        least = min((build["min_driver"] for build in builds.of(decision, releases[0]) if build["cuda"]), key=key)
        return f"it has code for these GPUs, which runs from driver {least} on"
    found = builds.first_with_code(decision, decision.catalog["torch"]["releases"])
    wanted = ", ".join(gpus.capabilities(decision))
    if found is None:
        return f"no build of the catalog has code for compute capability {wanted} on {decision.architecture}"
    release, build = found
    return (
        f"the first torch with code for {wanted} is {release['version']} with CUDA {build['cuda']} ({build['variant']})"
    )
