#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_check
short_description: Proves that the installed NVIDIA driver is whole
description:
  - Every kernel with headers must have an nvidia module, and its version must be that of the libraries, which must be the ones
    that the loader gives to programs. Where O(build) fails for a kernel that neither runs nor is the newest, it is named
    in RV(lacking) and the others are proved.
  - Builds with DKMS what is missing and loads the driver, each only when told to.
  - The driver is loaded only where the running kernel has the module, no other driver holds the GPU and none is
    loaded yet. Nothing is ever unloaded and nothing is rebooted; RV(reboot_needed) says when that is left to do.
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
  build:
    description: Build the module with DKMS for kernels that have headers and lack it.
    type: bool
    default: false
  precompiled:
    description:
      - The modules come built from the distribution, for some kernels. The newest kernel that can be booted must have one, whether
        a kernel has headers says nothing.
    type: bool
    default: false
  load:
    description: Load the driver where that is possible. Leave it off on a node without a GPU.
    type: bool
    default: false
  rebooted:
    description: The node was rebooted for this driver. Fail with GF-REBOOT-UNPROVED where O(wanted) is not loaded.
    type: bool
    default: false
  wanted:
    description: The version that O(rebooted) asks for. Empty for the installed one.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Prove the driver
  gpufleet.stack.driver_check:
    build: true
    load: true
"""

RETURN = r"""
version:
  description: The version of the driver, of its modules and of its libraries.
  returned: success
  type: str
  sample: 535.309.01
kernels:
  description: Every kernel with release, headers, image, module (file), its version, who signed it (null, nobody) and what DKMS
    says of it (null, nothing).
  returned: always
  type: list
  elements: dict
  sample:
    - release: 6.1.0-56-amd64
      headers: true
      image: true
      module: /lib/modules/6.1.0-56-amd64/updates/dkms/nvidia-current.ko
      version: 535.309.01
      signer: DKMS module signing key
      dkms: installed
libraries:
  description: Versions in the names of the driver's libraries.
  returned: always
  type: dict
  sample: {"libcuda.so": ["535.309.01"], "libnvidia-ml.so": ["535.309.01"]}
built:
  description: Kernels that the module was built for just now.
  returned: always
  type: list
  elements: str
  sample: []
lacking:
  description: Kernels that could be booted and have no module, each with the error that says why. They stop nothing.
  returned: always
  type: list
  elements: dict
  sample:
    - release: 5.10.0-30-amd64
      message: "GF-DRIVER-KERNEL: kernel 5.10.0-30-amd64 has no NVIDIA module ..."
loaded:
  description: Version of the loaded driver, null where none is loaded.
  returned: always
  type: str
  sample: 535.309.01
reboot_needed:
  description: Whether the driver only works after a reboot.
  returned: success
  type: bool
  sample: false
reason:
  description: Why a reboot is needed, or null.
  returned: success
  type: str
  sample: nouveau is loaded and holds the GPU
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_precompiled, driver_state
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def lacking(kernels: list[dict[str, Any]], failed: dict[str, GpufleetError]) -> list[dict[str, str]]:
    """The kernels that could be booted and have no module, as errors that stop nothing."""
    why = {release: error.message for release, error in failed.items()}
    why.update(
        {
            kernel["release"]: "its headers are not installed"
            for kernel in kernels
            if kernel["image"] and not kernel["headers"] and not kernel["module"]
        }
    )
    return [
        {"release": release, "message": str(driver_state.without_module(release, reason))}
        for release, reason in sorted(why.items())
    ]


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "build": {"type": "bool", "default": False},
            "load": {"type": "bool", "default": False},
            "precompiled": {"type": "bool", "default": False},
            "rebooted": {"type": "bool", "default": False},
            "wanted": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    run = commands.runner(module)
    libraries = driver_state.library_versions()
    kernels = driver_state.kernels()
    if module.params["precompiled"]:
        kernels = driver_precompiled.without_dkms(kernels)
    loaded = driver_state.loaded_modules()
    result: dict[str, Any] = {
        "kernels": kernels,
        "libraries": libraries,
        "built": [],
        "lacking": [],
        "loaded": loaded["version"],
        "changed": False,
    }
    to_build = [kernel for kernel in kernels if kernel["headers"] and kernel["module"] is None]
    if module.check_mode and (not libraries or to_build or not any(kernel["module"] for kernel in kernels)):
        # A dry run of a node on which the packages are not installed yet: nothing to measure.
        result["changed"] = True
        module.exit_json(version=None, reboot_needed=False, reason=None, **result)
    try:
        failed: dict[str, GpufleetError] = {}
        driver_state.measure_dkms(kernels, run)
        if module.params["build"]:
            result["built"], failed = driver_state.build(kernels, run, os.uname().release)
        if module.params["precompiled"]:
            driver_precompiled.check(kernels)
        driver_state.measure_versions(kernels, run)
        version = driver_state.check(kernels, libraries, without=failed)
        result["lacking"] = lacking(kernels, failed)
        driver_state.check_loader(version, driver_state.loader_versions(run))
        loadable, reason = driver_state.reboot_reason(kernels, version, os.uname().release, loaded)
        result["changed"] = bool(result["built"])
        if loadable and module.params["load"]:
            result["changed"] = True
            if not module.check_mode:
                driver_state.load(run)
                result["loaded"] = driver_state.loaded_modules()["version"]
        if module.params["rebooted"]:
            driver_state.require_loaded(module.params["wanted"] or version, result["loaded"], reason)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict(), **result)
    module.exit_json(version=version, reboot_needed=reason is not None, reason=reason, **result)


if __name__ == "__main__":
    main()
