# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verify role must find on the node. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row


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


def _pending(gpu: Row) -> bool:
    """Whether the driver that the plan counts on is not in the running kernel yet."""
    return gpu["driver"]["loaded_version"] is None or bool(gpu["reboot_needed"])
