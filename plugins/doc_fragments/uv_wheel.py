# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option with uv's wheel, once for all modules that bring uv to the node."""

from __future__ import annotations


class ModuleDocFragment:
    """What C(uv.ARGUMENT) of module_utils takes."""

    DOCUMENTATION = r"""
options:
  uv:
    description: The uv wheel that does the work. It is brought below O(prefix) where it is not there.
    type: dict
    required: true
    suboptions:
      version:
        description: Version of uv.
        type: str
        required: true
      url:
        description: Address of the wheel.
        type: str
        required: true
      sha256:
        description: SHA-256 of the wheel.
        type: str
        required: true
      size:
        description: Size of the wheel in bytes.
        type: int
"""
