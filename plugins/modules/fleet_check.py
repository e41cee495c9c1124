#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_check
short_description: Runs one node's part of a check in which all nodes compute together
description:
  - With O(state=look) says where the other nodes can meet at this one, and which torch it would compute with.
  - With O(state=run) writes the script of the ranks, starts this node's ranks, watches them, and returns how each ended and
    what it measured. It has to run on all nodes of the fleet at the same time.
  - Does not judge, and does not fail where a rank does. The filter P(gpufleet.stack.fleet_verdict#filter) compares what all nodes
    returned.
  - A rank whose process gives no sign of life for ten seconds is ended, and so is every rank after O(timeout) seconds.
    Only processes that this module started are ended.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: partial
    details:
      - O(state=look) works as always. O(state=run) writes and starts nothing, and returns no ranks.
  diff_mode:
    support: none
options:
  state:
    description: What is done.
    type: str
    choices: [look, run]
    default: run
  interpreter:
    description: Python of the environment.
    type: str
    required: true
  port:
    description: TCP port at which the ranks meet, on the node of rank 0. Between nodes they use ports that the system chooses.
    type: int
    required: true
  interface:
    description: Network interface to compute over. Empty is the one by which this node reaches rank 0's.
    type: str
    default: ""
  address:
    description:
      - With O(state=run) the address of the node of rank 0.
      - With O(state=look) the address of this node, where it is not the interface's.
    type: str
    default: ""
  script:
    description:
      - Where the script of the ranks lies on the node. It is written there, one archive that the environments' Pythons run.
        Needed with O(state=run).
    type: path
  ranks:
    description: The ranks of this node. Needed with O(state=run).
    type: list
    elements: int
  world_size:
    description: Number of ranks of all nodes. Needed with O(state=run).
    type: int
  brief:
    description: What the ranks do; O(script) tells with C(--help) what there is.
    type: dict
    default: {}
  user:
    description: User of the node that the ranks run as. Empty is the one that runs the module.
    type: str
    default: ""
  timeout:
    description: Seconds after which every rank of this node is ended.
    type: int
    default: 120
  state_dir:
    description: Directory of the collection's state on the node, where the fleet's verdict will lie. It is made with O(state=run).
    type: path
    default: /var/lib/gpufleet
"""

EXAMPLES = r"""
- name: Look where the nodes can meet
  gpufleet.stack.fleet_check:
    state: look
    interpreter: /opt/gpufleet/envs/default/current/bin/python
    port: 29511
  register: __look

- name: Run this node's ranks
  gpufleet.stack.fleet_check:
    interpreter: /opt/gpufleet/envs/default/current/bin/python
    script: /opt/gpufleet/libexec/gpufleet_fleet.pyz
    port: 29511
    address: 10.1.0.1
    ranks: [0]
    world_size: 4
  register: __answer
"""

RETURN = r"""
look:
  description: What was found.
  returned: with O(state=look)
  type: dict
  sample:
    address: 10.1.0.1
    interface: eth0
    port_free: true
    torch: 2.0.1+cu117
    python: "3.11"
ranks:
  description: How each rank of this node ended. The answer is null where the rank left none.
  returned: with O(state=run), except in check mode
  type: list
  elements: dict
  sample:
    - rank: 0
      ended: exit
      rc: 0
      state: null
      step: {at: [7, 0], phase: finish, detail: ""}
      answer: {rank: 0, error: null, pairs: [], all_reduce: []}
      stderr: ""
      seconds: 9.5
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_look, fleet_ranks, script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.file_rights import rights
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_fleet import main as fleet_script


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["look", "run"], "default": "run"},
            "interpreter": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "interface": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "script": {"type": "path"},
            "ranks": {"type": "list", "elements": "int"},
            "world_size": {"type": "int"},
            "brief": {"type": "dict", "default": {}},
            "user": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 120},
            "state_dir": {"type": "path", "default": "/var/lib/gpufleet"},
        },
        required_if=[("state", "run", ("script", "ranks", "world_size", "address"))],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "look":
            where = (params["port"], params["interface"], params["address"])
            module.exit_json(changed=False, look=fleet_look.look(params["interpreter"], *where))
        if module.check_mode:
            module.exit_json(changed=False, msg="would check the fleet")
        # Some user runs the script, and every user reads the verdict: a strict umask of root's would keep them out.
        os.umask(0o022)
        changed = prepare(params)
        ranks = fleet_ranks.run_ranks(params, params["script"], params["interpreter"], params["user"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(changed=changed, ranks=ranks)


def prepare(params: dict[str, Any]) -> bool:
    """Put the script there, and make the directory of the verdict; whether something of it was not there.

    :raises GpufleetError: GF-RIGHTS, GF-DISK-SPACE.
    """
    made = not os.path.isdir(params["state_dir"])
    with rights(params["script"]):
        os.makedirs(params["state_dir"], mode=0o755, exist_ok=True)
        return script_archive.write(params["script"], fleet_script) or made


if __name__ == "__main__":
    main()
