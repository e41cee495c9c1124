#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: initramfs
short_description: Makes the images that kernels start from anew where they are older than the settings of modules
description:
  - Compares every image below C(/boot) with the files in O(settings), and has all images made anew (C(update-initramfs) or C(dracut))
    where one is older. A node without images, such as a container, stays as it is.
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
    description: Files that the images hold a copy of. One that does not exist is passed over.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Keep nouveau out of the images too
  gpufleet.stack.initramfs:
    settings: [/etc/modprobe.d/gpufleet-nvidia.conf]
"""

RETURN = r"""
images:
  description: The images that were older than the settings.
  returned: success
  type: list
  elements: str
  sample: [/boot/initramfs-5.14.0-570.el9.x86_64.img]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-INITRAMFS", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, initramfs
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={"settings": {"type": "list", "elements": "path", "required": True}}, supports_check_mode=True
    )
    images = initramfs.older(module.params["settings"])
    try:
        done = bool(images) and (module.check_mode or initramfs.rebuild(commands.runner(module)))
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=done, images=images)


if __name__ == "__main__":
    main()
