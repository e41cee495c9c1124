# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which torch build: a release and a variant whose code runs on every GPU of the node. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key

Row = dict[str, Any]


def plan(decision: Decision, driver: str | None, pythons: list[Row]) -> tuple[Row, list[Row]]:
    """The stage, and what was chosen for each environment: ``{release, build, python}``."""
    chosen = []
    environments = []
    why = []
    for wish in decision.wanted["pytorch_environments"]:
        choice = _choose(decision, wish, driver, pythons)
        if choice is None:
            continue
        chosen.append(choice)
        environments.append(_environment(decision, wish, choice))
        why.append(f"{wish['name']}: {choice['why']}")
    wanted = decision.wanted
    stage = {
        "wanted": True,
        "why": why,
        "environments": environments,
        "cache_dir": wanted["gpufleet_cache_dir"],
        "profile": wanted["gpufleet_environment"] == "profile",
    }
    return stage, chosen


def _choose(decision: Decision, wish: Row, driver: str | None, pythons: list[Row]) -> Row | None:
    release = _release(decision, wish.get("version", decision.wanted["pytorch_version"]))
    if release is None:
        return None
    python = _python(decision, release, pythons)
    glibc = decision.facts["node"]["glibc"]
    if glibc is not None and not at_least(glibc, release["glibc_min"]):
        decision.conflict(
            "GF-TORCH-GLIBC",
            f"torch {release['version']} does not run with this node's C library",
            [f"it needs glibc {release['glibc_min']}, the node has {glibc} ({decision.source('torch', release)})"],
            ["upgrade the node's distribution", "pytorch_version: an older release"],
        )
    build = _build(decision, wish, release, driver)
    if build is None or python is None:
        return None
    return {"release": release, "build": build, "python": python, "why": _why(decision, release, build, driver)}


def _release(decision: Decision, version: str) -> Row | None:
    releases: list[Row] = decision.catalog["torch"]["releases"]
    fitting = [row for row in releases if version == "auto" or in_series(row["version"], version)]
    if fitting:
        return max(fitting, key=lambda row: key(row["version"]))
    known = [row["version"] for row in releases]
    decision.conflict(
        "GF-TORCH-UNKNOWN",
        f"torch {version} is not known",
        [f"the catalog has torch {', '.join(known)}"],
        [f'pytorch_version: "{known[-1]}"', "pytorch_version: auto"],
    )
    return None


def _python(decision: Decision, release: Row, pythons: list[Row]) -> Row | None:
    wish = decision.wanted["python_version"]
    fitting = [row for row in pythons if row["version"] in release["pythons"] and wish in ("auto", row["version"])]
    if fitting:
        return fitting[0]
    found = ", ".join(row["version"] for row in pythons) or "none"
    asked = "" if wish == "auto" else f" {wish}"
    decision.conflict(
        "GF-TORCH-PYTHON",
        f"torch {release['version']} has no build for a Python{asked} of this node",
        [
            f"torch {release['version']} is published for Python {', '.join(release['pythons'])} ({decision.source('torch', release)})",
            f"the node offers Python: {found}",
        ],
        ["python_version: auto"] * (wish != "auto")
        + [
            f"install Python {release['pythons'][-1]} on the node (as /usr/local/bin/python{release['pythons'][-1]}); it is found there"
        ],
    )
    return None


