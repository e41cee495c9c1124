# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What failed in a verdict, why that usually is and what mends it. Private to the collection."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

Row = dict[str, Any]

VALUE_CHARACTERS = 120
REBOOT_NEEDED = "GF-REBOOT-NEEDED"

# What usually lies behind a failed check, and what mends it. The first that the check's name begins with counts.
REMEDIES = (
    (
        ("script",),
        "the environment's Python or its torch is damaged, or the node was too slow",
        "run the playbook again for this node; give a slow one more time with verify_timeout",
    ),
    (
        ("torch_", "torchvision", "torchaudio"),
        "packages of the environment were changed by hand after it was made",
        "run the playbook again for this node; keep changes of your own in an environment of your own",
    ),
    (
        ("libraries",),
        "LD_LIBRARY_PATH names a directory whose CUDA libraries hide those that torch was built with",
        "leave that directory out of LD_LIBRARY_PATH where torch is used",
    ),
    (
        ("cuda_available", "gpu_"),
        "the driver does not run, is too old for this torch, or a GPU has dropped out",
        "look at nvidia-smi and dmesg on the node, then run the playbook again for it",
    ),
    (
        ("",),
        "torch does not compute what it should: damaged files, or faulty hardware",
        "remove the environment's directory and run the playbook again; if it stays, test the node's memory",
    ),
)


class Failure(NamedTuple):
    """One failed check of one environment."""

    environment: str
    check: Row


def failures(verdict: Row) -> list[Failure]:
    """Every failed check."""
    return [
        Failure(environment["name"], check)
        for environment in verdict["environments"]
        for check in environment["checks"]
        if check["status"] == "failed"
    ]


def failure_lines(verdict: Row, host: str | None = None) -> list[str]:
    """What failed on the node, why that usually is and what mends it; nothing where nothing failed."""
    failed = failures(verdict)
    if not failed:
        return []
    node = host or verdict["host"]
    if all(needs_reboot(failure) for failure in failed):
        lines = [f"{REBOOT_NEEDED}: {node} must be rebooted before its GPUs can be verified"]
        causes = [("the driver was installed, but the running kernel has not loaded it", f"reboot {node}, run again")]
    else:
        lines = [f"GF-VERIFY-FAILED: {counted(len(failed), 'check')} failed on {node}"]
        causes = remedies(failed)
    lines += [f"  {failure.environment}/{failure.check['name']}: {failure_text(failure.check)}" for failure in failed]
    for cause, mend in causes:
        lines += [f"  cause: {cause}", f"  mend:  {mend}"]
    return lines


def needs_reboot(failure: Failure) -> bool:
    """Whether nothing is wrong but that the driver waits for a reboot."""
    return str(failure.check["message"]).startswith(REBOOT_NEEDED)


def remedies(failed: list[Failure]) -> list[tuple[str, str]]:
    """The usual cause of each failure and what mends it, none twice."""
    found = []
    for failure in failed:
        name = failure.check["name"]
        remedy = next((cause, mend) for prefixes, cause, mend in REMEDIES if name.startswith(prefixes))
        if remedy not in found:
            found.append(remedy)
    return found


def failure_text(check: Row) -> str:
    """What failed, with what was measured and expected where the message does not say so."""
    text = check["message"] or "failed"
    values = [
        f"{what} {_short(check[what])}"
        for what in ("measured", "expected")
        if check["name"] != "script"
        and check[what] is not None
        and not (isinstance(check[what], str) and check[what] in text)
    ]
    return f"{text} ({', '.join(values)})" if values else str(text)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
