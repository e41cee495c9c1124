#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Writes what is known of all nodes of a play as one report
description:
  - Writes C(report.html), C(report.md), C(report.csv) and C(report.json) (docs/schemas/report.schema.json) into a directory on the
    controller. The page needs no other file and makes no request.
  - With O(facts=live) it reads C(gpufleet_plan), C(gpufleet_verdict), C(gpufleet_judgement) and C(gpufleet_fleet_verdict) of the
    play's nodes. With O(facts=cached) it reads what the controller kept of the last look at each node, and contacts none.
  - The last C(report.json) of the directory is what drift is told against; it stays as C(report-former.json). Nodes of the
    inventory that are not in the play keep their row of it.
  - This is an action plugin that works on the controller only; use it with C(run_once). It writes nothing in check mode.
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
  directory:
    description: Directory on the controller, made where it is not there. V(none) writes no report.
    type: str
    default: gpufleet-report
  title:
    description: Title of the report; empty is the name of the inventory's directory.
    type: str
    default: ""
  finished:
    description: Whether all roles ran in this play, so that a node which came to its end is as it was planned.
    type: bool
    default: true
  required:
    description: Whether a report that cannot be written is an error; else it is a warning.
    type: bool
    default: true
  facts:
    description: Where plans and verdicts come from.
    type: str
    choices: [live, cached]
    default: live
  facts_directory:
    description: As O(gpufleet.stack.plan#module:facts_directory). Used with O(facts=cached).
    type: str
    default: ~/.cache/gpufleet/facts
  lock_directory:
    description: As O(gpufleet.stack.fleet_plan#module:lock_directory). Used with O(facts=cached).
    type: str
    default: ""
  offline:
    description: As O(gpufleet.stack.fleet_plan#module:offline). Used with O(facts=cached).
    type: bool
    default: false
  wheelhouse_directory:
    description: As O(gpufleet.stack.plan#module:wheelhouse_directory). Used with O(facts=cached).
    type: str
    default: ~/.cache/gpufleet/wheelhouse
  wheelhouse_signer:
    description: As O(gpufleet.stack.plan#module:wheelhouse_signer). Used with O(facts=cached).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Write the report
  gpufleet.stack.fleet_report:
    directory: /srv/www/cluster
    title: Cluster of the physics department
  run_once: true
"""

RETURN = r"""
files:
  description: Full paths of what was written.
  returned: success
  type: list
  elements: str
lines:
  description: Where the report is, in a line for the end of a run.
  returned: success
  type: list
  elements: str
summary:
  description: Numbers of nodes by verdict, changed ones and outliers. C(set_stats) has the same under C(gpufleet_report).
  returned: success
  type: dict
  sample: {nodes: 128, looked_at: 128, states: {verified: 125, failed: 3}, drifted: 4, outliers: 2, gpus: 728}
"""
