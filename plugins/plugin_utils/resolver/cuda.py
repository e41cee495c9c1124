# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA toolkit and which cuDNN stand beside torch, for other software and for compiling. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import in_series, key

Row = dict[str, Any]
NO_TOOLKIT: Row = {"default": None, "toolkits": [], "profile": False}
NO_CUDNN: Row = {"cudnns": [], "profile": False}


def plan_toolkit(decision: Decision, chosen: list[Row]) -> Row:
    """The toolkit of the distribution, where it is of the same CUDA major as torch or was asked for."""
    wish = decision.wanted["cuda_toolkit_version"]
    if wish == "none":
        return nothing("no toolkit is wanted (cuda_toolkit_version is none)", **NO_TOOLKIT)
    if wish == "auto" and not decision.devices:
        return nothing("the node has no NVIDIA GPU", **NO_TOOLKIT)
    row = _offered(decision)
    if row is None or (wish != "auto" and not in_series(row["version"], wish)):
        return _unavailable(decision, wish, row)
    torch_cuda = next((choice["build"]["cuda"] for choice in chosen if choice["build"]["cuda"]), None)
    if wish == "auto" and torch_cuda is not None and key(torch_cuda)[0] != key(row["version"])[0]:
        decision.warn(
            "GF-TOOLKIT-SKIPPED",
            f"no CUDA toolkit is installed: torch uses CUDA {torch_cuda}, {decision.platform} has {row['version']} only, "
            f'another major version; torch does not need it (cuda_toolkit_version: "{row["version"]}" installs it all the same)',
        )
        return nothing(f"the distribution has no toolkit of CUDA {key(torch_cuda)[0]}", **NO_TOOLKIT)
    version = row["version"]
    reason = "asked for" if wish != "auto" else f"the nearest to torch's CUDA {torch_cuda} that {decision.platform} has"
    return {
        "wanted": True,
        "why": [f"CUDA toolkit {version} from {decision.platform}: {reason}"],
        "default": version,
        "toolkits": [
            {
                "version": version,
                "source": "distro",
                "components": row["components"],
                "packages": row["packages"],
                "layout": row["layout"],
                "path": f"{decision.wanted['gpufleet_prefix']}/cuda/{version}",
            }
        ],
        "profile": decision.wanted["gpufleet_environment"] == "profile",
    }


def _offered(decision: Decision) -> Row | None:
    node = decision.facts["node"]
    rows = decision.catalog["debian"]["debian"] if node["distribution"] == "Debian" else {}
    row: Row | None = rows.get(node["version"], {}).get("toolkit")
    return row


def _unavailable(decision: Decision, wish: str, row: Row | None) -> Row:
    has = f"has {row['version']}" if row else "has none that is known"
    if wish == "auto":
        decision.warn(
            "GF-TOOLKIT-SKIPPED", f"no CUDA toolkit is installed: {decision.platform} {has}; torch does not need it"
        )
    else:
        decision.conflict(
            "GF-TOOLKIT-UNAVAILABLE",
            f"CUDA toolkit {wish} is not to be had from {decision.platform}",
            [f"the distribution {has}"],
            ([f'cuda_toolkit_version: "{row["version"]}"'] if row else []) + ["cuda_toolkit_version: none"],
        )
    return nothing("no fitting toolkit", **NO_TOOLKIT)


def plan_cudnn(decision: Decision, toolkit: Row, chosen: list[Row]) -> Row:
    """The newest cuDNN of the wanted series for the CUDA major of the toolkit, from NVIDIA's own wheels."""
    wish = decision.wanted["cudnn_version"]
    if wish == "none":
        return nothing("no cuDNN is wanted (cudnn_version is none)", **NO_CUDNN)
    if wish == "auto" and not toolkit["wanted"]:
        return nothing("there is no CUDA toolkit that it would stand beside; torch brings its own", **NO_CUDNN)
    major = key(toolkit["default"])[0] if toolkit["default"] else None
    rows = [row for row in decision.catalog["cudnn"]["cudnn"] if major in (None, row["cuda_major"])]
    series = _torch_line(chosen) if wish == "auto" else wish
    architecture = decision.facts["node"]["architecture"]
    fitting = [row for row in rows if in_series(row["version"], series) and architecture in row["architectures"]]
    if not fitting:
        return _no_cudnn(decision, wish, rows)
    row = max(fitting, key=lambda each: key(each["version"]))
    return {
        "wanted": True,
        "why": [
            f"cuDNN {row['version']} for CUDA {row['cuda_major']}: the newest of cuDNN {series} in NVIDIA's wheels"
        ],
        "cudnns": [
            {
                "version": row["version"],
                "cuda_major": row["cuda_major"],
                "requirement": f"{row['package']}=={row['version']}",
                "path": f"{decision.wanted['gpufleet_prefix']}/cudnn/{row['version']}-cuda{row['cuda_major']}",
                "index_url": decision.wanted["pytorch_index_url"],
            }
        ],
        "profile": decision.wanted["gpufleet_environment"] == "profile",
    }


def _torch_line(chosen: list[Row]) -> str:
    """The major version of torch's own cuDNN: software built beside torch fits it best."""
    own = next((choice["build"]["cudnn"] for choice in chosen if choice["build"]["cudnn"]), None)
    return str(key(own)[0]) if own else "9"


def _no_cudnn(decision: Decision, wish: str, rows: list[Row]) -> Row:
    known = ", ".join(row["version"] for row in rows) or "none"
    if wish == "auto":
        decision.warn(
            "GF-CUDNN-SKIPPED", f"no cuDNN is installed: the catalog has {known} for x86_64; torch brings its own"
        )
    else:
        decision.conflict(
            "GF-CUDNN-UNAVAILABLE",
            f"cuDNN {wish} is not to be had for {decision.platform}",
            [f"the catalog has {known} for x86_64"],
            ["cudnn_version: auto", "cudnn_version: none"],
        )
    return nothing("no fitting cuDNN", **NO_CUDNN)
