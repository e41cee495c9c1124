# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be known of a node before it takes part in a fleet check. Private to the collection."""

from __future__ import annotations

import glob
import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_network
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def installed(interpreter: str) -> dict[str, str | None]:
    """The torch and the Python of an environment as they lie there, without running them."""
    folder = os.path.dirname(os.path.dirname(interpreter))
    for path in sorted(glob.glob(os.path.join(folder, "lib*", "python3.*", "site-packages", "torch", "version.py"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            version = re.search(r"^__version__\s*(?::[^=]+)?=\s*['\"]([^'\"]+)['\"]", file.read(), re.MULTILINE)
        python = re.search(r"/python(3\.\d+)/site-packages/", path)
        if version and python and os.access(interpreter, os.X_OK):
            return {"torch": version.group(1), "python": python.group(1)}
    return {"torch": None, "python": None}


def look(interpreter: str, port: int, interface: str, address: str) -> dict[str, Any]:
    """Where the others can meet at this node, and what it would compute with.

    :raises GpufleetError: GF-FLEET-INTERFACE.
    """
    found = fleet_network.addresses()
    chosen = fleet_network.choose(found, interface, fleet_network.default_interface())
    if interface and chosen is None:
        names = ", ".join(sorted({row[0] for row in found})) or "none"
        raise GpufleetError(
            "GF-FLEET-INTERFACE",
            f"this node has no interface {interface} with an address",
            f"verify_fleet_interface names another node's interface, or the link is down; those with an address: {names}",
            "set verify_fleet_interface for this node in its host_vars, or leave it empty",
        )
    return {
        **installed(interpreter),
        "address": address or (chosen[1] if chosen else None),
        "interface": interface or (chosen[0] if chosen and not address else None),
        "port_free": fleet_network.port_is_free(port),
    }
