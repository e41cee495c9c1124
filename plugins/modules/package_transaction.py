#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_transaction
short_description: Looks at what apt or dnf would do, before it does it
description:
  - Waits until no other package manager is at work, finishes what a dpkg that was cut off left, and fetches the package lists.
  - Asks C(apt-get --simulate) or C(dnf --assumeno) what the installation of some packages would do, and fails where the running
    kernel or a package on hold would be changed, or the NVIDIA driver in a step that is not the driver's.
  - With apt it changes no package itself; installing is the business of M(ansible.builtin.apt). With dnf it installs
    (O(install)), since M(ansible.builtin.dnf) runs with none of the Pythons that RHEL 8 and Ansible have in common.
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
  package_manager:
    description: Which one is asked.
    type: str
    choices: [apt, dnf]
    default: apt
  install:
    description: Whether dnf also does it. A dry run does not.
    type: bool
    default: false
  back:
    description: Going back, with dnf. What its cache has of the packages is taken from there, without a network.
    type: bool
    default: false
  obsolete:
    description: Packages that dnf removes once it has installed, as far as they are there and nothing else needs them.
    type: list
    elements: str
    default: []
  repair:
    description: Whether dpkg was cut off, and has to be finished first. A dry run leaves it.
    type: bool
    default: false
  update:
    description: Whether the package lists are fetched first. A dry run fetches none.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another package manager. A dry run does not wait.
    type: int
    default: 600
  fetch:
    description: Whether the packages are fetched, so that nothing has to come over the network when they are installed. A dry run
      fetches nothing.
    type: bool
    default: false
  packages:
    description: Packages as C(apt-get install) takes them, C(name=version) for one version. With dnf a version may be a pattern.
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

- name: Install it where that is so
  gpufleet.stack.package_transaction:
    package_manager: dnf
    packages: [cuda-toolkit-12-6]
    install: true
"""

RETURN = r"""
packages:
  description:
    - O(packages), and those of O(headers) that can be had.
    - In the driver's own step, packages to be replaced by another version are named with that version.
  returned: success
  type: list
  elements: str
  sample: [libcuda1=535.309.01-0+deb12u1, linux-headers-6.1.0-47-amd64]
without_headers:
  description: Kernels whose headers cannot be had.
  returned: success
  type: list
  elements: str
  sample: []
automatic:
  description: >-
    Names among RV(packages) that nobody asked for: apt finds its way from one driver to another only where all of the new one
    is named. They should count as automatic once they are installed.
  returned: success
  type: list
  elements: str
  sample: [libnvidia-compute]
removed:
  description: Names of the driver's packages that others take the place of. With apt their settings stay behind.
  returned: success
  type: list
  elements: str
  sample: [nvidia-persistenced-580]
known:
  description: Whether the package manager knows all the packages and a way to install them.
  returned: success
  type: bool
said:
  description: What it said where it does not.
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
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    apt_locks,
    apt_needs,
    commands,
    dnf_locks,
    dnf_transaction,
    package_hold,
    package_transaction,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.package_transaction import Transaction


class Answer(NamedTuple):
    """What was found out, and whether anything was changed by it."""

    transaction: Transaction
    packages: list[str]
    without_headers: list[str]
    changed: bool
    automatic: list[str]


def with_apt(module: AnsibleModule, run: commands.Run) -> Answer:
    """Get apt ready and ask it; what dpkg had to finish is a change."""
    params = module.params
    repaired = False
    if not module.check_mode:
        apt_locks.wait(params["lock_timeout"])
        if params["repair"]:
            repaired = bool(package_transaction.repair(run))
        if params["update"]:
            package_transaction.update(run)
    headers, without = package_transaction.headers(run, params["headers"], os.uname().release)
    packages = [*params["packages"], *headers]
    held = [package_hold.plain(name) for name, row in package_hold.dpkg_selections().items() if row.want == "hold"]
    transaction = package_transaction.ask(run, packages)
    named: list[str] = []
    if not transaction.known and params["driver"]:
        named = apt_needs.exact(run, packages)
        again = package_transaction.ask(run, [*packages, *named])
        transaction, packages = (again, [*packages, *named]) if again.known else (transaction, packages)
    package_transaction.check(transaction.steps, os.uname().release, held, params["driver"])
    asked = package_transaction.exact(packages, transaction.steps) if params["driver"] else packages
    if params["fetch"] and not module.check_mode:
        package_transaction.fetch(run, asked, transaction)
    automatic = [name.partition("=")[0] for name in named if transaction.known]
    return Answer(transaction, asked, without, repaired, automatic)


def with_dnf(module: AnsibleModule, run: commands.Run) -> Answer:
    """Ask dnf, and where that is wanted have it done."""
    params = module.params
    driver, back = params["driver"], params["back"]
    if not module.check_mode:
        dnf_locks.wait(params["lock_timeout"])
        if params["update"]:
            dnf_transaction.update(run)
    headers, without = package_transaction.headers(
        run, params["headers"], os.uname().release, dnf_transaction.available
    )
    packages = [*params["packages"], *headers]
    transaction = dnf_transaction.ask(run, packages, driver, back)
    held = package_hold.locked(step.name for step in transaction.steps)
    package_transaction.check(transaction.steps, os.uname().release, held, driver, "dnf")
    changed = bool(params["install"] and transaction.steps)
    if not module.check_mode:
        dnf_transaction.require(transaction, packages)
        if params["fetch"] and transaction.steps:
            dnf_transaction.install(run, packages, driver, back, fetch=True)
        if changed:
            dnf_transaction.install(run, packages, driver, back)
        if params["install"] and params["obsolete"]:
            changed = bool(dnf_transaction.drop(run, params["obsolete"])) or changed
    return Answer(transaction, packages, without, changed, [])


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "package_manager": {"type": "str", "choices": ["apt", "dnf"], "default": "apt"},
            "packages": {"type": "list", "elements": "str", "required": True},
            "headers": {"type": "dict", "default": {}},
            "driver": {"type": "bool", "default": False},
            "install": {"type": "bool", "default": False},
            "back": {"type": "bool", "default": False},
            "obsolete": {"type": "list", "elements": "str", "default": []},
            "repair": {"type": "bool", "default": False},
            "update": {"type": "bool", "default": False},
            "fetch": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    work = with_apt if module.params["package_manager"] == "apt" else with_dnf
    try:
        answer = work(module, commands.runner(module))
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    transaction = answer.transaction
    lines = "".join(f"{step}\n" for step in transaction.steps)
    module.exit_json(
        changed=answer.changed,
        packages=answer.packages,
        without_headers=answer.without_headers,
        automatic=answer.automatic,
        removed=package_transaction.removed(transaction.steps),
        known=transaction.known,
        said=transaction.said,
        steps=[step._asdict() for step in transaction.steps],
        diff={"prepared": lines} if lines else {},
    )


if __name__ == "__main__":
    main()
