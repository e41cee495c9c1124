# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verify role must find on the node. Private to the collection."""

from __future__ import annotations

import calendar
import time
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row

# A verdict of one serves wherever one before it is wanted.
LEVELS = ("quick", "standard", "health")
HOUR = 3600
# Clocks of nodes and controller differ; a verdict from further ahead was made while a clock was wrong.
AHEAD_HOURS = 24


def plan(decision: Decision, stages: dict[str, Row]) -> Row:
    """The stage: versions, number of GPUs, and whether the GPU checks can run."""
    gpu = decision.facts["gpu"]
    has_driver = stages["nvidia_driver"]["wanted"] or bool(
        gpu["driver"]["installed_version"] or gpu["driver"]["loaded_version"]
    )
    environments = stages["pytorch"]["environments"]
    cuda = any(environment["cuda"] for environment in environments)
    seen = _seen_by_cuda(decision) if has_driver and cuda else []
    gpus = len(seen)
    skip = _skip_reason(decision, gpus)
    return {
        "wanted": True,
        "why": [
            f"torch must find {gpus} GPU{'' if gpus == 1 else 's'}"
            + (f"; GPU checks are skipped: {skip}" if skip else "")
        ],
        "environments": [
            {
                "name": environment["name"],
                "interpreter": f"{environment['link']}/bin/python",
                "torch_version": environment["torch_version"],
                "cuda": environment["cuda"],
                "cudnn": environment["cudnn"],
                "torchvision": environment["torchvision"],
                "torchaudio": environment["torchaudio"],
            }
            for environment in environments
        ],
        "gpus": gpus,
        "compute_capabilities": [device["compute_capability"] for device in seen],
        "gpu_checks": "skip" if skip else "run",
        "gpu_skip_reason": skip,
        "driver_pending": bool(gpus) and not skip and _pending(gpu),
        "seed": decision.wanted["verify_seed"],
        "user": decision.wanted["verify_user"],
        "prometheus_dir": decision.wanted["verify_prometheus_dir"],
        # These say when a verdict does, not what is proved: no part of the digest.
        "level": _level(decision.wanted["verify_level"]),
        "max_age": decision.wanted["verify_max_age"],
        "busy": decision.wanted["verify_busy"],
        "launcher": decision.wanted["verify_launcher"],
        # What names a GPU before there is a driver is a table of ours.
        "devices": [
            {"name": device["name"], "memory_mib": device["memory_mib"]}
            for device in seen
            if device.get("detected_by") == "nvml"
        ],
        "toolkit": _toolkit(stages["cuda_toolkit"]),
    }


def _seen_by_cuda(decision: Decision) -> list[Row]:
    """The devices that one process sees: with MIG on anywhere, CUDA shows it a single instance and nothing else."""
    divided = [device for device in decision.devices if device["mig"].get("instances")]
    return divided[:1] or [device for device in decision.devices if not device["mig"].get("enabled")]


def _skip_reason(decision: Decision, gpus: int) -> str | None:
    sysroot = decision.wanted["gpufleet_gpu_sysroot"]
    if sysroot != "/":
        return f"the GPU facts were read from the recorded node {sysroot}, so there is no GPU here to compute on"
    if not decision.devices:
        return "the node has no NVIDIA GPU"
    if not gpus:
        return "the plan leaves the GPUs unused: no driver, or a CPU build of torch"
    return None


def _toolkit(stage: Row) -> str | None:
    """Where the toolkit lies that users build with, if one is planned."""
    return next((each["path"] for each in stage.get("toolkits", []) if each["version"] == stage["default"]), None)


def _pending(gpu: Row) -> bool:
    """Whether the driver that the plan counts on is not in the running kernel yet."""
    return gpu["driver"]["loaded_version"] is None or bool(gpu["reboot_needed"])


def _level(wanted: str) -> str:
    """How much of this node itself: ``fleet`` is about all nodes together."""
    return wanted if wanted in LEVELS else LEVELS[0]


def freshen(stage: Row, verdict: Row | None, busy: list[Row], now: float) -> Row | None:
    """Bring back a stage whose receipt holds, where the last verdict is of too low a level or too old.

    :param busy: the processes that use a GPU of the node.
    :param now: seconds since 1970.
    :returns: the warning that says that a repetition was left for the next run.
    """
    if stage["needed"] or not stage["wanted"] or verdict is None:
        return None
    # Before schema 2 there was one level.
    level = verdict.get("level", LEVELS[0])
    if level not in LEVELS or LEVELS.index(level) < LEVELS.index(stage["level"]):
        stage.update(needed=True, because=f"the last verdict is of level {level}, and {stage['level']} is wanted")
        return None
    old = _too_old(verdict.get("at"), stage["max_age"], now)
    if old is None:
        return None
    # Slurm gives a job GPUs that nobody has.
    if busy and stage["gpu_checks"] == "run" and not stage["busy"] and stage["launcher"] == "direct":
        process = f"{busy[0]['name'] or 'a process'} ({busy[0]['pid']})"
        return {
            "code": "GF-VERIFY-LATER",
            "message": f"{old}; verify is left for a later run, since {process} uses a GPU",
        }
    stage.update(needed=True, because=old)
    return None


def _too_old(at: Any, hours: float, now: float) -> str | None:
    """Why a verdict of that time is repeated; None where it still serves. 0 hours: it is never too old."""
    if not hours:
        return None
    try:
        age = (now - calendar.timegm(time.strptime(at, "%Y-%m-%dT%H:%M:%SZ"))) / HOUR
    except (TypeError, ValueError):
        return "the last verdict does not say when it was made"
    if age < -AHEAD_HOURS:
        return f"the last verdict was made in the future ({at})"
    return f"the last verdict is {age:.0f} hours old (verify_max_age: {hours:g})" if age > hours else None
