#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pytorch_switch
short_description: Lets PyTorch environments that are on the node be the active ones
description:
  - Lets each link C(current) lead to its environment by one rename, without building or downloading anything.
  - Switches all or none. An environment that is not there, was never finished or whose Python does not start leaves
    everything as it was.
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
  links:
    description: The link C(current) of each environment, and the directory that it is to lead to.
    type: dict
    required: true
  lock_wait:
    description: Seconds to wait for another run that works on one of the environments.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Go back to an environment
  gpufleet.stack.pytorch_switch:
    links:
      /opt/gpufleet/envs/default/current: /opt/gpufleet/envs/default/2.0.1-cu117-py311-0a1b2c3d
"""

RETURN = r"""
switched:
  description: The links that were changed, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [/opt/gpufleet/envs/default/current]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-ENVIRONMENT-MISSING", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_back
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            links={"type": "dict", "required": True},
            lock_wait={"type": "float", "default": 60},
        ),
        supports_check_mode=True,
    )
    wait = module.params["lock_wait"]
    steps = [environment_back.Step(str(path), str(link), wait) for link, path in module.params["links"].items()]
    try:
        switched = environment_back.switch_all(steps, check_mode=module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    diff = [
        {"before_header": step.link, "after_header": step.link, "before": before + "\n", "after": step.path + "\n"}
        for step, before in switched
    ]
    module.exit_json(changed=bool(switched), switched=[step.link for step, _before in switched], diff=diff)


if __name__ == "__main__":
    main()
