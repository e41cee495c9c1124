#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_idle
short_description: Waits until no process uses a GPU
description:
  - Fails with GF-GPU-BUSY while a process uses an NVIDIA GPU, and names each with its user. No process is ever ended.
  - Asks NVML and looks at the open files of all processes (C(/dev/nvidia*), and C(/dev/dri) of NVIDIA's GPUs).
  - The driver's own services, DCGM and C(nvidia-smi) are nobody's work; RV(services) tells which were passed over.
    A process of a user with an id from 1000 on is never taken for a service, whatever it calls itself.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
    details: Does not wait.
  diff_mode:
    support: none
options:
  wait:
    description: Minutes to wait for the processes to end.
    type: float
    default: 0
  sysroot:
    description: Read every file below this directory, which holds a recorded node. V(/) is the node itself.
    type: path
    default: /
seealso:
  - module: gpufleet.stack.driver_swap
"""

EXAMPLES = r"""
- name: Wait for running jobs, an hour at most
  gpufleet.stack.gpu_idle:
    wait: 60
"""

RETURN = r"""
users:
  description: Processes that use a GPU, each with pid, name, user and devices.
  returned: always
  type: list
  elements: dict
  sample:
    - pid: 4711
      name: python
      user: alice
      devices: [/dev/nvidia-uvm, /dev/nvidia0, /dev/nvidiactl]
services:
  description: Processes that hold a GPU and are nobody's work, as in RV(users), each with the reason.
  returned: always
  type: list
  elements: dict
  sample:
    - pid: 812
      name: nvidia-persiste
      user: nvidia-persistenced
      devices: [/dev/nvidia0, /dev/nvidiactl]
      reason: keeps the driver initialised
waited:
  description: Seconds that were waited.
  returned: always
  type: float
  sample: 0.0
errors:
  description: What NVML could not answer, each with code and message. The open files are looked at all the same.
  returned: always
  type: list
  elements: dict
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_holders
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={"wait": {"type": "float", "default": 0}, "sysroot": {"type": "path", "default": "/"}},
        supports_check_mode=True,
    )
    minutes = 0 if module.check_mode else module.params["wait"]
    seen, waited = gpu_holders.wait(minutes, lambda: gpu_holders.look(module.params["sysroot"]))
    result = {
        "users": seen.users,
        "services": seen.services,
        "waited": round(waited, 1),
        "errors": seen.errors,
        "changed": False,
    }
    try:
        gpu_holders.require_idle(seen, waited)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict(), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
