#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_rollback
short_description: Finds what a stage can go back to
description:
  - Reads the receipt that the stage's present one took the place of, and answers the stage of a plan that brings its state back.
    The role carries that out.
  - For the driver it makes a source of packages from what apt has in its cache, so that nothing of it is downloaded, and
    asks apt whether everything can be had. Nothing is changed where it can not.
  - For PyTorch it compares the former environments, which are still on the node, with what the receipt says of them.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  stage:
    description: The stage that goes back.
    type: str
    choices: [pytorch, nvidia_driver, cuda_toolkit]
    required: true
  state:
    description: V(absent) takes the source of packages away again.
    type: str
    choices: [present, absent]
    default: present
  unfinished:
    description: Go back from work that was begun and failed to what the present receipt says.
    type: bool
    default: false
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
"""

EXAMPLES = r"""
- name: Find the former driver
  gpufleet.stack.stack_rollback:
    stage: nvidia_driver
"""

RETURN = r"""
stage:
  description: The stage for the role.
  returned: with O(state=present)
  type: dict
  sample: {"version": "535", "packages": ["nvidia-driver=535.216.03-1"], "needed": true}
back_to:
  description: What the stage goes back to, in words.
  returned: with O(state=present)
  type: str
  sample: driver 535.216.03-1
cached:
  description: Packages that are taken from apt's cache.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [nvidia-driver, nvidia-kernel-dkms]
automatic:
  description: Packages of the stage that nobody asked for by name, and that came for others' sake.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [nvidia-kernel-dkms]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-ROLLBACK-NOTHING", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, receipts, rollback
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stage": {"type": "str", "choices": sorted(rollback.KEPT, reverse=True), "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "unfinished": {"type": "bool", "default": False},
            "state_dir": {"type": "path", "default": receipts.STATE_DIR},
        },
        supports_check_mode=True,
    )
    if module.params["state"] == "absent":
        module.exit_json(changed=not module.check_mode and rollback.withdraw())
    role, state_dir = module.params["stage"], module.params["state_dir"]
    try:
        way = rollback.find(
            role,
            state_dir,
            commands.runner(module),
            unfinished=module.params["unfinished"],
            dry=module.check_mode,
        )
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=False, **way._asdict())


if __name__ == "__main__":
    main()
