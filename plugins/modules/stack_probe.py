#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_probe
short_description: Reads all that the plan needs to know of a node, in one execution
description:
  - Gathers the facts of M(gpufleet.stack.gpu_facts) and M(gpufleet.stack.cuda_facts), the node itself, every receipt
    compared with the machine, and the last verdict. Changes nothing.
  - A run of C(site.yml) on a node that is as it should be is this one module execution and no other.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
options:
  prefix:
    description: Directory in which everything of the collection lives.
    type: path
    default: /opt/gpufleet
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
  gpu_sysroot:
    description: Read the GPU facts below this directory, which holds a recorded node. V(/) is the node itself.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Look at the node
  gpufleet.stack.stack_probe:
  register: probe
"""

RETURN = r"""
gpu:
  description: The facts of M(gpufleet.stack.gpu_facts).
  returned: always
  type: dict
cuda:
  description: The facts of M(gpufleet.stack.cuda_facts).
  returned: always
  type: dict
node:
  description: Distribution, C library, Pythons, package manager, rights and free space.
  returned: always
  type: dict
  sample: {"distribution": "Debian", "version": "12", "architecture": "x86_64", "glibc": "2.36"}
receipts:
  description: For each role that left a receipt its digest, whether it holds, and what drifted.
  returned: always
  type: dict
  sample: {"python": {"digest": "2f0c", "holds": true, "drift": []}}
verdict:
  description: The last verdict, or null where there is none that can be read.
  returned: always
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda, gpu, node, receipts


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            prefix={"type": "path", "default": "/opt/gpufleet"},
            state_dir={"type": "path", "default": receipts.STATE_DIR},
            gpu_sysroot={"type": "path", "default": "/"},
        ),
        supports_check_mode=True,
    )
    prefix, state_dir = module.params["prefix"], module.params["state_dir"]
    module.exit_json(
        changed=False,
        gpu=gpu.collect(sysroot=module.params["gpu_sysroot"]),
        cuda=cuda.collect(prefix=prefix),
        node=node.collect(prefix),
        receipts=receipts.read_all(state_dir),
        verdict=receipts.read_json(os.path.join(state_dir, "verdict.json")),
    )


if __name__ == "__main__":
    main()
