# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a package manager's failure means: its words turned into a code. Private to the collection."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# A line of its output that says what went wrong; of a long output these are shown.
_TELLING = re.compile(
    r"\bE: |^Err:|^Error|dpkg: error|Errors were|[Ff]ailed to|No space left|not enough|Curl error|Cannot download", re.M
)
_LINES = 8
_CODED = re.compile(r"\s*GF-[A-Z-]+: ")


class _Kind(NamedTuple):
    code: str
    pattern: re.Pattern[str]
    message: str
    cause: str
    mend: str


# In this order: a disk that is full makes scripts fail, and a damaged file counts as one that could not be fetched.
_KINDS = (
    _Kind(
        "GF-DISK-FULL",
        re.compile(r"No space left on device|enough free space|not enough (?:disk )?space|more space needed on", re.I),
        "there is no room for the packages",
        "a file system of the node is full",
        "df -h on the node shows which; free some room (apt-get clean or dnf clean packages), then run the playbook again",
    ),
    _Kind(
        "GF-PACKAGE-DAMAGED",
        re.compile(r"Hash Sum mismatch|unexpected size|checksum|not a Debian format archive|corrupt", re.I),
        "a package did not arrive as the repository describes it, and was not installed",
        "a mirror that was cut off in the middle of its copy, or a proxy that alters files on the way",
        "compare the mirror with its origin; apt-get clean or dnf clean all on the node, then run the playbook again",
    ),
    _Kind(
        "GF-PACKAGE-UNREACHABLE",
        re.compile(r"(?:Failed|Unable) to fetch|Could not (?:connect|resolve)|Failed to download|Cannot download|Curl error"),
        "not all packages could be downloaded, so none was installed",
        "the mirror stopped answering, or the node lost its way to it",
        "see that the node reaches the address in the message, then run the playbook again",
    ),
    _Kind(
        "GF-APT-LOCKED",
        re.compile(r"Could not get lock|Unable to (?:acquire|lock)|is locked by another process"),
        "another package manager is at work",
        "unattended upgrades, or an apt or dpkg that waits for an answer in some terminal",
        "let it end (ps, journalctl -u apt-daily-upgrade), then run the playbook again",
    ),
    _Kind(
        "GF-PACKAGE-SCRIPT",
        re.compile(r"Errors were encountered while processing|scriptlet failed|subprocess returned error exit status"),
        "a package was unpacked and its own script failed",
        "the script of the package that is named ended with an error; what it said stands above that line",
        "journalctl and /var/log/apt/term.log on the node tell the whole of it",
    ),
)  # fmt: skip


def judge(result: dict[str, Any]) -> str:
    """What a user reads of a failed task: an error with a code, whichever module failed.

    :param result: the failed task's result, as Ansible's ``ansible_failed_result`` has it.
    """
    message = str(result.get("msg", ""))
    if _CODED.match(message):
        return message
    said = "\n".join([*(str(result.get(key) or "") for key in ("stdout", "stderr")), message])
    telling = _telling(said) or message.strip() or "it did not say why"
    for kind in _KINDS:
        if kind.pattern.search(said):
            return str(GpufleetError(kind.code, f"{kind.message}: {telling}", kind.cause, kind.mend))
    return str(
        GpufleetError(
            "GF-PACKAGE-FAILED",
            f"the packages could not be installed: {telling}",
            "the package manager's own words above say it",
            "mend what they name, then run the playbook again",
        )
    )


def _telling(said: str) -> str:
    # The name of the package at fault stands on a line of its own.
    lines = said.replace("while processing:\n ", "while processing: ").splitlines()
    found = dict.fromkeys(line.rpartition("' failed: ")[2].strip() for line in lines if _TELLING.search(line))
    return "; ".join(list(found)[-_LINES:])
