# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles can carry out today of what the resolver can choose. Private to the collection.

The resolver decides what fits; this file is the honest list of what nobody has built yet, and gets shorter with time.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.cudnn import NO_CUDNN
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import nothing
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.toolkit import NO_TOOLKIT

Row = dict[str, Any]
TRIED = ("Debian",)
LINUX_PACKAGE_MANAGERS = ("apt", "dnf")


def check(plan: Row, facts: Row, wanted: Row) -> None:
    """Refuse what was asked for and can't be carried out; leave out, with a note, what nobody asked for."""
    if not plan["ok"]:
        return
    node = facts["node"]
    if node.get("package_manager") not in LINUX_PACKAGE_MANAGERS:
        _refuse(plan, f"provisioning {node['distribution']} {node['version']}", "its package manager is not served", [])
        return
    if node["distribution"] not in TRIED:
        plan["warnings"].append(
            {
                "code": "GF-UNTRIED",
                "message": f"Python and PyTorch were never installed on {node['distribution']} by our tests",
            }
        )
    _check_switches(plan, wanted)
    _check_driver(plan, node, facts["gpu"]["driver"])
    _check_toolkit(plan, node, wanted)


def _check_switches(plan: Row, wanted: Row) -> None:
    if wanted.get("gpufleet_environment") == "modules":
        _refuse(plan, "gpufleet_environment: modules", "no role writes modulefiles, so far", ["use profile or none"])


def _check_driver(plan: Row, node: Row, there: Row) -> None:
    stage = plan["stages"]["nvidia_driver"]
    if not stage["wanted"]:
        return
    if there["installed_version"] and there["source"] != "distro":
        # Two sources on one node get into each other's way: the former one has to be removed first.
        _refuse(
            plan,
            f"replacing driver {there['installed_version']} by {stage['version']} ({stage['source']})",
            f"the one that is there came from {there['source'] or 'an unknown source'}, and the role removes none so far",
            ["remove it yourself first, or leave it: nvidia_driver_version: auto and nvidia_driver_source: auto"],
        )
        return
    if stage["source"] == "distro" and node["distribution"] in TRIED:
        return
    names = ", ".join(stage["packages"]) or f"NVIDIA's installer {stage['version']}"
    _refuse(
        plan,
        f"installing the driver {stage['version']} ({stage['source']}) on {node['distribution']}",
        "the driver role installs from Debian's archive only, so far",
        [f"install it yourself ({names}); a driver that is there is taken as it is"],
    )


def _check_toolkit(plan: Row, node: Row, wanted: Row) -> None:
    stages = plan["stages"]
    stage = stages["cuda_toolkit"]
    own = node["distribution"] in TRIED
    served = all(each["source"] == "wheels" or (own and each["source"] == "distro") for each in stage["toolkits"])
    if not stage["wanted"] or served:
        return
    version = stage["default"]
    if wanted.get("cuda_toolkit_version", "auto") != "auto":
        _refuse(
            plan,
            f"installing CUDA toolkit {version} from NVIDIA's repository",
            "the toolkit role installs from Debian's archive only, so far",
            ["cuda_toolkit_source: wheels (CUDA 13 on), or cuda_toolkit_version: none; torch does not need a toolkit"],
        )
        return
    stages["cuda_toolkit"] = nothing(f"CUDA toolkit {version} would come from NVIDIA's repository", **NO_TOOLKIT)
    message = (
        f"no CUDA toolkit is installed: {version} would come from NVIDIA's repository, which the role does not use yet; "
        "torch does not need it"
    )
    plan["warnings"].append({"code": "GF-TOOLKIT-SKIPPED", "message": message})
    if wanted.get("cudnn_version", "auto") == "auto":
        stages["cudnn"] = nothing(
            "there is no CUDA toolkit that it would stand beside; torch brings its own", **NO_CUDNN
        )


def _refuse(plan: Row, what: str, why: str, advice: list[str]) -> None:
    plan["ok"] = False
    plan["conflicts"].append(
        {
            "code": "GF-NOT-YET",
            "message": f"{what} is not possible yet",
            "because": [why],
            "fixes": [],
            "advice": advice,
        }
    )
