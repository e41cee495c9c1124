#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_suite
short_description: Has packages come from one suite of the distribution's archive
description:
  - Pins all packages of the named source packages to one suite, such as C(trixie-backports), and adds that suite
    where the node's sources do not serve it. The archive is the one that serves C(main) of the node's release.
  - The pin goes above 1000, so that apt goes back to that suite's versions from newer ones too.
  - Everything else on the node comes from where it came before.
  - The package lists are not fetched; do that when the module reports a change.
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
    description: For whom the suite is, in small letters; each has files of its own.
    type: str
    required: true
  suite:
    description: The suite. Required with O(state=present).
    type: str
  sources:
    description: Source packages whose packages are meant.
    type: list
    elements: str
    default: []
  components:
    description: Components that the suite has to be served with, where it has to be added.
    type: list
    elements: str
    default: []
  state:
    description:
      - With V(absent) the files are removed.
      - With V(leaving) a suite of before makes way for the release's own suites, so that apt goes back to their versions;
        V(absent) comes after that. Where there was no suite nothing is done.
    type: str
    choices: [present, leaving, absent]
    default: present
  root:
    description: Root of the file system whose sources are meant.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Take the driver from backports
  gpufleet.stack.apt_suite:
    name: nvidia_driver
    suite: trixie-backports
    sources: [nvidia-graphics-drivers, nvidia-open-gpu-kernel-modules]
    components: [contrib, non-free, non-free-firmware]
"""

RETURN = r"""
files:
  description: The files that are there now, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/preferences.d/gpufleet-suite-nvidia_driver]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-APT-SUITE", "message": "...", "cause": "...", "fix": "..."}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_suite, settings_file
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "suite": {"type": "str"},
            "sources": {"type": "list", "elements": "str", "default": []},
            "components": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "leaving", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "present", ("suite", "sources"))],
        supports_check_mode=True,
    )
    given = module.params
    root, name = given["root"], given["name"]
    files = apt_suite.no_files(name)
    if given["state"] == "leaving":
        files = apt_suite.plan_return(root, name)
    elif given["state"] == "present":
        try:
            files = apt_suite.plan_files(root, name, given["suite"], given["sources"], given["components"])
        except GpufleetError as error:
            module.fail_json(msg=str(error), error=error.as_dict())
    former = {path: apt_suite.there(root, path) for path in files}
    changes = {path: text for path, text in files.items() if text != former[path]}
    for path, text in changes.items():
        full = os.path.join(root, path)
        if module.check_mode:
            continue
        try:
            settings_file.replace(module, full, text)
        except OSError as error:
            module.fail_json(msg=f"{full} cannot be written: {error.strerror}")
    module.exit_json(
        changed=bool(changes),
        files=[os.path.join(root, path) for path, text in files.items() if text],
        diff=[
            {"before": former[path], "after": text, "before_header": path, "after_header": path}
            for path, text in changes.items()
        ],
    )


if __name__ == "__main__":
    main()
