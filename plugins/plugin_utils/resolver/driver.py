# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver, from where and with which kernel modules. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key

EMPTY: dict[str, Any] = {
    "version": None, "source": None, "flavour": None, "components": [], "packages": [], "blacklist": [],
    "kernel_release": None, "sysroot": "/",
}  # fmt: skip


def plan(decision: Decision) -> tuple[dict[str, Any], str | None]:
    """The stage, and the version (or branch) of the driver that will serve the GPUs afterwards; None without one."""
    gpu, wanted = decision.facts["gpu"], decision.wanted
    installed = gpu["driver"]["installed_version"] or gpu["driver"]["loaded_version"]
    source = gpu["driver"]["source"]
    if not gpu["present"]:
        return nothing("the node has no NVIDIA GPU", **EMPTY), None
    if "none" in (wanted["nvidia_driver_version"], wanted["nvidia_driver_source"]):
        if not installed:
            decision.warn(
                "GF-DRIVER-NONE", "the node has an NVIDIA GPU, but no driver is wanted: PyTorch will use the CPU"
            )
        return nothing(
            "no driver work is wanted (nvidia_driver_version or nvidia_driver_source is none)", **EMPTY
        ), installed
    if gpu["virtualization"] in ("wsl", "container"):
        host = "Windows" if gpu["virtualization"] == "wsl" else "the container's host"
        return nothing(f"the driver belongs to {host}", **EMPTY), installed
    if installed and source != "distro" and wanted["nvidia_driver_version"] == "auto":
        why = f"driver {installed} is there already ({source or 'source unknown'}) and is taken as it is"
        return nothing(why, **EMPTY), installed
    return _from_distribution(decision)


def _from_distribution(decision: Decision) -> tuple[dict[str, Any], str | None]:
    node, wanted = decision.facts["node"], decision.wanted
    row = _distribution_row(decision)
    if row is None:
        return nothing("no driver is known for this distribution", **EMPTY), None
    branch: str = row["branch"]
    if wanted["nvidia_driver_version"] != "auto" and not in_series(wanted["nvidia_driver_version"], branch):
        decision.conflict(
            "GF-DRIVER-VERSION",
            f"driver {wanted['nvidia_driver_version']} is not to be had from {decision.platform}",
            [f"the distribution carries branch {branch} ({decision.source('debian', row)})"],
            [
                f'nvidia_driver_version: "{branch}"',
                "nvidia_driver_version: auto",
                "nvidia_driver_version: none, and install it yourself",
            ],
        )
    _check_branch(decision, branch)
    flavour = _flavour(decision, row)
    packages = row["packages"] if flavour == "proprietary" else row["open_packages"] or []
    deb_architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(node["architecture"], "")
    headers = row["headers"].get(deb_architecture)
    stage = {
        **EMPTY,
        "wanted": True,
        "why": [
            f"branch {branch} from {decision.platform}: it serves {_names(decision)}",
            f"{flavour} kernel modules: " + _flavour_reason(decision, branch, flavour),
        ],
        "version": branch,
        "source": "distro",
        "flavour": flavour,
        "components": row["components"],
        "packages": [headers, *packages] if headers else packages,
        "blacklist": decision.catalog["driver"]["competitors"]["modules"],
        "kernel_release": decision.facts["gpu"]["kernel"]["release"],
        "sysroot": wanted["gpufleet_gpu_sysroot"],
    }
    return stage, branch


def _distribution_row(decision: Decision) -> dict[str, Any] | None:
    node = decision.facts["node"]
    rows = decision.catalog["debian"]["debian"] if node["distribution"] == "Debian" else {}
    row: dict[str, Any] | None = rows.get(node["version"], {}).get("driver")
    if row is None:
        decision.conflict(
            "GF-DRIVER-SOURCE",
            f"no driver source is known for {decision.platform}",
            ["the catalog has driver packages for Debian only"],
            ["nvidia_driver_version: none, and install the driver yourself"],
        )
    return row


def _check_branch(decision: Decision, branch: str) -> None:
    rows = {row["branch"]: row for row in decision.catalog["driver"]["branches"]}
    row = rows[branch]
    unserved = [device for device in decision.devices if device["architecture"] not in (None, *row["architectures"])]
    for device in unserved:
        decision.conflict(
            "GF-DRIVER-UNSUPPORTED-GPU",
            f"driver branch {branch} does not drive {device['name']} ({device['architecture']})",
            [f"branch {branch} drives {', '.join(row['architectures'])} ({decision.source('driver', row)})"],
            _other_branch(rows, device["architecture"]),
        )


def _other_branch(rows: dict[str, Any], architecture: str) -> list[str]:
    serving = [branch for branch, row in rows.items() if architecture in row["architectures"]]
    hint = f"branch {max(serving, key=key)}" if serving else "a newer branch from NVIDIA's repository"
    return [
        f"install {hint} yourself and set nvidia_driver_version: none",
        "take the GPU out of the node's plan: nvidia_driver_version: none",
    ]


def _allowed(decision: Decision) -> dict[str, list[str]]:
    rows = {row["architecture"]: row["allowed"] for row in decision.catalog["driver"]["flavours"]["rows"]}
    found = {device["architecture"] for device in decision.devices if device["architecture"]}
    return {architecture: rows[architecture] for architecture in sorted(found) if architecture in rows}


def _flavour(decision: Decision, row: dict[str, Any]) -> str:
    branch: str = row["branch"]
    allowed = {**_allowed(decision), f"{decision.platform}'s archive": row["flavours"]}
    common = {"open", "proprietary"}.intersection(*map(set, allowed.values()))
    wanted: str = decision.wanted["nvidia_driver_flavour"]
    because = [f"{whose}: {' or '.join(names)} modules" for whose, names in allowed.items()]
    if not common:
        decision.conflict(
            "GF-DRIVER-FLAVOUR",
            "no one driver serves all GPUs of this node",
            because,
            ["move the GPUs to different nodes", "nvidia_driver_version: none"],
        )
        return "proprietary"
    if wanted == "auto":
        newer = at_least(branch, str(decision.catalog["driver"]["flavours"]["open_default_from"]))
        preferred = "open" if newer else "proprietary"
        return preferred if preferred in common else min(common)
    if wanted not in common:
        decision.conflict(
            "GF-DRIVER-FLAVOUR",
            f"the {wanted} kernel modules do not serve the GPUs of this node",
            because,
            [f"nvidia_driver_flavour: {min(common)}", "nvidia_driver_flavour: auto"],
        )
    return wanted


def _flavour_reason(decision: Decision, branch: str, flavour: str) -> str:
    if decision.wanted["nvidia_driver_flavour"] != "auto":
        return "asked for"
    default = decision.catalog["driver"]["flavours"]["open_default_from"]
    if flavour == "proprietary" and not at_least(branch, str(default)):
        return f"the default before branch {default}"
    return "the flavour that serves these GPUs"


def _names(decision: Decision) -> str:
    return ", ".join(sorted({str(device["name"]) for device in decision.devices}))
