# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cuDNN stands beside torch's own, keyed by the CUDA major of the toolkit. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import cudnn_packages, environment, gpus
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key

NO_CUDNN: Row = {"cudnns": [], "profile": False, "modulefiles": None, "headers": True, "pin": [], "hold": []}


def plan(decision: Decision, toolkit: Row, chosen: list[Environment]) -> Row:
    """The stage: the newest cuDNN of each wanted series for each CUDA of the toolkits, the default one's first."""
    wish = decision.wanted["cudnn_version"]
    if wish == "none":
        return nothing("no cuDNN is wanted (cudnn_version is none)", **NO_CUDNN)
    if wish == "auto" and not toolkit["wanted"]:
        return nothing("there is no CUDA toolkit that it would stand beside; torch brings its own", **NO_CUDNN)
    majors = _cuda_majors(toolkit, chosen)
    major = majors[0]
    if wish == "auto":
        line = _torch_line(chosen)
        row = _newest(decision, major, line) or _newest(decision, major, "")
        return _stage(decision, [row]) if row else _skipped(decision, major)
    wishes = wish if isinstance(wish, list) else [wish]
    rows = [row for each in wishes for row in _asked(decision, each, majors)]
    return _stage(decision, rows) if rows else nothing("no fitting cuDNN", **NO_CUDNN)


def _cuda_majors(toolkit: Row, chosen: list[Environment]) -> list[int | None]:
    """The CUDA majors that cuDNN is wanted for, the default toolkit's first; one that is None for any."""
    own = next((each.build["cuda"] for each in chosen if each.build["cuda"]), None)
    versions = [toolkit["default"] or own, *(each["version"] for each in toolkit["toolkits"])]
    return list(dict.fromkeys(key(version)[0] if version else None for version in versions))


def fitting(decision: Decision, major: int | None) -> list[Row]:
    """The cuDNNs for this CUDA major that run on the node's processor and GPUs."""
    return [
        row
        for row in decision.catalog["cudnn"]["cudnn"]
        if major in (None, row["cuda_major"])
        and decision.architecture in row["architectures"]
        and all(_drives(row, capability) for capability in gpus.capabilities(decision))
        and (not cudnn_packages.wanted(decision) or cudnn_packages.row_of(decision, row) is not None)
    ]


def _drives(row: Row, capability: str) -> bool:
    low, high = row["compute_capability_min"], row["compute_capability_max"]
    return (low is None or at_least(capability, low)) and (high is None or at_least(high, capability))


def _newest(decision: Decision, major: int | None, series: str) -> Row | None:
    rows = [row for row in fitting(decision, major) if not series or in_series(row["version"], series)]
    return max(rows, key=lambda row: (key(row["version"]), row["cuda_major"]), default=None)


def _torch_line(chosen: list[Environment]) -> str:
    """The major version of torch's own cuDNN: software built beside torch fits it best."""
    own = next((each.build["cudnn"] for each in chosen if each.build["cudnn"]), None)
    return str(key(own)[0]) if own else "9"


def _stage(decision: Decision, rows: list[Row]) -> Row:
    packaged = cudnn_packages.wanted(decision)
    if packaged:
        cudnn_packages.check(decision, rows)
    origin = "repository" if packaged else "wheels"
    cudnns = [_one(decision, row) for row in rows]
    names = [name for each in cudnns for name in each["packages"]]
    return {
        "wanted": True,
        "why": [
            f"cuDNN {row['version']} for CUDA {row['cuda_major']}: the newest that fits, from NVIDIA's {origin}"
            for row in rows
        ],
        "cudnns": cudnns,
        "headers": decision.wanted["cudnn_headers"],
        **_kept(decision, names),
        **environment.description(decision),
    }


def _kept(decision: Decision, packages: list[str]) -> Row:
    """What keeps packages at their versions: else an upgrade of the node would move those up to 8 to another CUDA."""
    with_apt = not cudnn_packages.with_dnf(decision)
    pairs = [dict(zip(("package", "version"), name.split("="), strict=True)) for name in packages if "=" in name]
    # dnf knows no pins: there a lock does it, whether a hold was asked for or not.
    held = decision.wanted["gpufleet_hold"] or not with_apt
    return {"pin": pairs if with_apt else [], "hold": [pair["package"] for pair in pairs] if held else []}


def _one(decision: Decision, row: Row) -> Row:
    """One cuDNN of the plan: from a wheel or from packages."""
    wanted = decision.wanted
    common = {
        "version": row["version"],
        "cuda_major": row["cuda_major"],
        "path": f"{wanted['gpufleet_prefix']}/cudnn/{row['version']}-cuda{row['cuda_major']}",
        "disk_mib": row["disk_mib"],
    }
    if cudnn_packages.wanted(decision):
        if row["packaged_for"]:
            decision.uses(f"the package of cuDNN {row['version']}", row)
        origin = {"source": "nvidia", "requirement": None, "index_url": "", **cudnn_packages.describe(decision, row)}
    else:
        requirement = f"{row['package']}=={row['version']}"
        index = wanted["pytorch_index_url"]
        origin = {
            "source": "wheels", "requirement": requirement, "index_url": index, "packages": [], "repository": None,
        }  # fmt: skip
    return {**common, **origin}


def _known(decision: Decision, major: int | None) -> str:
    rows = fitting(decision, major)
    return ", ".join(f"{row['version']} for CUDA {row['cuda_major']}" for row in rows) or "none"


def _skipped(decision: Decision, major: int | None) -> Row:
    message = f"no cuDNN is installed: none is known for CUDA {major} on {decision.architecture} and these GPUs; torch brings its own"
    decision.warn("GF-CUDNN-SKIPPED", message)
    return nothing("no fitting cuDNN", **NO_CUDNN)


def _asked(decision: Decision, wish: str, majors: list[int | None]) -> list[Row]:
    """The newest of a series for each CUDA that has one; a conflict where the default one has none."""
    major = majors[0]
    found = [row for row in (_newest(decision, each, wish) for each in majors) if row]
    if _newest(decision, major, wish) is None:
        of_cuda = f" and CUDA {major}" if major else ""
        source = decision.source("cudnn", decision.catalog["cudnn"]["cudnn"][-1])
        decision.conflict(
            "GF-CUDNN-UNAVAILABLE",
            f"cuDNN {wish} is not to be had for {decision.platform}{of_cuda}",
            [f"what fits: {_known(decision, major)} ({source})"],
            [],
            {"cudnn": wish},
        )
        return []
    return found
