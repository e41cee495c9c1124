#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_former
short_description: Takes a driver from another source away, and brings it back
description:
  - Two drivers from two sources get into each other's way. The one that is there goes as a whole before the wanted one comes,
    be it packages, an installer's, or what a broken installation left.
  - What goes is written down first, so that it can come back where the wanted driver fails. Packages come from the package
    manager's cache as far as it has them, an installer's from the cache of the collection.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  state:
    description:
      - V(absent) takes the driver away.
      - V(present) takes away what came since, and brings the former one back.
      - V(forgotten) ends the matter, once the wanted driver is proved.
    type: str
    choices: [absent, present, forgotten]
    required: true
  packages:
    description: Whether the wanted driver comes as packages. What others need of the former one stays then until it is replaced.
    type: bool
    default: false
  repository:
    description: Whether something of the node still comes from NVIDIA's repository. Its entry goes with the driver otherwise.
    type: bool
    default: true
  spare:
    description: Packages of the wanted driver that are there already.
    type: list
    elements: str
    default: []
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
"""

EXAMPLES = r"""
- name: Take the former driver away
  gpufleet.stack.driver_former:
    state: absent
"""

RETURN = r"""
gone:
  description: What was taken away, in words.
  returned: with O(state=absent)
  type: list
  elements: str
  sample: [package nvidia-kernel-dkms 535.309.01-1]
back:
  description: What was brought back, in words; null where nothing had been taken away.
  returned: with O(state=present)
  type: str
  sample: driver 535.309.01
hold:
  description: Packages of the former driver that were on hold.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [nvidia-driver]
hold_kernel:
  description: Whether the kernel's packages were held with them.
  returned: with O(state=present)
  type: bool
branch:
  description: With dnf, the pattern of versions that the former driver's packages were kept to; empty where there was none.
  returned: with O(state=present)
  type: str
  sample: 580.*
of_branch:
  description: The packages that were kept to it.
  returned: with O(state=present)
  type: list
  elements: str
  sample: [kmod-nvidia-open-dkms, nvidia-driver-cuda]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-SWITCH-LOST", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_former
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import STATE_DIR


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["absent", "present", "forgotten"], "required": True},
            "packages": {"type": "bool", "default": False},
            "repository": {"type": "bool", "default": True},
            "spare": {"type": "list", "elements": "str", "default": []},
            "state_dir": {"type": "path", "default": STATE_DIR},
        },
        supports_check_mode=True,
    )
    state, state_dir = module.params["state"], module.params["state_dir"]
    run = commands.runner(module)
    try:
        if state == "forgotten":
            module.exit_json(changed=not module.check_mode and driver_former.forget(run, state_dir))
        if state == "present":
            back = None if module.check_mode else driver_former.bring_back(run, state_dir)
            held = driver_former.holds(state_dir) if back else driver_former.Holds([], False, "", [])
            module.exit_json(
                changed=back is not None, back=back, hold=held.packages, hold_kernel=held.kernel,
                branch=held.branch, of_branch=held.of_branch,
            )  # fmt: skip
        params = module.params
        coming = driver_former.Coming(params["packages"], params["repository"], frozenset(params["spare"]))
        gone = driver_former.take_away(run, state_dir, coming, dry=module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    diff = {"before": "".join(line + "\n" for line in gone), "after": ""}
    module.exit_json(changed=bool(gone), gone=gone, diff=diff)


if __name__ == "__main__":
    main()
