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
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.former import SOURCES
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.toolkit import NO_TOOLKIT

Row = dict[str, Any]
TRIED = ("Debian",)
# Where NVIDIA's repository and installer were tried, by package manager; what stood in for what is in docs/support.md.
VENDOR_TRIED = {"dnf": ("RedHat", "Rocky", "AlmaLinux")}
# Whose own drivers and toolkits the roles install; on Ubuntu a stand-in was tried (docs/support.md).
ARCHIVES = ("Debian", "Ubuntu")
LINUX_PACKAGE_MANAGERS = ("apt", "dnf")


def check(plan: Row, facts: Row, wanted: Row) -> None:
    """Refuse what was asked for and can't be carried out; leave out, with a note, what nobody asked for."""
    if not plan["ok"]:
        return
    node = facts["node"]
    if wanted.get("python_provider") == "conda":
        why = "neither conda-forge nor micromamba could be reached where the role python is made and tested"
        _refuse(
            plan, "a Python of conda-forge", why, ["python_provider: managed, which brings any CPython from 3.8 on"]
        )
        return
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
    _check_driver(plan, node, facts["gpu"]["driver"])
    _check_toolkit(plan, node, wanted)
    _check_cudnn(plan, node)


def _check_driver(plan: Row, node: Row, there: Row) -> None:
    stage = plan["stages"]["nvidia_driver"]
    if not stage["wanted"]:
        return
    reason = _former_stays(stage, node, there)
    if reason is not None:
        _refuse(
            plan,
            f"replacing driver {there['installed_version']} by {stage['version']} ({stage['source']})",
            reason,
            ["remove it yourself first, or leave it: nvidia_driver_version: auto and nvidia_driver_source: auto"],
        )
        return
    reason = _driver_lacks(stage, node)
    if reason is None:
        return
    advice = []
    if stage["source"] == "distro" and node["package_manager"] == "apt":
        advice.append("take NVIDIA's own packages: nvidia_driver_source: nvidia")
    names = ", ".join(stage["packages"])
    _refuse(
        plan,
        f"installing the driver {stage['version']} ({stage['source']}) on {node['distribution']}",
        reason,
        [*advice, f"install it yourself ({names}); a driver that is there is taken as it is"],
    )


def _former_stays(stage: Row, node: Row, there: Row) -> str | None:
    """Why the role can't take the driver away that has to go first, or None where it can or where nothing has to go."""
    former = stage["replaces"]
    if former is None:
        if there["installed_version"] and there["source"] != stage["source"]:
            return (
                f"nobody knows where driver {there['installed_version']} came from, so nobody knows what belongs to it"
            )
        return None
    if former["source"] not in SOURCES:
        return f"it came from {former['source']}, and the role does not know how to take that away"
    if node["package_manager"] == "dnf" and former["source"] == "distro":
        return "with dnf the role knows how to take NVIDIA's packages and installers away, and no others"
    return None


def _driver_lacks(stage: Row, node: Row) -> str | None:
    """Why the role can't install this driver, or None where it can."""
    if stage["source"] == "runfile":
        return _untried(node, "NVIDIA's installer was")
    if stage["source"] == "distro":
        return _archive_lacks(node)
    return _repository_lacks(stage["repository"], node)


def _archive_lacks(node: Row) -> str | None:
    if node["distribution"] in ARCHIVES:
        return None
    return f"of the distributions' own archives the role knows those of {' and '.join(ARCHIVES)}"


def _repository_lacks(repository: Row, node: Row) -> str | None:
    untried = _untried(node, "packages of NVIDIA's repository were")
    if untried is not None:
        return untried
    if repository["fingerprint"] is None:
        return (
            f"no document names the key of NVIDIA's repository {repository['name']}; "
            "add its row with gpufleet_catalog_overlay once you have checked it"
        )
    return None


def _untried(node: Row, what: str) -> str | None:
    tried = VENDOR_TRIED.get(node["package_manager"], (node["distribution"],))
    if node["distribution"] in tried:
        return None
    return f"{what} tried with {node['package_manager']} on {', '.join(tried)} only, so far"


def _check_toolkit(plan: Row, node: Row, wanted: Row) -> None:
    stages = plan["stages"]
    stage = stages["cuda_toolkit"]
    lacking = [_toolkit_lacks(each, node) for each in stage["toolkits"]]
    reason = next((each for each in lacking if each), None)
    if not stage["wanted"] or reason is None:
        return
    version = stage["default"]
    if wanted.get("cuda_toolkit_version", "auto") != "auto":
        _refuse(
            plan,
            f"installing CUDA toolkit {version} from {stage['toolkits'][0]['source']}",
            reason,
            ["cuda_toolkit_source: wheels (CUDA 13 on), or cuda_toolkit_version: none; torch does not need a toolkit"],
        )
        return
    stages["cuda_toolkit"] = nothing(f"CUDA toolkit {version} can't be installed: {reason}", **NO_TOOLKIT)
    message = f"no CUDA toolkit is installed: {reason} (it would be {version}); torch does not need it"
    plan["warnings"].append({"code": "GF-TOOLKIT-SKIPPED", "message": message})
    if wanted.get("cudnn_version", "auto") == "auto":
        stages["cudnn"] = nothing(
            "there is no CUDA toolkit that it would stand beside; torch brings its own", **NO_CUDNN
        )


def _check_cudnn(plan: Row, node: Row) -> None:
    for each in plan["stages"]["cudnn"]["cudnns"]:
        if each["source"] != "nvidia":
            continue
        reason = _repository_lacks(each["repository"], node)
        if reason is not None:
            _refuse(
                plan, f"installing cuDNN {each['version']} from NVIDIA's packages", reason, ["cudnn_source: wheels"]
            )
            return


def _toolkit_lacks(toolkit: Row, node: Row) -> str | None:
    """Why the role can't install this toolkit, or None where it can."""
    if toolkit["source"] in ("wheels", "runfile"):
        return None
    if toolkit["source"] == "distro":
        return _archive_lacks(node)
    return _repository_lacks(toolkit["repository"], node)


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
