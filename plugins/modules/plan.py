#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Decides what a node gets, and what of it is already there
description:
  - Runs M(gpufleet.stack.stack_probe) on the node, chooses the stack on the controller, locks its wheels, and compares
    each stage with its receipt. Nothing on the node changes.
  - This is an action plugin; it needs C(uv) beside C(ansible-playbook) on the controller when a lock has to be made.
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
  wanted:
    description: The variables that a user may set, by name; see the table in README.md.
    type: dict
    required: true
  lock_directory:
    description:
      - Directory on the controller where locks are kept. A lock that is there is used as it is.
      - Empty is C(locks) beside the inventory, or below the current directory where the inventory is no file.
    type: str
    default: ""
  locks:
    description: V(keep) uses the locks that are there. V(update) makes every lock anew, once a run, and tells the difference.
    type: str
    choices: [keep, update]
    default: keep
    version_added: 0.1.0
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
  facts_directory:
    description:
      - Directory on the controller that keeps what was found on each node, for M(gpufleet.stack.fleet_plan). Empty keeps none.
      - It is written in check mode too, as nothing of the node is in it but what was seen.
    type: str
    default: ""
    version_added: 0.1.0
  wheelhouse_directory:
    description: Directory on the controller that keeps every wheel once for all nodes.
    type: str
    default: ~/.cache/gpufleet/wheelhouse
    version_added: 0.1.0
  wheelhouse_signer:
    description: With C(gpufleet_offline), public SSH key whose signature that directory has to bear, or a file that holds one.
    type: str
    default: ""
    version_added: 0.1.0
  only_look:
    description:
      - Say that the plan will not be carried out. No lock is then kept, and where the package index does not answer the sizes
        stay unknown, with a warning in place of a conflict.
    type: bool
    default: false
    version_added: 0.1.0
"""

EXAMPLES = r"""
- name: Look at the node and decide
  gpufleet.stack.plan:
    wanted:
      pytorch_version: "2.0.1"
    lock_directory: /srv/gpufleet/locks
  register: result
"""

RETURN = r"""
plan:
  description:
    - C(ok), C(conflicts), C(warnings), C(stages) by role, the C(facts) it rests on, and the node's last C(verdict).
    - The keys of each stage stand in docs/contracts.md.
  returned: success
  type: dict
  sample: {"ok": true, "conflicts": [], "warnings": [], "stages": {"python": {"wanted": true, "needed": false}}}
"""
