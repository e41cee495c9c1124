#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: runfile
short_description: Brings one of NVIDIA's installers to the node and checks it
description:
  - Fetches the file, or copies it where the node has it, into the collection's cache, once. It is there whole and with the right
    SHA-256, or not at all.
  - Reads the file's beginning, and refuses one that is no installer of that kind, of another version, or made for another processor.
    Nothing of it is run.
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
  role:
    description: Whose installer it is. The toolkit's and the driver's are told apart.
    type: str
    choices: [nvidia_driver, cuda_toolkit]
    required: true
  source:
    description: Address, or path on the node.
    type: str
    required: true
  elsewhere:
    description: The path is one of the controller, should the node not have it. RV(here) is false then, and the file has to be copied.
    type: bool
    default: false
  sha256:
    description: The file's SHA-256.
    type: str
    required: true
  version:
    description: The version that it has to bring.
    type: str
    required: true
  architecture:
    description: The processor that it has to be made for, as the kernel names it.
    type: str
    required: true
  state:
    description: V(absent) takes the file out of the cache.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Have the driver's installer at hand
  gpufleet.stack.runfile:
    role: nvidia_driver
    source: https://us.download.nvidia.com/tesla/580.178.04/NVIDIA-Linux-x86_64-580.178.04.run
    sha256: "{{ nvidia_driver_runfile_sha256 }}"
    version: 580.178.04
    architecture: x86_64
"""

RETURN = r"""
path:
  description: Where the installer lies.
  returned: success
  type: str
  sample: /var/cache/gpufleet-runfiles/nvidia_driver/2f0c.run
here:
  description: Whether it lies there. False where it has to be copied from the controller first.
  returned: success
  type: bool
  sample: true
fetched_bytes:
  description: Bytes of the installer where it was fetched from an address now, otherwise 0.
  returned: success
  type: int
  sample: 326514176
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-RUNFILE-HASH", "message": "...", "cause": "...", "fix": "..."}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import download, receipts, runfile
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str", "choices": sorted(runfile.PROGRAMS, reverse=True), "required": True},
            "source": {"type": "str", "required": True},
            "elsewhere": {"type": "bool", "default": False},
            "sha256": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "architecture": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = runfile.cached_path(params["role"], params["sha256"])
    if params["state"] == "absent":
        there = os.path.exists(path)
        if there and not module.check_mode:
            os.unlink(path)
        module.exit_json(changed=there, path=path, here=False, fetched_bytes=0)
    there = receipts.file_digest(path) == params["sha256"]
    if module.check_mode and not there:
        module.exit_json(changed=True, path=path, here=False, fetched_bytes=0)
    try:
        brought = runfile.bring(params["source"], params["sha256"], path)
        if brought is None and not params["elsewhere"]:
            raise runfile.nowhere(params["source"])
        if brought is not None:
            runfile.check(path, params["role"], params["version"], params["architecture"], params["source"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path} cannot be written: {error.strerror}")
    fetched = bool(brought) and runfile.is_address(params["source"])
    size = download.size_of(fetched, params["source"], path)
    module.exit_json(changed=bool(brought), path=path, here=brought is not None, fetched_bytes=size)


if __name__ == "__main__":
    main()
