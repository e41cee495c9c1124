#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pytorch_commands
short_description: Writes gpufleet-python and Jupyter's kernel specifications
description:
  - Writes C(/usr/local/bin/gpufleet-python), which runs the Python of the environment that E(GPUFLEET_ENVIRONMENT) names,
    V(default) without it. The link C(current) is followed once, so that an upgrade changes nothing under a job that runs.
  - With O(kernels) also C(/usr/local/share/jupyter/kernels/gpufleet-<name>/kernel.json) for each environment.
  - Kernel specifications of this collection that are no longer wanted are removed; others are left alone.
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
  environments:
    description: The environments of the node, and the version of torch of each, which its kernel is shown with.
    type: dict
    required: true
  kernels:
    description: Whether Jupyter is to find the environments.
    type: bool
    default: false
  prefix:
    description: Directory in which everything of the collection lives.
    type: path
    default: /opt/gpufleet
  root:
    description: Root of the file system that is meant.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Let users call the environments
  gpufleet.stack.pytorch_commands:
    environments:
      default: 2.0.1+cu117
    kernels: true
"""

RETURN = r"""
files:
  description: Files that were written, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/gpufleet-python]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-RIGHTS", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_commands import apply
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            environments={"type": "dict", "required": True},
            kernels={"type": "bool", "default": False},
            prefix={"type": "path", "default": "/opt/gpufleet"},
            root={"type": "path", "default": "/"},
        ),
        supports_check_mode=True,
    )
    versions = {str(name): str(version) for name, version in module.params["environments"].items()}
    try:
        kernels = versions if module.params["kernels"] else {}
        changes = apply(module.params["prefix"], kernels, module.params["root"], module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=bool(changes.diff), files=changes.files, diff=changes.diff)


if __name__ == "__main__":
    main()
