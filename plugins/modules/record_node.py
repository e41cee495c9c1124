#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record_node
short_description: Records a node so that its facts can be read elsewhere
description:
  - Writes an archive of the files that the facts of this collection read, each cut down to what they read in it, and of
    what NVML and rpm say. Unpacked anywhere, it can be given as O(sysroot) to M(gpufleet.stack.gpu_facts) and
    M(gpufleet.stack.cuda_facts), which then say what they said on the node. Attach it to a report of a bug.
  - Names of the host and of its users, serial numbers, UUIDs, addresses of networks, and addresses with credentials are
    replaced. Variables that have nothing to do with CUDA, packages that have nothing to do with GPUs and all that is not on
    the recorder's list are left out. Look through the archive all the same before you hand it on.
  - The playbook C(gpufleet.stack.record) runs this module and brings the archive to the controller.
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
  dest:
    description: The archive to write, on the node. Only its owner can read it.
    type: path
    required: true
  prefix:
    description: Directory in which everything of the collection lives, as the node sees it.
    type: path
    default: /opt/gpufleet
  sysroot:
    description: Record the node below this directory. V(/) is the node itself.
    type: path
    default: /
  nvml_timeout:
    description: Seconds after which an NVML that does not answer is abandoned.
    type: float
    default: 5.0
seealso:
  - module: gpufleet.stack.gpu_facts
  - module: gpufleet.stack.cuda_facts
"""

EXAMPLES = r"""
- name: Record a node that fails
  gpufleet.stack.record_node:
    dest: /root/node.tar.gz
"""

RETURN = r"""
entries:
  description: Paths in the record, links and directories among them.
  returned: always
  type: list
  elements: str
  sample: [".gpufleet/node.json", "etc/os-release"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import record
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "prefix": {"type": "path", "default": "/opt/gpufleet"},
            "sysroot": {"type": "path", "default": "/"},
            "nvml_timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    entries = record.gather(wanted["sysroot"], wanted["prefix"], wanted["nvml_timeout"])
    if not module.check_mode:
        try:
            record.write(entries, wanted["dest"])
        except OSError as error:
            failure = GpufleetError(
                "GF-RECORD-UNWRITABLE",
                f"the record can't be written to {wanted['dest']}: {error.strerror or error}",
                "its directory does not exist or does not let this user write, or the file system is full",
                "name a dest in a directory that exists and can be written",
            )
            module.fail_json(msg=str(failure), error=failure.as_dict())
    module.exit_json(changed=True, entries=sorted(entries))


if __name__ == "__main__":
    main()
