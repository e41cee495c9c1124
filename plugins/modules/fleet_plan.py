#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_plan
short_description: Tells the plans of all nodes of a play as one table
description:
  - Folds nodes with the same decision together, and tells every conflict and every note once, with all its nodes.
  - With O(facts=live) it reads the plan that M(gpufleet.stack.plan) made of each node of the play, from C(gpufleet_plan).
    With O(facts=cached) it makes the plans itself, from the facts that the controller kept, and contacts no node.
  - This is an action plugin that works on the controller only; use it with C(run_once). Nothing on a node changes.
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
  facts:
    description: Where the plans come from.
    type: str
    choices: [live, cached]
    default: live
  facts_directory:
    description: Directory on the controller that keeps the facts, as O(gpufleet.stack.plan#module:facts_directory).
    type: str
    default: ~/.cache/gpufleet/facts
  lock_directory:
    description: Directory on the controller where locks are kept. Used with O(facts=cached); none is written.
    type: str
    default: ""
  offline:
    description: Use no locks but those of O(wheelhouse_directory). Used with O(facts=cached).
    type: bool
    default: false
    version_added: 0.1.0
  wheelhouse_directory:
    description: As O(gpufleet.stack.plan#module:wheelhouse_directory).
    type: str
    default: ~/.cache/gpufleet/wheelhouse
    version_added: 0.1.0
  wheelhouse_signer:
    description: As O(gpufleet.stack.plan#module:wheelhouse_signer).
    type: str
    default: ""
    version_added: 0.1.0
  locks:
    description: V(keep) uses the locks that are there. V(update) makes every lock anew, and tells the difference; none is written.
    type: str
    choices: [keep, update]
    default: keep
    version_added: 0.1.0
  json:
    description: File on the controller that the plans are written to, after docs/schemas/plan.schema.json. Empty writes none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Plan from the facts at hand
  gpufleet.stack.fleet_plan:
    facts: cached
    json: plan.json
  register: result
  run_once: true

- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ result.text }}"
  run_once: true
"""

RETURN = r"""
ok:
  description: Whether no node has a conflict.
  returned: success
  type: bool
text:
  description: The table, ASCII without colours.
  returned: success
  type: str
conflicts:
  description: Code and nodes of each conflict.
  returned: success
  type: list
  elements: str
  sample: ["GF-TORCH-NO-BUILD on gpu[01-12,14]"]
"""
