#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt
short_description: Records what a role left on the node
description:
  - Measures packages, files, links and directory trees and writes them with the digest of the plan's stage to
    C(<state_dir>/receipts/<role>.json), atomically.
  - The probe of the next run compares the receipt with the node; while both agree the whole role is skipped.
  - With O(state=begun) before the role's work it writes down what the node has already, to
    C(<state_dir>/baselines/<role>.json). The receipt then says which packages the role added, so that they can be removed.
  - With a receipt of an NVIDIA role the node's bill of materials, C(<state_dir>/gpufleet-bom-nvidia.cdx.json), is written anew.
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
    description: Name of the role, without the collection's name.
    type: str
    required: true
  state:
    description:
      - V(begun), before the work, takes note of the node as it is; a note that a run which was cut off left stays and is added to.
      - V(present), at the end, writes the receipt.
    type: str
    choices: [begun, present]
    default: present
  digest:
    description: SHA-256 of the stage of the plan that the role carried out. Required for O(state=present).
    type: str
  packages:
    description: Packages of the distribution that the role installed.
    type: list
    elements: str
    default: []
  files:
    description: Files that the role wrote.
    type: list
    elements: path
    default: []
  links:
    description: Symbolic links that the role made.
    type: list
    elements: path
    default: []
  trees:
    description: Directories whose whole content belongs to the role.
    type: list
    elements: path
    default: []
  kernel_modules:
    description: Loaded kernel modules that the role is responsible for.
    type: list
    elements: str
    default: []
  holds:
    description: Packages that the role put on hold. One that is found without its hold is drift.
    type: list
    elements: str
    default: []
  kernels:
    description: Whether the role brought the driver's kernel modules. The receipt then says which kernels have one; a kernel that
      comes later without one is drift.
    type: bool
    default: false
  stage:
    description:
      - The stage of the plan that the role carried out. What going back to it needs is kept in the receipt.
      - Where the receipt differs from the one before, that one is kept as C(<state_dir>/former/<role>.json).
    type: dict
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
"""

EXAMPLES = r"""
- name: Take note of the node as it is
  gpufleet.stack.receipt:
    role: python
    state: begun
    packages: [python3.11-venv]

- name: Record what was installed
  gpufleet.stack.receipt:
    role: python
    digest: "{{ gpufleet_plan.stages.python.digest }}"
    packages: [python3.11-venv]
"""

RETURN = r"""
receipt:
  description: The receipt as written.
  returned: with O(state=present), when not in check mode
  type: dict
  sample: {"schema": 1, "role": "python", "packages": {"python3.11-venv": "3.11.2-6"}, "added_packages": ["python3.11-venv"]}
path:
  description: Where the receipt lies on the node, or with O(state=begun) the note.
  returned: always
  type: str
  sample: /var/lib/gpufleet/receipts/python.json
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import bom, receipts, removal_baseline, rollback
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions

LISTS = ("packages", "files", "links", "trees", "kernel_modules", "holds")


def begin(module: AnsibleModule) -> None:
    """Take note of the node before the role works, and end the module."""
    state_dir, role = module.params["state_dir"], module.params["role"]
    wanted = {name: module.params[name] for name in LISTS}
    baseline = removal_baseline.begin(state_dir, role, wanted, check_mode=module.check_mode)
    module.exit_json(changed=baseline is not None, path=removal_baseline.baseline_path(state_dir, role))


def main() -> None:
    """Entry point of the module."""
    lists: dict[str, dict[str, object]] = {
        name: {"type": "list", "elements": "path" if name in ("files", "links", "trees") else "str", "default": []}
        for name in LISTS
    }
    module = AnsibleModule(
        argument_spec=dict(
            role={"type": "str", "required": True},
            state={"type": "str", "choices": ["begun", "present"], "default": "present"},
            digest={"type": "str"},
            kernels={"type": "bool", "default": False},
            stage={"type": "dict"},
            state_dir={"type": "path", "default": receipts.STATE_DIR},
            **lists,
        ),
        required_if=[("state", "present", ["digest"])],
        supports_check_mode=True,
    )
    if module.params["state"] == "begun":
        begin(module)
    path = receipts.receipt_path(module.params["state_dir"], module.params["role"])
    if module.check_mode:
        # A dry run of a bare node installed nothing, so there is nothing to measure.
        module.exit_json(changed=True, path=path)
    try:
        receipt = receipts.measure(
            module.params["role"],
            module.params["digest"],
            kernels=module.params["kernels"],
            **{name: module.params[name] for name in LISTS},
        )
        receipt = removal_baseline.close(module.params["state_dir"], module.params["role"], receipt)
        kept = rollback.keepable(module.params["role"], module.params["stage"])
        if kept is not None:
            names = {*receipt["packages"], *receipt.get("added_packages", [])}
            receipt.update(stage=kept, versions=installed_versions(names) if names else {})
        former = receipts.read_json(path)
        rollback.keep_former(module.params["state_dir"], former, receipt)
        receipts.write_json(path, receipt)
        removal_baseline.finish(module.params["state_dir"], module.params["role"])
        if module.params["role"] in bom.NVIDIA_ROLES:
            bom.refresh(module.params["state_dir"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    same = former is not None and all(former.get(key) == receipt[key] for key in receipt if key != "written_at")
    module.exit_json(changed=not same, path=path, receipt=receipt)


if __name__ == "__main__":
    main()