def _build(decision: Decision, wish: Row, release: Row, driver: str | None) -> Row | None:
    architecture = decision.facts["node"]["architecture"]
    variant = wish.get("cuda", decision.wanted["pytorch_cuda"])
    builds = [row for row in release["builds"] if architecture in row["architectures"]]
    if variant != "auto" and variant not in [row["variant"] for row in builds]:
        names = sorted({row["variant"] for row in builds})
        decision.conflict(
            "GF-TORCH-VARIANT",
            f"torch {release['version']} has no build {variant} for {architecture}",
            [f"there are: {', '.join(names)} ({decision.source('torch', release)})"],
            ["pytorch_cuda: auto", *(f"pytorch_cuda: {name}" for name in names)],
        )
        return None
    builds = [row for row in builds if variant in ("auto", row["variant"])]
    serving = [row for row in builds if _objection(decision, row, driver) is None]
    if serving:
        # The package index first: it needs no second host. Rows are in that order already.
        best: Row = min(serving, key=lambda row: bool(row["index"] != "package"))
        return best
    decision.conflict(
        "GF-TORCH-NO-BUILD",
        f"no build of torch {release['version']} runs on every GPU of this node",
        [f"{row['variant']}: {_objection(decision, row, driver)} ({decision.source('torch', row)})" for row in builds],
        ["pytorch_cuda: cpu", "pytorch_version: a release whose builds cover these GPUs"],
    )
    return None


def _objection(decision: Decision, build: Row, driver: str | None) -> str | None:
    """Why a build does not serve this node, or None where it does."""
    if not decision.devices or driver is None:
        return None
    if build["cuda"] is None:
        return "it has no CUDA, the node has a GPU" if decision.wanted["pytorch_cuda"] == "auto" else None
    if not at_least(driver, build["min_driver"]):
        return f"it needs driver {build['min_driver']}, the node will have {driver}"
    for device in decision.devices:
        capability = device["compute_capability"]
        if capability is not None and not runs_on(build["compiled_for"], capability, decision.catalog["torch"]):
            return f"it is compiled for {', '.join(build['compiled_for'])}, {device['name']} is {capability}"
    return None


def runs_on(compiled_for: list[str], capability: str, torch_catalog: Row) -> bool:
    """Whether code compiled for these architectures runs on a device of this compute capability, without PTX."""
    if capability in compiled_for:
        return True
    if capability in torch_catalog["own_code_only"]["devices"]:
        return False
    device = key(capability)
    return any(key(code)[0] == device[0] and key(code)[1] <= device[1] for code in compiled_for)


def _why(decision: Decision, release: Row, build: Row, driver: str | None) -> str:
    name = f"torch {release['version']} {build['variant']}"
    if not decision.devices:
        return f"{name}: the node has no NVIDIA GPU, and this build runs on its CPU and comes from the {build['index']} index"
    if driver is None or build["cuda"] is None:
        return f"{name}: runs on the CPU"
    capabilities = ", ".join(sorted({str(device["compute_capability"]) for device in decision.devices}))
    return f"{name}: has code for compute capability {capabilities} and runs on driver {driver} (it needs {build['min_driver']})"


def _environment(decision: Decision, wish: Row, choice: Row) -> Row:
    release, build, python = choice["release"], choice["build"], choice["python"]
    local = build.get("local_version", build["variant"])
    pytorch_index = build["index"] == "pytorch"
    pin = f"+{local}" if pytorch_index and local else ""
    return {
        "name": wish["name"],
        "torch": release["version"],
        "variant": build["variant"],
        "torch_version": f"{release['version']}+{local}" if local else release["version"],
        "cuda": build["cuda"],
        "cudnn": build["cudnn"],
        "torchvision": release["torchvision"],
        "torchaudio": release["torchaudio"],
        "python": python["version"],
        "interpreter": python["path"],
        "requirements": [
            f"torch=={release['version']}{pin}",
            f"torchvision=={release['torchvision']}{pin}",
            f"torchaudio=={release['torchaudio']}{pin}",
            "numpy",
            "pip",
            "setuptools",
            *release["constraints"],
            *wish.get("requirements", []),
        ],
        "index_url": decision.wanted["pytorch_index_url"],
        "torch_index_url": f"{decision.catalog['torch']['pytorch_index']}/{build['variant']}" if pytorch_index else "",
        "link": f"{decision.wanted['gpufleet_prefix']}/envs/{wish['name']}/current",
        "disk_mib": build["disk_mib"],
    }
