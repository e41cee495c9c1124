#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_runfile
short_description: Installs the driver with NVIDIA's installer
description:
  - Runs the installer without a question, for a kernel that has headers; DKMS has the module's source afterwards and builds it for the
    others. A driver of this version and flavour that is there whole is left as it is.
  - Where the installer fails, what it put on the node is taken away again, and the error shows the end of its log.
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
  path:
    description: The installer on the node, checked by M(gpufleet.stack.runfile).
    type: path
    required: true
  version:
    description: The version that it brings.
    type: str
    required: true
  architecture:
    description: The processor that it is made for, as the kernel names it.
    type: str
    required: true
  flavour:
    description: Flavour of the kernel modules.
    type: str
    choices: [open, proprietary]
    required: true
  options:
    description: Options that it is given.
    type: list
    elements: str
    default: []
  optional:
    description: Options that it is given where its own help names them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Run the installer
  gpufleet.stack.driver_runfile:
    path: /var/cache/gpufleet-runfiles/nvidia_driver/2f0c.run
    version: 580.178.04
    architecture: x86_64
    flavour: open
    options: [--silent, --dkms, --kernel-module-type=open]
    optional: [--skip-module-load]
"""

RETURN = r"""
kernel:
  description: The kernel that the installer built for; null where it did not have to run.
  returned: success
  type: str
  sample: 6.1.0-47-amd64
files:
  description: Files by which a receipt knows the driver.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/nvidia/log]
links:
  description: Links by which a receipt knows the driver.
  returned: success
  type: list
  elements: str
  sample: [/usr/lib/x86_64-linux-gnu/libcuda.so.1]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-RUNFILE-FAILED", "message": "...", "cause": "...", "fix": "..."}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_runfile, driver_state, runfile
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "flavour": {"type": "str", "choices": ["open", "proprietary"], "required": True},
            "options": {"type": "list", "elements": "str", "default": []},
            "optional": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params, kernel = module.params, None
    version = params["version"]
    run = commands.runner(module)
    changed = not driver_runfile.whole(run, version, params["flavour"])
    try:
        if changed and not module.check_mode:
            header = runfile.check(params["path"], "nvidia_driver", version, params["architecture"], params["path"])
            kernel = driver_runfile.kernel_to_build_for(driver_state.kernels(), os.uname().release)
            options = [*params["options"], *runfile.known(header, params["optional"])]
            driver_runfile.install(run, params["path"], options, kernel)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    files, links = driver_runfile.written()
    module.exit_json(changed=changed, kernel=kernel, files=files, links=links)


if __name__ == "__main__":
    main()
