# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What login shells get in their environment, read from the files that set it. Private to the collection.

No shell is started: a profile may run anything. Read are assignments of plain values and of other variables, as
profile files write them; a value that a command makes is left out. A condition counts as true.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

_FILES = ("/etc/environment", "/etc/profile")
_ZSH_FILES = ("/etc/zsh/zshenv", "/etc/zsh/zprofile", "/etc/zprofile")
_ASSIGNMENT = re.compile(
    r"""(?:^|[;\s])(?:export\s+)?([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|[^\s;&|]*)""",
)
_REFERENCE = re.compile(r"\$(?:\{(\w+)(?::?([-+])((?:[^{}]|\{[^{}]*\})*))?\}|(\w+))")


def _expand(value: str, known: dict[str, str]) -> str:
    """Puts in ``$A``, ``${A}``, ``${A:-other}`` and ``${A:+other}``."""

    def replace(match: re.Match[str]) -> str:
        current = known.get(match.group(1) or match.group(4), "")
        if match.group(2) == "+":
            return _expand(match.group(3), known) if current else ""
        if match.group(2) == "-" and not current:
            return _expand(match.group(3), known)
        return current

    return _REFERENCE.sub(replace, value)


def written(text: str) -> list[tuple[str, str]]:
    """Name and value of every assignment, in order, with the quotes in which the value stands."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = ((match.group(1), match.group(2)) for match in _ASSIGNMENT.finditer("\n".join(lines)))
    return [(name, value) for name, value in found if "$(" not in value and "`" not in value]


def _assignments(text: str) -> list[tuple[str, str]]:
    """The same without quotes; in single ones, in which nothing is put in, a zero byte stands for the dollar sign."""
    found = []
    for name, quoted in written(text):
        value = quoted.replace("$", "\0") if quoted.startswith("'") else quoted
        found.append((name, value[1:-1] if value[:1] in ("'", '"') else value))
    return found


def _entries(value: str) -> list[str]:
    entries: list[str] = []
    for entry in value.split(":"):
        if entry and entry not in entries:
            entries.append(entry)
    return entries


def _concerns_cuda(name: str, value: str) -> bool:
    return name in ("CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH") or (name == "PATH" and "cuda" in value.lower())


def read(sysroot: Sysroot) -> dict[str, Any]:
    """The ``environment`` part of the CUDA facts."""
    known: dict[str, str] = {}
    set_by: list[str] = []
    files = [*_FILES, *sysroot.listing("/etc/profile.d", "*.sh"), *_ZSH_FILES]
    for path in files:
        for name, raw in _assignments(sysroot.text(path) or ""):
            value = _expand(raw, known).replace("\0", "$")
            # Only what this file adds: a PATH that merely hands on the former one is not its doing.
            if _concerns_cuda(name, value.replace(known.get(name) or "\0", "")) and path not in set_by:
                set_by.append(path)
            known[name] = value
    return {
        "cuda_home": known.get("CUDA_HOME") or known.get("CUDA_PATH") or None,
        "path": _entries(known.get("PATH", "")),
        "ld_library_path": _entries(known.get("LD_LIBRARY_PATH", "")),
        "set_by": set_by,
    }
