#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cudnn_install
short_description: Gives cuDNN a directory of its own, from NVIDIA's wheel or of NVIDIA's packages
description:
  - Fetches the wheel, checks its size and SHA-256, and unpacks its headers and libraries beside O(path), which they
    then become in one step. Adds the names without a version that linkers look for.
  - Of packages that are installed it makes a directory of links that looks the same. The packages themselves are the package
    manager's business.
  - Proves the installation by compiling a small program that asks the library for its version. No GPU is needed.
    Where there is no C compiler, Python loads the library instead.
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
    description: The directory. It will have C(include) and C(lib).
    type: path
    required: true
  version:
    description: The version of cuDNN, with four numbers.
    type: str
    required: true
  url:
    description: Address of the wheel. Either this or O(packages).
    type: str
  sha256:
    description: SHA-256 of the wheel.
    type: str
  size:
    description: Bytes of the wheel, where they are known.
    type: int
  wheelhouse:
    description: Directory or address of the wheelhouse that the wheel is taken from. Left out, it comes from O(url).
    type: str
    default: ""
  packages:
    description: Installed packages, with or without versions, that the directory leads to.
    type: list
    elements: str
    default: []
  headers:
    description: Whether the directory has the headers too.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Install cuDNN 8.9.6 for CUDA 11
  gpufleet.stack.cudnn_install:
    path: /opt/gpufleet/cudnn/8.9.6.50-cuda11
    version: 8.9.6.50
    url: "{{ wheel.url }}"
    sha256: "{{ wheel.sha256 }}"

- name: Give NVIDIA's packages of cuDNN 9 a directory
  gpufleet.stack.cudnn_install:
    path: /opt/gpufleet/cudnn/9.17.1.4-cuda12
    version: 9.17.1.4
    packages: [libcudnn9-cuda-12, libcudnn9-dev-cuda-12]
"""

RETURN = r"""
path:
  description: The directory.
  returned: always
  type: str
  sample: /opt/gpufleet/cudnn/8.9.6.50-cuda11
fetched_bytes:
  description: Bytes of the wheel where it was fetched now, otherwise 0.
  returned: always
  type: int
  sample: 731725872
reported:
  description: The version that the library itself gave.
  returned: when not in check mode
  type: int
  sample: 8906
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    cuda_layout,
    cudnn,
    cudnn_layout,
    download,
    wheelhouse,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def install(module: AnsibleModule) -> tuple[bool, int]:
    """Fetch and unpack where needed; whether anything was done, and the bytes that were fetched."""
    path, version, headers = module.params["path"], module.params["version"], module.params["headers"]
    if module.params["packages"]:
        return lay_out(module), 0
    if cudnn.is_installed(path, version, headers):
        return False, 0
    if module.check_mode:
        return True, 0
    # Beside the directory: an interrupted download is continued by the next run, and is gone after a good one.
    wheel = path.rstrip("/") + ".whl"
    url = wheelhouse.address(module.params["wheelhouse"], module.params["url"], module.params["sha256"])
    fetched = download.size_of(download.fetch(url, wheel, module.params["sha256"], module.params["size"]), url, wheel)
    cudnn.unpack(wheel, path, version, headers)
    os.unlink(wheel)
    return True, fetched


def lay_out(module: AnsibleModule) -> bool:
    """Make the directory of links where needed; whether anything was done."""
    path = module.params["path"]
    try:
        places = cudnn_layout.wanted(module.params["packages"], path, module.params["headers"])
    except GpufleetError:
        if module.check_mode:
            return True  # a dry run installed no packages
        raise
    if cuda_layout.present(path) == places:
        return False
    if not module.check_mode:
        cudnn_layout.make(path, places)
    return True


def prove(module: AnsibleModule) -> int:
    """Ask the library for its version."""

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(command, environ_update=dict(environment, LANGUAGE="C", LC_ALL="C"))
        return code, out, err

    compiler = module.get_bin_path("cc") or module.get_bin_path("gcc")
    # Not /tmp, which hardened nodes mount noexec: the program is run.
    folder = tempfile.mkdtemp(prefix="gpufleet-cudnn-", dir="/var/tmp")
    try:
        return cudnn.check(module.params["path"], module.params["version"], folder, compiler, run)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "url": {"type": "str"},
            "sha256": {"type": "str"},
            "size": {"type": "int"},
            "wheelhouse": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "headers": {"type": "bool", "default": True},
        },
        required_together=[("url", "sha256")],
        required_one_of=[("url", "packages")],
        supports_check_mode=True,
    )
    path = module.params["path"]
    wheelhouse.keep_off_proxies(module.params["wheelhouse"])
    try:
        changed, fetched = install(module)
        if module.check_mode:
            module.exit_json(changed=changed, path=path, fetched_bytes=0)
        reported = prove(module)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be made: {error}")
    module.exit_json(changed=changed, path=path, fetched_bytes=fetched, reported=reported)


if __name__ == "__main__":
    main()
