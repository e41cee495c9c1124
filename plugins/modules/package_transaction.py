#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_transaction
short_description: Looks at what apt would do, before it does it
description:
  - Waits until no other apt or dpkg is at work, finishes what a dpkg that was cut off left, and fetches the package lists.
  - Asks C(apt-get --simulate) what the installation of some packages would do, and fails where the running kernel or a
    package on hold would be changed, or the NVIDIA driver in a step that is not the driver's.
  - Changes no package itself. Installing is the business of M(ansible.builtin.apt).
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  repair:
    description: Whether dpkg was cut off, and has to be finished first. A dry run leaves it.
    type: bool
    default: false
  update:
    description: Whether the package lists are fetched first. A dry run fetches none.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another apt or dpkg. A dry run does not wait.
    type: int
    default: 600
  packages:
    description: Packages as C(apt-get install) takes them.
    type: list
    elements: str
    required: true
  headers:
    description:
      - The package with the headers of each kernel that lacks them, by the kernel's release.
      - Those that the archive does not have are left out, unless the kernel runs.
    type: dict
    default: {}
  driver:
    description: Whether the step is the driver's own, and may change it.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See that a toolkit brings no driver
  gpufleet.stack.package_transaction:
    packages: [cuda-toolkit-12-6]
"""

RETURN = r"""
packages:
  description: O(packages), and those of O(headers) that can be had.
  returned: success
  type: list
  elements: str
  sample: [nvidia-driver, linux-headers-6.1.0-47-amd64]
without_headers:
  description: Kernels whose headers cannot be had.
  returned: success
  type: list
  elements: str
  sample: []
known:
  description: Whether apt knows all the packages and a way to install them.
  returned: success
  type: bool
said:
  description: What apt said where it does not.
  returned: success
  type: str
  sample: "E: Unable to locate package cuda-toolkit-12-6"
steps:
  description: What would be installed, replaced or removed; null stands for a package that is not there.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "cuda-toolkit-12-6", "before": null, "after": "12.6.3-1"}]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-TRANSACTION-DRIVER", "message": "...", "cause": "...", "fix": "..."}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    apt_locks,
    commands,
    package_hold,
    package_transaction,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "driver": {"type": "bool", "default": False},
            "headers": {"type": "dict", "default": {}},
            "repair": {"type": "bool", "default": False},
            "update": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    run = commands.runner(module)
    repaired = False
    held = [package_hold.plain(name) for name, row in package_hold.dpkg_selections().items() if row.want == "hold"]
    try:
        if not module.check_mode:
            apt_locks.wait(module.params["lock_timeout"])
            if module.params["repair"]:
                repaired = bool(package_transaction.repair(run))
            if module.params["update"]:
                package_transaction.update(run)
        headers, without = package_transaction.headers(run, module.params["headers"], os.uname().release)
        packages = [*module.params["packages"], *headers]
        transaction = package_transaction.ask(run, packages)
        package_transaction.check(transaction.steps, os.uname().release, held, module.params["driver"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    lines = "".join(f"{step}\n" for step in transaction.steps)
    module.exit_json(
        changed=repaired,
        packages=packages,
        without_headers=without,
        known=transaction.known,
        said=transaction.said,
        steps=[step._asdict() for step in transaction.steps],
        diff={"prepared": lines} if lines else {},
    )


if __name__ == "__main__":
    main()
