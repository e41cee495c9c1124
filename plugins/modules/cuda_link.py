#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_link
short_description: Points the default CUDA link at a toolkit
description:
  - Sets a link such as C(/usr/local/cuda) in one step. A directory, or a link to a toolkit of somebody else, is never
    touched.
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
  path:
    description: The link.
    type: path
    default: /usr/local/cuda
  target:
    description: The toolkit's versioned directory. A link that leads to a neighbour of it may be changed.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Make CUDA 11.8 the default
  gpufleet.stack.cuda_link:
    target: /opt/gpufleet/cuda/11.8
"""

RETURN = r"""
path:
  description: The link.
  returned: always
  type: str
  sample: /usr/local/cuda
former:
  description: Where the link led before; null where there was none.
  returned: success
  type: str
  sample: /opt/gpufleet/cuda/11.7
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_layout, trees
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local/cuda"},
            "target": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path, target = module.params["path"], module.params["target"]
    try:
        former = cuda_layout.check_link(path, os.path.dirname(target))
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    if former != target and not module.check_mode:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            trees.switch_link(path, target)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be set: {error}")
    before = f"{path} -> {former}\n" if former else ""
    module.exit_json(
        changed=former != target, path=path, former=former, diff={"before": before, "after": f"{path} -> {target}\n"}
    )


if __name__ == "__main__":
    main()
