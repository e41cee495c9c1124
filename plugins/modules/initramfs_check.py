#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: initramfs_check
short_description: Proves that no initramfs image loads a competing driver
description:
  - Lists every image with C(lsinitramfs) or C(lsinitrd). One that holds nouveau or nova_core must hold the settings that keep them from
    being loaded, too. Changes nothing.
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
  settings:
    description: The file that blacklists the competing drivers.
    type: path
    default: /etc/modprobe.d/gpufleet-nvidia.conf
  sysroot:
    description: The node's root. Another directory than V(/) is for tests.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: See that no image loads nouveau
  gpufleet.stack.initramfs_check:
"""

RETURN = r"""
images:
  description: The images that were looked into. None where the node has no tool that lists them.
  returned: success
  type: list
  elements: str
  sample: [/boot/initrd.img-6.1.0-56-amd64]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-INITRAMFS-DRIVER", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, initramfs_content
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "path", "default": "/etc/modprobe.d/gpufleet-nvidia.conf"},
            "sysroot": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    try:
        images = initramfs_content.check(commands.runner(module), module.params["settings"], module.params["sysroot"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=False, images=images)


if __name__ == "__main__":
    main()
