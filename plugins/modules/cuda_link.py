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
  - Where the link leads through C(/etc/alternatives), as NVIDIA's packages leave it, the choice is made there with
    C(update-alternatives), so that package scripts respect it.
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
    description: The toolkit's directory.
    type: path
    required: true
  ours:
    description:
      - Toolkits that the link may lead to now, or directories in which they lie. A link to any other is somebody else's.
      - Where this is left out, the neighbours of O(target).
    type: list
    elements: path
"""

EXAMPLES = r"""
- name: Make CUDA 11.8 the default
  gpufleet.stack.cuda_link:
    target: /opt/gpufleet/cuda/11.8

- name: Go over from the distribution's toolkit to NVIDIA's
  gpufleet.stack.cuda_link:
    target: /usr/local/cuda-12.4
    ours: [/opt/gpufleet/cuda, /usr/local/cuda-12.4]
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
links:
  description: Every link on the way to the toolkit, for a receipt.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/cuda, /etc/alternatives/cuda]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import alternatives, cuda_layout, trees
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/usr/local/cuda"},
            "target": {"type": "path", "required": True},
            "ours": {"type": "list", "elements": "path"},
        },
        supports_check_mode=True,
    )
    path, target = module.params["path"], module.params["target"]
    kept = alternatives.kept_link(path)
    try:
        ours = module.params["ours"] or [os.path.dirname(target)]
        former = os.readlink(kept) if kept and os.path.islink(kept) else cuda_layout.check_link(path, ours)
        if former != target and not module.check_mode:
            if kept:
                module.run_command_environ_update = {"LANGUAGE": "C", "LC_ALL": "C"}
                alternatives.choose(path, os.path.basename(kept), target, module.run_command)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                trees.switch_link(path, target)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be set: {error}")
    before = f"{path} -> {former}\n" if former else ""
    module.exit_json(
        changed=former != target,
        path=path,
        former=former,
        links=[path, kept] if kept else [path],
        diff={"before": before, "after": f"{path} -> {target}\n"},
    )


if __name__ == "__main__":
    main()
