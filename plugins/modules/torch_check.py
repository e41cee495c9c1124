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
    C(<state_dir>/verdict.json), atomically.
  - Does not fail when a check does; C(verdict.ok) says whether one did, and the verdict is written in any case.
  - The script gets an environment of its own - a fixed locale, O(ld_library_path) and none of the caller's variables -
    and an empty working directory.
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
    description: The check script on the node.
    type: path
    required: true
  gpus:
    description: Number of GPUs that torch must see.
    type: int
    required: true
  compute_capabilities:
    description: Compute capabilities of the planned GPUs, in any order.
    type: list
    elements: str
    default: []
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
    description: Seconds after which the checks of one environment are ended.
    type: int
    default: 300
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
    script: /opt/gpufleet/libexec/gpufleet_verify.py
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
    schema: 1
    ok: true
    at: "2026-03-02T10:11:12Z"
    plan_digest: 5f2c
    host: node1
    seconds: 9.1
    environments:
      - name: default
        ok: true
        checks:
          - name: torch_version
            status: passed
            measured: 2.0.1+cu117
            expected: 2.0.1+cu117
            seconds: 0.0
            message: ""
path:
  description: Where the verdict lies on the node.
  returned: always
  type: str
  sample: /var/lib/gpufleet/verdict.json
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import verdict
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

ENVIRONMENT = {
    "name": {"type": "str", "required": True},
    "interpreter": {"type": "str", "required": True},
    "torch_version": {"type": "str", "required": True},
    "cuda": {"type": "str"},
    "cudnn": {"type": "str"},
    "torchvision": {"type": "str"},
    "torchaudio": {"type": "str"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "environments": {"type": "list", "elements": "dict", "required": True, "options": ENVIRONMENT},
            "script": {"type": "path", "required": True},
            "gpus": {"type": "int", "required": True},
            "compute_capabilities": {"type": "list", "elements": "str", "default": []},
            "gpu_checks": {"type": "str", "choices": ["run", "skip"], "default": "run"},
            "gpu_skip_reason": {"type": "str"},
            "driver_pending": {"type": "bool", "default": False},
            "seed": {"type": "int", "default": 0},
            "plan_digest": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/gpufleet"},
            "timeout": {"type": "int", "default": 300},
            "ld_library_path": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = verdict.verdict_path(params["state_dir"])
    if module.check_mode:
        names = ", ".join(environment["name"] for environment in params["environments"])
        module.exit_json(changed=False, verdict=None, path=path, msg=f"would verify: {names}")
    try:
        found = verdict.make_verdict(
            params["environments"],
            {key: params[key] for key in verdict.EXPECTED_OF_NODE},
            params["script"],
            params["timeout"],
            plan_digest=params["plan_digest"],
            ld_library_path=params["ld_library_path"],
        )
        changed = verdict.outcome(verdict.read(path)) != verdict.outcome(found)
        verdict.write(path, found)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=changed, verdict=found, path=path)


if __name__ == "__main__":
    main()
