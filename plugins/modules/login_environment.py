#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: login_environment
short_description: Sets environment variables of login shells
description:
  - Writes C(/etc/profile.d/gpufleet-<name>.sh), which sh, bash and ksh read at login.
  - Keeps one marked block in zsh's C(zprofile) that reads these files, where zsh is installed.
  - Where csh or tcsh is installed, writes C(/etc/csh/login.d/gpufleet-<name>) (Debian, Ubuntu) or
    C(/etc/profile.d/gpufleet-<name>.csh); where fish is, C(/etc/fish/conf.d/gpufleet-<name>.fish).
  - A file may be read any number of times; no directory is added twice, and a variable that is set stays.
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
    description: Part that the variables belong to. It becomes part of the file's name.
    type: str
    required: true
  variables:
    description: Variables and their values. A variable that the shell has already is left as it is.
    type: dict
    default: {}
  prepend:
    description: Search paths such as E(PATH), and the directories that are put first in each, in this order.
    type: dict
    default: {}
  functions:
    description: Shell functions, put at the end of each file as they are.
    type: dict
    default: {}
    suboptions:
      sh:
        description: For sh, bash, ksh and zsh, in POSIX sh.
        type: str
        default: ""
      csh:
        description: For csh and tcsh.
        type: str
        default: ""
      fish:
        description: For fish.
        type: str
        default: ""
  state:
    description: With V(absent) the file is removed, and with the last of these files the block of zsh.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Root of the file system that is meant.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Let login shells find CUDA
  gpufleet.stack.login_environment:
    name: cuda
    variables:
      CUDA_HOME: /usr/local/cuda
    prepend:
      PATH: [/usr/local/cuda/bin]
      LD_LIBRARY_PATH: [/usr/local/cuda/lib64]
"""

RETURN = r"""
files:
  description: Files that hold the part's settings, in check mode those that would.
  returned: success
  type: list
  elements: str
  sample: [/etc/profile.d/gpufleet-cuda.sh, /etc/zsh/zprofile]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-RIGHTS", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.login_environment import apply, render


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name={"type": "str", "required": True},
            variables={"type": "dict", "default": {}},
            prepend={"type": "dict", "default": {}},
            functions={
                "type": "dict",
                "default": {},
                "options": {shell: {"type": "str", "default": ""} for shell in ("sh", "csh", "fish")},
            },
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            root={"type": "path", "default": "/"},
        ),
        supports_check_mode=True,
    )
    variables = {name: str(value) for name, value in module.params["variables"].items()}
    prepend = {
        name: [str(each) for each in value] if isinstance(value, list) else [str(value)]
        for name, value in module.params["prepend"].items()
    }
    name = module.params["name"]
    try:
        texts = render(name, variables, prepend, module.params["functions"])
        wanted = texts if module.params["state"] == "present" else None
        changes = apply("gpufleet-" + name, wanted, module.params["root"], module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=bool(changes.diff), files=changes.files, diff=changes.diff)


if __name__ == "__main__":
    main()
