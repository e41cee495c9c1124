#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: torch_check
short_description: Proves that the PyTorch environments of a node compute what they should
description:
  - Runs a check script with the Python of each environment, and writes what it found as the verdict of the node,
    C(<state_dir>/verdict.json), atomically. The last O(keep) verdicts stay in C(<state_dir>/verdicts).
  - Does not fail when a check does; C(verdict.ok) says whether one did, and the verdict is written in any case.
  - The script gets an environment of its own - a fixed locale, O(ld_library_path) and none of the caller's variables -
    and an empty working directory.
  - Puts the program C(gpufleet-verify) into C(<prefix>/bin), which tells whether the node is proved, and where
    O(prometheus_dir) is given a file for Prometheus' node exporter.
  - Does not compute on a GPU that a process uses, unless O(busy) says so.
  - A script that hangs is ended after O(timeout) seconds, with the processes that it started and no others.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: partial
    details:
      - Runs nothing and returns no verdict, since the environments of a bare node are not there in a dry run.
  diff_mode:
    support: none
options:
  environments:
    description: The environments to check.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the environment.
        type: str
        required: true
      interpreter:
        description: Its Python. A symbolic link is not followed, so that the environment is recognized.
        type: str
        required: true
      torch_version:
        description: What C(torch.__version__) must be, to the letter.
        type: str
        required: true
      cuda:
        description: What C(torch.version.cuda) must be. Left out or null means a torch without CUDA.
        type: str
      cudnn:
        description: What the version of cuDNN must begin with. Left out or null means that it is only reported.
        type: str
      torchvision:
        description: Release of torchvision. Left out or null means any, or none.
        type: str
      torchaudio:
        description: Release of torchaudio. Left out or null means any, or none.
        type: str
  script:
    description: Where the check script lies on the node. It is written there, one archive that the environments' Pythons run.
    type: path
    required: true
  level:
    description:
      - How much is checked. V(quick) computes and trains on every device, V(standard) also compiles, loads and saves,
        V(health) also measures the GPUs under load.
    type: str
    choices: [quick, standard, health]
    default: quick
  user:
    description: User of the node that the script runs as. Empty is the one that runs this module.
    type: str
    default: ""
  launcher:
    description:
      - How the script is run. V(srun) has Slurm run it as a job of one task on this node, where GPUs are hidden from SSH
        sessions; whether a process uses them is then Slurm's to know.
    type: str
    choices: [direct, srun]
    default: direct
  srun_account:
    description: With O(launcher=srun), the account that is charged. Empty is the user's own.
    type: str
    default: ""
  srun_partition:
    description: With O(launcher=srun), the partition. Empty is Slurm's default.
    type: str
    default: ""
  srun_gres:
    description: With O(launcher=srun), the generic resources. V(auto) is C(gpu:N) for as many GPUs as are checked, and none without.
    type: str
    default: auto
  srun_options:
    description: With O(launcher=srun), further options of srun. They come last, and so win.
    type: list
    elements: str
    default: []
  srun_wait:
    description: With O(launcher=srun), seconds that the job may be queued.
    type: float
    default: 600
  busy:
    description: Whether to compute on GPUs that a process uses too.
    type: bool
    default: false
  keep:
    description: Number of verdicts that stay, the new one among them.
    type: int
    default: 20
  prefix:
    description: Directory in which everything of the collection lives.
    type: path
    default: /opt/gpufleet
  max_age:
    description: Hours after which the verdict does not do any longer for C(gpufleet-verify). V(0) is never for its age.
    type: float
    default: 0
  prometheus_dir:
    description: Directory from which Prometheus' node exporter collects text files. Empty writes none.
    type: str
    default: ""
  gpus:
    description: Number of GPUs that torch must see.
    type: int
    required: true
  compute_capabilities:
    description: Compute capabilities of the planned GPUs, in any order.
    type: list
    elements: str
    default: []
  devices:
    description:
      - Names and memory of the GPUs, in any order. One without a name is not compared.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name, as NVIDIA's management library has it.
        type: str
      memory_mib:
        description: Memory in MiB.
        type: int
  toolkit:
    description: Directory of the CUDA toolkit that users build with, for O(level=standard) and above. Left out means none.
    type: path
  soak_seconds:
    description: With O(level=health), seconds that the work is repeated on the CPU and on each GPU.
    type: int
    default: 60
  gpu_checks:
    description: Whether the checks on GPUs are run.
    type: str
    choices: [run, skip]
    default: run
  gpu_skip_reason:
    description: Why the checks on GPUs are skipped.
    type: str
  driver_pending:
    description: Whether the planned driver is installed but not loaded. Checks on GPUs then fail and ask for a reboot.
    type: bool
    default: false
  seed:
    description: Seed of the training.
    type: int
    default: 0
  plan_digest:
    description: Digest of the stage of the plan that is verified.
    type: str
    required: true
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
  timeout:
    description: Seconds after which the checks of one environment are ended. V(0) is 300 for O(level=quick), else 1800.
    type: int
    default: 0
  ld_library_path:
    description:
      - Directories for E(LD_LIBRARY_PATH), as a user's shell may have them. Those that are not there are left out.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: Verify one environment on a node without a GPU
  gpufleet.stack.torch_check:
    environments:
      - name: default
        interpreter: /opt/gpufleet/envs/default/current/bin/python
        torch_version: 2.0.1+cpu
    script: /opt/gpufleet/libexec/gpufleet_verify.pyz
    gpus: 0
    gpu_checks: skip
    gpu_skip_reason: this node has no NVIDIA GPU
    plan_digest: "{{ gpufleet_plan.stages.verify.digest }}"
  register: __result

