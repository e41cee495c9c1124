#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_swap
short_description: Loads the installed NVIDIA driver in place of the loaded one
description:
  - Spares a reboot after an upgrade, where nobody uses the GPUs. Stops the driver's services that run, unloads the old
    modules, loads the new ones and starts the same services again.
  - Where that is not possible, nothing is ended and nothing is forced; RV(reboot_needed) says so and RV(reason) why.
    Reasons that show beforehand are found before a service is stopped. They are a process on a GPU, a desktop or console
    on the driver, a module of another maker that builds on it, MIG instances, or a module that this kernel would refuse.
  - nouveau and nova_core are unloaded only where nothing uses them, the console included.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
    details: Tells what is foreseeable; RV(swapped) is then what would be.
  diff_mode:
    support: full
options:
  version:
    description: The version that shall be loaded, the installed one.
    type: str
    required: true
  persistence:
    description: Whether the loaded driver was told to stay initialised (C(nvidia-smi -pm 1)). Where no daemon does that it is said again.
    type: bool
    default: false
  sysroot:
    description: The node's root. Another directory than V(/) stands for the kernel's files in tests.
    type: path
    default: /
seealso:
  - module: gpufleet.stack.driver_check
  - module: gpufleet.stack.gpu_idle
"""

EXAMPLES = r"""
- name: Prove the driver
  gpufleet.stack.driver_check:
  register: driver

- name: Load it without a reboot, where that is possible
  gpufleet.stack.driver_swap:
    version: "{{ driver.version }}"
"""

RETURN = r"""
swapped:
  description: Whether the driver was swapped just now.
  returned: always
  type: bool
  sample: true
loaded:
  description: Version of the loaded driver, null where none is loaded.
  returned: always
  type: str
  sample: 535.309.01
stopped:
  description: Services that were stopped.
  returned: always
  type: list
  elements: str
  sample: [nvidia-persistenced.service]
started:
  description: Of these the services that run again.
  returned: always
  type: list
  elements: str
  sample: [nvidia-persistenced.service]
unloaded:
  description: Kernel modules that were unloaded, in that order.
  returned: always
  type: list
  elements: str
  sample: [nvidia_uvm, nvidia_drm, nvidia_modeset, nvidia]
reboot_needed:
  description: Whether the wanted driver only works after a reboot.
  returned: always
  type: bool
  sample: false
reason:
  description: Why it could not be swapped, or null.
  returned: always
  type: str
  sample: a display manager or the console holds nvidia_drm
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_swap
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "persistence": {"type": "bool", "default": False},
            "sysroot": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    run = commands.runner(module)
    wanted = module.params["version"]
    swap = driver_swap.Swap(wanted, run, module.params["sysroot"], persistence=module.params["persistence"])
    before = swap.loaded()

    def result(swapped: bool, reason: str | None) -> dict[str, object]:
        after = wanted if swapped else swap.loaded()
        return {
            "swapped": swapped,
            "loaded": after,
            "stopped": swap.stopped,
            "started": swap.started,
            "unloaded": swap.unloaded,
            "reboot_needed": after != wanted,
            "reason": reason,
            "changed": swapped or bool(swap.stopped or swap.unloaded),
            "diff": {"before": f"loaded driver: {before}\n", "after": f"loaded driver: {after}\n"},
        }

    if before == wanted:
        module.exit_json(**result(False, None))
    if module.check_mode:
        reason = swap.obstacle()
        module.exit_json(**result(reason is None, reason))
    try:
        reason = swap.swap()
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict(), **result(swap.loaded() == wanted, error.message))
    if swap.forgotten:
        module.warn(swap.forgotten)
    module.exit_json(**result(reason is None, reason))


if __name__ == "__main__":
    main()
