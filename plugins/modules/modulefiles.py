#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: modulefiles
short_description: Writes modulefiles for Lmod and Environment Modules
description:
  - Writes C(<directory>/<name>/<version>) for each version, in Tcl, which both module systems read, and
    C(<directory>/<name>/.version) with the default.
  - Writes a file for login shells that adds the directory to E(MODULEPATH) where a module system has begun.
  - Modulefiles of versions that are no longer named stay as long as their directory does. Those that somebody else wrote are
    never removed.
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
  directory:
    description: Directory that is to be in E(MODULEPATH).
    type: path
    required: true
  name:
    description: Name of the program, as in C(module load <name>).
    type: str
    required: true
  title:
    description: What the program is called in C(module whatis). Needed with O(state=present).
    type: str
  versions:
    description: The directory of each version. Needed with O(state=present).
    type: dict
    default: {}
  default:
    description: The version that C(module load <name>) takes. Needed with O(state=present).
    type: str
  variables:
    description: Variables and their values; C({path}) stands for the version's directory.
    type: dict
    default: {}
  prepend:
    description: Search paths, and the directories that are put first in each, in this order; C({path}) as above.
    type: dict
    default: {}
  state:
    description: With V(absent) the program's modulefiles are removed, and with the last of them the file for login shells.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Root of the file system that is meant.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Let users choose among two toolkits
  gpufleet.stack.modulefiles:
    directory: /opt/gpufleet/modulefiles
    name: cuda
    title: NVIDIA CUDA toolkit
    versions: {"13.0": /opt/gpufleet/cuda/13.0, "13.1": /opt/gpufleet/cuda/13.1}
    default: "13.0"
    variables: {CUDA_HOME: "{path}"}
    prepend: {PATH: ["{path}/bin"], LD_LIBRARY_PATH: ["{path}/lib64"]}
"""

RETURN = r"""
files:
  description: Files that were written, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [/opt/gpufleet/modulefiles/cuda/13.0, /opt/gpufleet/modulefiles/cuda/.version, /etc/profile.d/zz-gpufleet-modules.sh]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-RIGHTS", "message": "...", "cause": "...", "fix": "..."}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.modulefiles import Wish, apply


def wished(params: dict[str, Any]) -> Wish:
    """The module's parameters as a wish."""
    texts = {key: {str(name): str(value) for name, value in params[key].items()} for key in ("versions", "variables")}
    prepend = {name: [str(each) for each in directories] for name, directories in params["prepend"].items()}
    return Wish(params["name"], params["title"], texts["versions"], params["default"], texts["variables"], prepend)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            directory={"type": "path", "required": True},
            name={"type": "str", "required": True},
            title={"type": "str"},
            versions={"type": "dict", "default": {}},
            default={"type": "str"},
            variables={"type": "dict", "default": {}},
            prepend={"type": "dict", "default": {}},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            root={"type": "path", "default": "/"},
        ),
        required_if=[("state", "present", ["title", "default", "versions"])],
        supports_check_mode=True,
    )
    wish = wished(module.params) if module.params["state"] == "present" else None
    try:
        changes = apply(
            module.params["directory"], module.params["name"], wish, module.params["root"], module.check_mode
        )
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=bool(changes.diff), files=changes.files, diff=changes.diff)


if __name__ == "__main__":
    main()