- name: Show what failed
  ansible.builtin.debug:
    msg: "{{ __result.verdict | gpufleet.stack.verdict_failures }}"
"""

RETURN = r"""
verdict:
  description: The verdict as written. Null in check mode.
  returned: always
  type: dict
  sample:
    schema: 2
    ok: true
    at: "2026-03-02T10:11:12Z"
    plan_digest: 5f2c
    host: node1
    level: quick
    user: root
    driver: 535.261.03
    gpus: 1
    seconds: 9.1
    performance:
      - environment: default
        metric: gpu_memory_bandwidth
        unit: GiB/s
        better: higher
        device: 0
        value: 1402.6
    history:
      - at: "2026-03-01T10:11:12Z"
        ok: true
        level: quick
        driver: 535.261.03
        torch: 2.0.1+cu117
        performance: []
    environments:
      - name: default
        torch_version: 2.0.1+cu117
        interpreter: /opt/gpufleet/envs/default/current/bin/python
        python: 3.11.2
        ok: true
        checks:
          - name: torch_version
            status: passed
            measured: 2.0.1+cu117
            expected: 2.0.1+cu117
            seconds: 0.0
            message: ""
files:
  description: What was written besides, for a receipt.
  returned: always
  type: list
  elements: str
  sample: [/opt/gpufleet/bin/gpufleet-verify]
path:
  description: Where the verdict lies on the node.
  returned: always
  type: str
  sample: /var/lib/gpufleet/verdict.json
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    gpu,
    gpu_holders,
    script_archive,
    verdict,
    verdict_store,
    verify_account,
    verify_busy,
    verify_health,
    verify_install,
    verify_prometheus,
    verify_srun,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import main as check_script

ENVIRONMENT = {
    "name": {"type": "str", "required": True},
    "interpreter": {"type": "str", "required": True},
    "torch_version": {"type": "str", "required": True},
    "cuda": {"type": "str"},
    "cudnn": {"type": "str"},
    "torchvision": {"type": "str"},
    "torchaudio": {"type": "str"},
}


# Compiling takes its time on a slow disk; the soak comes on top.
SECONDS = {"quick": 300, "standard": 1800, "health": 1800}
DEVICE = {"name": {"type": "str"}, "memory_mib": {"type": "int"}}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "environments": {"type": "list", "elements": "dict", "required": True, "options": ENVIRONMENT},
            "script": {"type": "path", "required": True},
            "level": {"type": "str", "choices": list(verdict.LEVELS), "default": "quick"},
            "user": {"type": "str", "default": ""},
            "launcher": {"type": "str", "choices": ["direct", "srun"], "default": "direct"},
            "srun_account": {"type": "str", "default": ""},
            "srun_partition": {"type": "str", "default": ""},
            "srun_gres": {"type": "str", "default": "auto"},
            "srun_options": {"type": "list", "elements": "str", "default": []},
            "srun_wait": {"type": "float", "default": 600},
            "busy": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": verdict_store.KEPT},
            "prefix": {"type": "path", "default": "/opt/gpufleet"},
            "max_age": {"type": "float", "default": 0},
            "prometheus_dir": {"type": "str", "default": ""},
            "gpus": {"type": "int", "required": True},
            "compute_capabilities": {"type": "list", "elements": "str", "default": []},
            "devices": {"type": "list", "elements": "dict", "default": [], "options": DEVICE},
            "toolkit": {"type": "path"},
            "soak_seconds": {"type": "int", "default": 60},
            "gpu_checks": {"type": "str", "choices": ["run", "skip"], "default": "run"},
            "gpu_skip_reason": {"type": "str"},
            "driver_pending": {"type": "bool", "default": False},
            "seed": {"type": "int", "default": 0},
            "plan_digest": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/gpufleet"},
            "timeout": {"type": "int", "default": 0},
            "ld_library_path": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = verdict_store.verdict_path(params["state_dir"])
    files = left(params)
    if module.check_mode:
        names = ", ".join(environment["name"] for environment in params["environments"])
        module.exit_json(changed=False, verdict=None, path=path, files=files, msg=f"would verify: {names}")
    # Every user asks the program, and some user runs the script: a strict umask of root's would keep them out.
    os.umask(0o022)
    try:
        how = way(params)
        written = script_archive.write(params["script"], check_script)
        found = prove(params, how)
        changed = verdict_store.outcome(verdict_store.read(path)) != verdict_store.outcome(found)
        verdict_store.keep(params["state_dir"], found, max(1, params["keep"]))
        changed = tell(params, how, found) or changed or written
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=changed, verdict=found, path=path, files=files)


