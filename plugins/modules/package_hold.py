#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: package_hold
short_description: Keeps packages from being upgraded
description:
  - With apt it sets the packages on hold, pins their installed versions in C(/etc/apt/preferences.d/gpufleet-<name>) and
    keeps unattended-upgrades away with C(/etc/apt/apt.conf.d/52gpufleet-<name>).
  - With dnf it adds marked lines to C(/etc/dnf/plugins/versionlock.list). dnf5 is not served.
  - What was on hold before is remembered in C(/var/lib/gpufleet/holds/<name>.json) and stays on hold.
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
  name:
    description:
      - Name of the part of the stack, such as V(nvidia_driver). It becomes part of names of files.
      - Several parts can be let go at once; a hold is of one part.
    type: list
    elements: str
    required: true
  packages:
    description: Names of packages. Those that are not installed are reported and otherwise passed over.
    type: list
    elements: str
    default: []
  patterns:
    description:
      - Names with C(*) and C(?). Every installed package that fits is held.
      - With apt no other package that fits can be installed meanwhile, and no other version.
    type: list
    elements: str
    default: []
  branch:
    description: With dnf, a pattern of versions such as C(580.*). The packages are kept to it instead of to their installed versions,
      and need not be installed. Empty is no pattern.
    type: str
    default: ""
  kernel:
    description: Whether the installed packages of the kernel are held too.
    type: bool
    default: false
  state:
    description:
      - V(held) holds the packages at their installed versions, and lets go those that are no longer named.
      - V(lifted) lets them go for an upgrade of ours and keeps the note.
      - V(absent) lets them go and leaves no trace.
    type: str
    choices: [held, lifted, absent]
    default: held
  lock_timeout:
    description: Seconds to wait for another apt or dpkg.
    type: int
    default: 600
  root:
    description: Root of the tree that is worked on.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Keep the driver and its kernel as they are
  gpufleet.stack.package_hold:
    name: nvidia_driver
    packages: [nvidia-driver]
    patterns: ["*nvidia*"]
    kernel: true

- name: Let them go for an upgrade
  gpufleet.stack.package_hold:
    name: nvidia_driver
    state: lifted

- name: Let everything go
  gpufleet.stack.package_hold:
    name: [nvidia_driver, cuda_toolkit]
    state: absent
"""

RETURN = r"""
manager:
  description: The package manager, C(apt) or C(dnf).
  returned: always
  type: str
  sample: apt
held:
  description: Packages that are on hold for this part.
  returned: always
  type: list
  elements: str
  sample: [nvidia-driver]
foreign:
  description: Those among them that somebody else had put on hold before. They stay on hold.
  returned: always
  type: list
  elements: str
  sample: []
missing:
  description: Named packages that are not installed.
  returned: always
  type: list
  elements: str
  sample: []
files:
  description: Files that the hold consists of.
  returned: always
  type: list
  elements: str
  sample: [/etc/apt/preferences.d/gpufleet-nvidia_driver, /etc/apt/apt.conf.d/52gpufleet-nvidia_driver]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_locks, package_hold, receipts, settings_file
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def forget(path: str) -> None:
    """Remove the note, and its directories where nothing else is in them."""
    os.unlink(path)
    for directory in (os.path.dirname(path), os.path.dirname(os.path.dirname(path))):
        try:
            os.rmdir(directory)
        except OSError:
            return


def select(module: AnsibleModule, root: str, selections: dict[str, str]) -> None:
    """Tell dpkg what to hold and what to let go."""
    if selections:
        data = "".join(f"{name} {want}\n" for name, want in sorted(selections.items()))
        module.run_command(["dpkg", "--root=" + root, "--set-selections"], data=data, check_rc=True)


def carry_out(module: AnsibleModule, root: str, plan: package_hold.Plan, texts: dict[str, str], note: str) -> None:
    """Do what the plan says; the note comes first and goes last, so that a run cut off forgets nobody's hold."""
    if plan.note is not None and receipts.read_json(note) != plan.note:
        receipts.write_json(note, plan.note)
    select(module, root, plan.selections)
    for path, text in texts.items():
        # dnf's own file stays where it is empty.
        put = settings_file.write if path.endswith(package_hold.VERSIONLOCK) else settings_file.replace
        put(module, path, text)
    if plan.note is None and os.path.exists(note):
        forget(note)


def work(module: AnsibleModule, name: str) -> dict[str, Any]:
    """Hold one part, or let it go; the part's share of the module's answer."""
    wanted = module.params
    root = wanted["root"]
    plan = package_hold.plan(
        name, wanted["packages"], wanted["patterns"],
        kernel=wanted["kernel"], state=wanted["state"], root=root, branch=wanted["branch"],
    )  # fmt: skip
    paths = {os.path.join(root, path): text for path, text in plan.files.items()}
    before = {path: settings_file.read(path) for path in paths}
    texts = {path: text for path, text in paths.items() if before[path] != text}
    note = os.path.join(root, package_hold.HOLDS, name + ".json")
    changed = bool(plan.selections or texts or receipts.read_json(note) != plan.note)
    if changed and not module.check_mode:
        if plan.selections:
            apt_locks.wait(wanted["lock_timeout"], root)
        carry_out(module, root, plan, texts, note)
    diff = [{"before": before[path], "after": text, "before_header": path, "after_header": path}
            for path, text in texts.items()]  # fmt: skip
    if plan.selections:
        diff.append({"prepared": "".join(f"dpkg: {each} {want}\n" for each, want in sorted(plan.selections.items()))})
    return {
        "changed": changed,
        "manager": plan.manager,
        "held": plan.held,
        "foreign": plan.foreign,
        "missing": plan.missing,
        "files": [path for path, text in paths.items() if text],
        "diff": diff,
    }


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers for several parts as one."""
    lists = {
        key: [each for part in parts for each in part[key]] for key in ("held", "foreign", "missing", "files", "diff")
    }
    return {"changed": any(part["changed"] for part in parts), "manager": parts[0]["manager"], **lists}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "patterns": {"type": "list", "elements": "str", "default": []},
            "branch": {"type": "str", "default": ""},
            "kernel": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["held", "lifted", "absent"], "default": "held"},
            "lock_timeout": {"type": "int", "default": 600},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    names = module.params["name"]
    if len(names) != 1 and (module.params["state"] == "held" or not names):
        module.fail_json(msg="name: one part is held at a time; several can be let go")
    try:
        result = together([work(module, name) for name in names])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be written: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
