#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_components
short_description: Makes components of the distribution's archive available
description:
  - Reads the apt sources of the node, finds the archives that serve C(main) of its release and adds the components
    that they leave out, from the same archives with the same options (keys, architectures).
  - Names no mirror, changes no file of anybody else's and leaves repositories of third parties alone.
  - What is missing is written to C(/etc/apt/sources.list.d/gpufleet-components.sources). The file goes away when the
    other sources have everything.
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
  components:
    description: Components that must be available, for example V(contrib).
    type: list
    elements: str
    default: []
  codename:
    description: Codename of the release. Read from C(/etc/os-release) when left out.
    type: str
  state:
    description: With V(absent) the file is removed.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Root of the file system whose sources are meant.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Make the components of the NVIDIA packages available
  gpufleet.stack.apt_components:
    components: [contrib, non-free, non-free-firmware]
  register: __example_components

- name: Fetch the package lists
  ansible.builtin.apt:
    update_cache: true
  when: __example_components is changed
"""

RETURN = r"""
path:
  description: The file with the added components.
  returned: always
  type: str
  sample: /etc/apt/sources.list.d/gpufleet-components.sources
exists:
  description: Whether the file exists now, or would in check mode.
  returned: always
  type: bool
  sample: true
added:
  description: What the file adds.
  returned: always
  type: list
  elements: dict
  sample: [{"suite": "bookworm", "components": ["contrib", "non-free"]}]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_components, settings_file
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "components": {"type": "list", "elements": "str", "default": []},
            "codename": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    root = module.params["root"]
    path = os.path.join(root, apt_components.SOURCES_FILE)
    codename = module.params["codename"] or apt_components.codename_of(root)
    text = ""
    added: list[apt_components.Source] = []
    if module.params["state"] == "present" and module.params["components"]:
        try:
            text, added = apt_components.plan_file(root, codename, module.params["components"])
        except GpufleetError as error:
            module.fail_json(msg=str(error), error=error.as_dict())
    former = settings_file.read(path)
    if former != text and not module.check_mode:
        try:
            settings_file.replace(module, path, text)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error.strerror}")
    module.exit_json(
        changed=former != text,
        path=path,
        exists=bool(text),
        added=[{"suite": source.suite, "components": list(source.components)} for source in added],
        diff={"before": former, "after": text, "before_header": path, "after_header": path},
    )


if __name__ == "__main__":
    main()
