# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dpkg that was cut off left, made ready to be removed. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.module_utils import rollback
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import dpkg_entries, dpkg_interrupted
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import do


def settle(run: Run, root: str = "/") -> None:
    """Have dpkg know everything that it put on the node.

    Its journal has records of packages that no other place names, and apt removes nothing beside it; any dpkg that writes
    takes it over, and the one here has nothing to write. Of a package that is half unpacked dpkg knows no files: it is
    unpacked again, where apt's cache still has it.
    """
    if not dpkg_interrupted(root):
        return
    do(run, ["sh", "-c", "dpkg --set-selections </dev/null"], "dpkg --set-selections")
    half = {entry.name: entry.version for entry in dpkg_entries(root) if entry.state == "half-installed"}
    files = sorted(rollback.cached(half, root).values())
    if files:
        do(run, ["dpkg", "--unpack", "--force-depends", *files], "dpkg --unpack")