def left(params: dict[str, Any]) -> list[str]:
    """What is written besides the verdict."""
    files = [
        params["script"],
        verify_install.command_path(params["prefix"]),
        verify_install.program_path(params["prefix"]),
        verify_install.settings_path(params["state_dir"]),
    ]
    return [*files, verify_prometheus.path(params["prometheus_dir"])] if params["prometheus_dir"] else files


def way(params: dict[str, Any]) -> verdict.How:
    """How the script is run.

    :raises GpufleetError: GF-VERIFY-USER, GF-VERIFY-SRUN-MISSING.
    """
    how = verdict.How(
        script=params["script"],
        level=params["level"],
        timeout=seconds(params),
        ld_library_path=tuple(params["ld_library_path"]),
        account=verify_account.find(params["user"]),
    )
    if params["launcher"] == "direct":
        return how
    wish = verify_srun.Wish(
        account=params["srun_account"],
        partition=params["srun_partition"],
        gres=verify_srun.gres(params["srun_gres"], params["gpus"], params["gpu_checks"]),
        options=tuple(params["srun_options"]),
        wait=params["srun_wait"],
    )
    # Slurm may give each job a /tmp of its own; this directory is the same for all.
    os.makedirs(params["state_dir"], mode=0o755, exist_ok=True)
    return how._replace(runner=verify_srun.Srun(wish), scratch=params["state_dir"])


def seconds(params: dict[str, Any]) -> int:
    """How long the checks of one environment may take."""
    if params["timeout"]:
        return int(params["timeout"])
    soaked = params["soak_seconds"] * (1 + params["gpus"]) if params["level"] == "health" else 0
    return SECONDS[params["level"]] + int(soaked)


def expected(params: dict[str, Any]) -> dict[str, Any]:
    """What of the node the script is told."""
    return {key: params[key] for key in verdict.EXPECTED_OF_NODE}


def prove(params: dict[str, Any], how: verdict.How) -> dict[str, Any]:
    """Run the checks: the verdict with the history of those before it.

    :raises GpufleetError: where they can't be run; what failed is no error.
    """
    ours = params["gpu_checks"] == "run" and params["gpus"] and params["launcher"] == "direct"
    if ours and not params["busy"]:
        verify_busy.require_free(gpu_holders.look())
    found = verdict.make_verdict(params["environments"], expected(params), how, plan_digest=params["plan_digest"])
    if params["level"] == "health" and params["gpu_checks"] == "run":
        found["environments"].append(of_node(verify_health.checks(gpu.collect())))
        found["ok"] = all(each["ok"] for each in found["environments"])
    return {**found, "history": verdict_store.history(params["state_dir"])}


def of_node(checks: list[dict[str, Any]]) -> dict[str, Any]:
    """What belongs to no environment, in the form of one."""
    return {
        "name": "node",
        "torch_version": None,
        "interpreter": None,
        "python": None,
        "ok": not any(check["status"] == "failed" for check in checks),
        "checks": checks,
    }


def tell(params: dict[str, Any], how: verdict.How, found: dict[str, Any]) -> bool:
    """Let the node's own programs know: whether anything but figures is another than before.

    :raises GpufleetError: GF-RIGHTS, GF-VERDICT-WRITE.
    """
    folder = params["prometheus_dir"]
    knows = verify_install.settings(params["environments"], expected(params), how, params["max_age"])
    knows["prometheus"] = verify_prometheus.path(folder) if folder else None
    changes = verify_install.apply(params["prefix"], params["state_dir"], knows)
    if folder:
        verify_prometheus.write(folder, found)
    return bool(changes.diff)


if __name__ == "__main__":
    main()
