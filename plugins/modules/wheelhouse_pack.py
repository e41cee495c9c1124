#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: it is carried out by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse_pack
short_description: Makes a portable wheelhouse for sites without internet
description:
  - Plans every node of the play from the facts that the last look at it left, locks the wheels, fetches all of them into one
    directory, and writes C(SHA256SUMS) with a signature. No node is contacted.
  - With C(gpufleet_offline) a run provisions the same nodes from that directory alone.
  - This is an action plugin; it needs C(uv) beside C(ansible-playbook) on the controller.
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
    description: The wheelhouse, on the controller. What is there already is not fetched again.
    type: path
    required: true
  facts_directory:
    description: Directory on the controller that keeps what was last found on each node.
    type: path
    required: true
  more:
    description: Further files that the site needs, such as NVIDIA's installers or packages.
    type: list
    elements: dict
    default: []
    suboptions:
      file:
        description: Address of the file, or its path on the controller.
        type: str
        required: true
      sha256:
        description: SHA-256 of the file.
        type: str
        required: true
  key:
    description: Private SSH key that signs, or the public part of one that the SSH agent holds. Empty makes no signature.
    type: str
    default: ""
  indexes:
    description: Addresses of package indexes. Where one has a user and password, they count for files of the same server.
    type: list
    elements: str
    default: []
  mirror:
    description: The site's mirror of the builds of Python, in place of where these are published.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Make a wheelhouse
  gpufleet.stack.wheelhouse_pack:
    directory: /media/usb/wheelhouse
    facts_directory: ~/.cache/gpufleet/facts
    key: ~/.ssh/id_ed25519
  run_once: true
"""

RETURN = r"""
files:
  description: Number of files in the wheelhouse, without locks.
  returned: success
  type: int
  sample: 24
bytes:
  description: Their bytes; in check mode those of the files that lack.
  returned: success
  type: int
  sample: 1842716432
fetched:
  description: Bytes that were fetched now.
  returned: success
  type: int
  sample: 0
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-WHEELHOUSE-KEY", "message": "...", "cause": "...", "fix": "..."}
"""
