# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where NVIDIA's repository for a node is, and what must have signed it. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row


def description(decision: Decision, row: Row) -> Row:
    """What a role needs to use the repository; the key's parts are None where no document names the key.

    A mirror holds the repositories under NVIDIA's own names, each with its key beside its packages.
    """
    known = decision.catalog["repository"]
    base = decision.wanted["nvidia_repository_url"] or known["base"]
    key = next((each for each in known["keys"] if each["name"] == row["key"]), None)
    directory = f"{row['name']}/{known['architectures'][decision.architecture]}"
    return {
        "name": row["name"],
        "url": f"{base.rstrip('/')}/{directory}",
        # Entries of these, and keys, are what a node may have from before.
        "public_url": f"{known['base'].rstrip('/')}/{directory}",
        "retired_keys": [row["fingerprint"] for row in known["retired_keys"]],
        "key_file": key["file"] if key else None,
        "fingerprint": key["fingerprint"] if key else None,
    }
