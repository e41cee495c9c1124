#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Fetches files once for all nodes, and copies them to where nodes take them from
description:
  - With O(state=fetched) the controller fetches the files that its store lacks, checks the SHA-256 of each, and goes on with one
    that was cut off. Of all nodes of a run one fetches, the others wait for it. Nothing is run on a node.
  - With O(state=copied) the files are copied from the store to a directory, over the node's own connection. The node says first
    which it lacks, and checks each again before it lies at its place.
  - In both directories a file lies as C(<SHA-256>/<name>).
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
  state:
    description: Whether the files shall be in the controller's store, or copied from there into O(directory).
    type: str
    choices: [fetched, copied]
  store:
    description: Directory on the controller.
    type: path
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the file.
        type: str
        required: true
      sha256:
        description: SHA-256 of the file.
        type: str
        required: true
      url:
        description: Address of the file.
        type: str
      size:
        description: Bytes of the file, where they are known.
        type: int
      role:
        description: Whose it is.
        type: str
  directory:
    description: Directory on the node, or on the host that the task is delegated to.
    type: path
  indexes:
    description: Addresses of package indexes. Where one has a user and password, they count for files of the same server.
    type: list
    elements: str
    default: []
  offline:
    description: Fetch nothing; a file that the store lacks is an error.
    type: bool
    default: false
  host:
    description: Name of the host that serves the files to others.
    type: str
    default: ""
  shared:
    description: Whether O(directory) serves many nodes, so that once in a run is enough.
    type: bool
    default: false
  incoming:
    description: For the module's own use; directory on the node with files that have just arrived, named by their SHA-256.
    type: path
    default: ""
"""

EXAMPLES = r"""
- name: Fetch the wheels once
  gpufleet.stack.wheelhouse:
    state: fetched
    store: ~/.cache/gpufleet/wheelhouse
    files: "{{ gpufleet_plan.wheelhouse.files }}"

- name: Copy to the node what it lacks
  gpufleet.stack.wheelhouse:
    state: copied
    store: ~/.cache/gpufleet/wheelhouse
    files: "{{ gpufleet_plan.wheelhouse.files }}"
    directory: /opt/gpufleet/cache/wheelhouse
"""

RETURN = r"""
bytes:
  description: What was fetched, or copied.
  returned: success
  type: int
  sample: 1842716432
first:
  description: Whether this node is the first one of the run that speaks of O(host).
  returned: with O(state=fetched)
  type: bool
  sample: true
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-WHEELHOUSE-INCOMPLETE", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

FILE = {
    "name": {"type": "str", "required": True},
    "sha256": {"type": "str", "required": True},
    "url": {"type": "str"},
    "size": {"type": "int"},
    "role": {"type": "str"},
}


def arrive(directory: str, files: list[dict[str, str]], incoming: str) -> None:
    """Put files that have arrived to their places."""
    with wheelhouse.readable():
        spoiled = wheelhouse.take_in(directory, files, incoming)
        wheelhouse.write_index(directory)
    if spoiled:
        raise GpufleetError(
            "GF-WHEELHOUSE-SPOILED",
            f"{', '.join(each['name'] for each in spoiled)} did not arrive in {directory} as sent",
            "the disk or memory of this host returns wrong data, or somebody changed the file on the way",
            "look for disk errors (dmesg); then run the playbook again",
        )


def main() -> None:
    """Entry point of the module, which is the node's part of it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["fetched", "copied"]},
            "store": {"type": "path"},
            "files": {"type": "list", "elements": "dict", "required": True, "options": FILE},
            "directory": {"type": "path"},
            "indexes": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "offline": {"type": "bool", "default": False},
            "host": {"type": "str", "default": ""},
            "shared": {"type": "bool", "default": False},
            "incoming": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    directory, files, incoming = (module.params[name] for name in ("directory", "files", "incoming"))
    try:
        if incoming and not module.check_mode:
            arrive(directory, files, incoming)
            module.exit_json(changed=True)
        lacking = [each["sha256"] for each in wheelhouse.lacking(directory, files)]
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or directory} cannot be written: {error.strerror}")
    module.exit_json(changed=False, lacking=lacking)


if __name__ == "__main__":
    main()
