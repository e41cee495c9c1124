#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: judge
short_description: Compares verified nodes with their equals and asks a site's rules of them
description:
  - Reads C(gpufleet_plan) and C(gpufleet_verdict) of every node of the play. A node without a verdict of its plan is not judged.
  - A measured figure is compared with those of equal nodes in the same run, and with the same node's before. Which are outliers
    follows from how far the others spread and from how many there are (docs/judging.md).
  - The rules are those of C(verify_rules), as the plan of each node has them (docs/verify-rules.md).
  - This is an action plugin that works on the controller only; use it with C(run_once). Nothing is run on a node, and nothing fails here;
    RV(judgement.failing) says which nodes should.
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
options: {}
"""

EXAMPLES = r"""
- name: Judge the nodes
  gpufleet.stack.judge:
  run_once: true
  register: result

- name: Fail the nodes that a rule says so of
  ansible.builtin.fail:
    msg: "{{ result.judgement.failing[inventory_hostname] | join('\n') }}"
  when: inventory_hostname in result.judgement.failing
"""

RETURN = r"""
judgement:
  description: What was found, the same for all nodes.
  returned: success
  type: dict
  contains:
    outliers:
      description: Figures that are worse than their equals' or the same node's before.
      returned: always
      type: list
      elements: dict
      contains:
        host:
          description: The node.
          returned: always
          type: str
        device:
          description: Number of the GPU; null for a figure of the processor.
          returned: always
          type: int
        environment:
          description: Name of the environment that measured it.
          returned: always
          type: str
        metric:
          description: What was measured.
          returned: always
          type: str
          sample: gpu_gemm_bf16
        unit:
          description: Its unit.
          returned: always
          type: str
        value:
          description: What the node has.
          returned: always
          type: float
        median:
          description: What the middle one of the others has.
          returned: always
          type: float
        equals:
          description: How many others there are.
          returned: always
          type: int
        group:
          description: What all of them have in common.
          returned: always
          type: str
          sample: NVIDIA A100-SXM4-40GB, ECC on, driver 535.309.01, torch 2.0.1+cu117
        against:
          description: V(equals) of the same run, or V(history), the same node's earlier runs.
          returned: always
          type: str
    too_few:
      description: Groups of equals that are too small to tell who is slow, with their nodes.
      returned: always
      type: list
      elements: dict
    rules:
      description: Each rule with C(hosts) (whom it was asked of), C(hosts_failing), and C(why) where a node gave no plain answer.
      returned: always
      type: list
      elements: dict
    failing:
      description: For each node that should fail the lines that say why.
      returned: always
      type: dict
"""
