#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_wheels
short_description: Makes a CUDA toolkit from NVIDIA's component wheels
description:
  - Fetches the wheels, checks size and SHA-256 of each, and lays their files out beside O(path) as NVIDIA's installers do
    (C(bin), C(include), C(lib64), C(nvvm)), which they then become in one step.
  - No package manager takes part and nothing is written outside of O(path). The wheels hold nvcc from CUDA 13.0 on.
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
    description: The toolkit's version, with three numbers.
    type: str
    required: true
  wheels:
    description: The wheels of the components.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the component.
        type: str
        required: true
      version:
        description: Version of the component.
        type: str
      url:
        description: Address of the wheel.
        type: str
        required: true
      sha256:
        description: SHA-256 of the wheel.
        type: str
        required: true
      size:
        description: Bytes of the wheel, where they are known.
        type: int
  wheelhouse:
    description: Directory or address of the wheelhouse that the wheels are taken from. Left out, they come from their own addresses.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Make CUDA 13.0
  gpufleet.stack.cuda_wheels:
    path: /opt/gpufleet/cuda/13.0
    version: 13.0.2
    wheels: "{{ wheels }}"
"""

RETURN = r"""
path:
  description: The directory.
  returned: always
  type: str
  sample: /opt/gpufleet/cuda/13.0
fetched_bytes:
  description: Bytes of the wheels that were fetched now.
  returned: always
  type: int
  sample: 1466957004
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_wheels, download, trees, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

WHEEL = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str"},
    "url": {"type": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "size": {"type": "int"},
}


def install(path: str, version: str, wheels: list[dict[str, str]], digests: list[str], base: str) -> int:
    """Fetch and unpack; answers the bytes that were fetched.

    Wheels lie beside the directory, so that the next run goes on where one was cut off.
    """
    folder = path.rstrip("/") + ".wheels"
    files = []
    fetched = 0
    for wheel in wheels:
        files.append(os.path.join(folder, wheel["sha256"] + ".whl"))
        url = wheelhouse.address(base, wheel["url"], wheel["sha256"])
        size = int(wheel["size"]) if wheel["size"] else None
        fetched += download.size_of(download.fetch(url, files[-1], wheel["sha256"], size), url, files[-1])
    cuda_wheels.unpack(files, path, version, digests)
    trees.remove(folder)
    return fetched


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "wheels": {"type": "list", "elements": "dict", "required": True, "options": WHEEL},
            "wheelhouse": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, version, wheels = (module.params[name] for name in ("path", "version", "wheels"))
    digests = [wheel["sha256"] for wheel in wheels]
    wheelhouse.keep_off_proxies(module.params["wheelhouse"])
    fetched = 0
    try:
        changed = not cuda_wheels.is_installed(path, version, digests)
        if changed and not module.check_mode:
            fetched = install(path, version, wheels, digests, module.params["wheelhouse"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be made: {error}")
    module.exit_json(changed=changed, path=path, fetched_bytes=fetched)


if __name__ == "__main__":
    main()
