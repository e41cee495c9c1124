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
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
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
schema:
  description: Number of this form of the answer. Facts of another one, kept in a cache, are not used.
  returned: always
  type: int
  sample: 2
gpu:
  description: The facts of M(gpufleet.stack.gpu_facts).
  returned: always
  type: dict
cuda:
  description: The facts of M(gpufleet.stack.cuda_facts).
  returned: always
  type: dict
node:
  description: The node itself.
  returned: always
  type: dict
  contains:
    distribution:
      description: Name as Ansible gives it; null where C(/etc/os-release) can't be read.
      returned: always
      type: str
      sample: Debian
    version:
      description: Version; null for a rolling release.
      returned: always
      type: str
      sample: "12"
    codename:
      description: Name of the version, where it has one.
      returned: always
      type: str
      sample: bookworm
    architecture:
      description: Processor, as the kernel names it.
      returned: always
      type: str
      sample: x86_64
    glibc:
      description: Version of the C library; null where it is another one than glibc.
      returned: always
      type: str
      sample: "2.36"
    gcc:
      description: Major version of the system's C compiler; null where there is none or nothing tells.
      returned: always
      type: int
      sample: 12
    package_manager:
      description: V(apt), V(dnf) or V(zypper); null where the distribution has none of them.
      returned: always
      type: str
      sample: apt
    packages_interrupted:
      description: Whether dpkg was cut off and has to be finished first.
      returned: always
      type: bool
    pythons:
      description: CPythons of version 3 outside environments.
      returned: always
      type: list
      elements: dict
      contains:
        version:
          description: Major and minor version.
          returned: always
          type: str
          sample: "3.11"
        full_version:
          description: Full version.
          returned: always
          type: str
          sample: 3.11.2
        path:
          description: Path of the interpreter.
          returned: always
          type: str
          sample: /usr/bin/python3.11
        provider:
          description: V(distribution) for those in C(/usr/bin), else V(installed).
          returned: always
          type: str
    root:
      description: Whether the module ran as root.
      returned: always
      type: bool
    prefix:
      description: Where the collection installs.
      returned: always
      type: dict
      contains:
        path:
          description: The directory.
          returned: always
          type: str
          sample: /opt/gpufleet
        writable:
          description: Whether it, or the directory in which it would be made, can be written.
          returned: always
          type: bool
        free_mib:
          description: Room in MiB; null where the file system does not say.
          returned: always
          type: int
    kernel:
      description: The running kernel.
      returned: always
      type: dict
      contains:
        release:
          description: Release.
          returned: always
          type: str
          sample: 6.1.0-47-amd64
        headers:
          description: Whether its headers are installed.
          returned: always
          type: bool
    kernels:
      description: Every kernel that the node could boot or build modules for, the oldest first.
      returned: always
      type: list
      elements: dict
      contains:
        release:
          description: Release.
          returned: always
          type: str
          sample: 6.1.0-47-amd64
        headers:
          description: Whether its headers are installed.
          returned: always
          type: bool
        image:
          description: Whether the kernel itself is there, and can be booted.
          returned: always
          type: bool
    initramfs:
      description: Whether the node boots with an initial file system that has to be made anew when its modules change.
      returned: always
      type: bool
    cpu:
      description: The processor. On Arm the model is made of the numbers of its maker and its part.
      returned: always
      type: dict
      contains:
        model:
          description: Its name as the kernel tells it.
          returned: always
          type: str
        threads:
          description: How many of its threads the node has.
          returned: always
          type: int
    boot_id:
      description: Changes with every boot.
      returned: always
      type: str
    errors:
      description: What went wrong.
      returned: always
      type: list
      elements: dict
      contains:
        code:
          description: Code.
          returned: always
          type: str
          sample: GF-NO-OS-RELEASE
        message:
          description: What went wrong, in words.
          returned: always
          type: str
receipts:
  description: For each role that left a receipt its digest, whether it holds, what drifted, and which kernels are known to lack a module.
  returned: always
  type: dict
  sample: {"python": {"digest": "2f0c", "holds": true, "drift": [], "lacking": []}}
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
        schema=node.SCHEMA,
        gpu=gpu.collect(sysroot=module.params["gpu_sysroot"]),
        cuda=cuda.collect(prefix=prefix),
        node=node.collect(prefix),
        receipts=receipts.read_all(state_dir),
        verdict=receipts.read_json(os.path.join(state_dir, "verdict.json")),
    )


if __name__ == "__main__":
    main()
