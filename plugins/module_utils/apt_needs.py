# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What packages of a driver need in exactly their own version. Private to the collection.

Between two drivers that exclude each other apt's solver favours the installed packages over those that only follow from
what was asked for. Asked for by name, they win.
"""

from __future__ import annotations

import re

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream

_NEEDS = re.compile(r"^(?:Pre-)?Depends: (.*)$", re.MULTILINE)
_EXACT = re.compile(r"^([a-z0-9][a-z0-9+.-]*)(?::\w+)? \(= ([^)]+)\)$")


def exact(run: Run, packages: list[str]) -> list[str]:
    """``name=version`` of all that the packages with a version need in their version, theirs left out."""
    known = dict(name.split("=", 1) for name in packages if "=" in name)
    found: dict[str, str] = {}
    asked = known
    while asked:
        code, out, _err = run(["apt-cache", "show", *(f"{name}={version}" for name, version in sorted(asked.items()))])
        needs = _of_one_version(out) if code == 0 else {}
        asked = {name: version for name, version in needs.items() if name not in known and name not in found}
        found.update(asked)
    return [f"{name}={version}" for name, version in sorted(found.items())]


def _of_one_version(records: str) -> dict[str, str]:
    found = {}
    for record in records.split("\n\n"):
        own = re.search(r"^Version: (\S+)$", record, re.MULTILINE)
        for line in _NEEDS.findall(record):
            for match in filter(None, (_EXACT.match(item.strip()) for item in line.split(","))):
                if own and upstream(match[2]) is not None and upstream(match[2]) == upstream(own[1]):
                    found[match[1]] = match[2]
    return found
