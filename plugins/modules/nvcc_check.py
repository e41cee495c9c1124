#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvcc_check
short_description: Proves that a CUDA toolkit compiles and links, and that what it made computes
description:
  - Compares C(nvcc --version), compiles and links a small program with a kernel for each architecture and cuBLAS, and runs it.
  - Where a driver is loaded, the kernel also runs on every GPU that CUDA shows, and its result is compared. Elsewhere
    RV(skipped) says why not.
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
    description: The toolkit's directory.
    type: path
    required: true
  version:
    description: The version that it must have, with major and minor number.
    type: str
    required: true
  architectures:
    description: Compute capabilities of the GPUs that are compiled for.
    type: list
    elements: str
    default: ["8.0"]
"""

EXAMPLES = r"""
- name: Prove CUDA 11.8
  gpufleet.stack.nvcc_check:
    path: /opt/gpufleet/cuda/11.8
    version: "11.8"
    architectures: ["7.0", "8.0"]
"""

RETURN = r"""
runtime:
  description: The version of CUDA that the program was compiled with, as CUDA writes it.
  returned: when not in check mode
  type: int
  sample: 11080
gpus:
  description: The number of GPUs on which the kernel ran and gave the right result.
  returned: when not in check mode
  type: int
  sample: 8
skipped:
  description: Why it ran on none, or null.
  returned: when not in check mode
  type: str
  sample: no NVIDIA driver is loaded
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import nvcc
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "architectures": {"type": "list", "elements": "str", "default": ["8.0"]},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not os.path.exists(os.path.join(module.params["path"], "bin/nvcc")):
        module.exit_json(changed=False)
    module.run_command_environ_update = {"LANGUAGE": "C", "LC_ALL": "C"}

    def run(command: list[str]) -> tuple[int, str, str]:
        try:
            code, out, err = module.run_command(command, handle_exceptions=False)
        except OSError as error:
            return 127, "", f"{command[0]}: {error.strerror}"
        return code, out, err

    # Not the module's own directory: /tmp of hardened nodes is mounted noexec, and the program is run.
    folder = tempfile.mkdtemp(prefix="gpufleet-nvcc-", dir="/var/tmp")
    try:
        proof = nvcc.check(module.params["path"], module.params["version"], module.params["architectures"], folder, run)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    finally:
        shutil.rmtree(folder)
    module.exit_json(changed=False, runtime=proof.runtime, gpus=proof.gpus, skipped=proof.skipped)


if __name__ == "__main__":
    main()
