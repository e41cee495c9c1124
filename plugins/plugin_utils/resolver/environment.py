# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who brings the environment variables to the users. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row


def description(decision: Decision) -> Row:
    """Login shells, modulefiles below a directory of ours, or neither."""
    way = decision.wanted["gpufleet_environment"]
    directory = f"{decision.wanted['gpufleet_prefix']}/modulefiles"
    return {"profile": way == "profile", "modulefiles": directory if way == "modules" else None}
