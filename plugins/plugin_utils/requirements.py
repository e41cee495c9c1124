# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Further requirements of an environment: each one checked, and files of them read. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# ansible-core requires packaging and brings it; a check of this file alone may run without it.
try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError as error:
    PACKAGING_MISSING: ImportError | None = error
else:
    PACKAGING_MISSING = None

DEEPEST = 5


def problem(text: str) -> str | None:
    """What speaks against a requirement, as the end of a sentence; None where it is good."""
    if PACKAGING_MISSING is not None:
        raise PACKAGING_MISSING
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return "is no requirement such as numpy>=1.26 (paths, addresses and options are none)"
    if requirement.url:
        return "names an address: packages come from an index, and from which one is said in pytorch_site_indexes"
    return None


def with_files(wanted: dict[str, Any]) -> dict[str, Any]:
    """The wishes with the content of each requirements file in the place of its path.

    :raises GpufleetError: GF-REQUIREMENTS.
    """
    environments = wanted.get("pytorch_environments")
    if not isinstance(environments, list):
        return wanted
    return {**wanted, "pytorch_environments": [_with_file(each) for each in environments]}


def _with_file(environment: Any) -> Any:
    path = environment.get("requirements") if isinstance(environment, dict) else None
    # What is no full path is for the check of the wishes to refuse.
    if not isinstance(path, str) or not path.startswith(("/", "~")):
        return environment
    return {**environment, "requirements": read(os.path.expanduser(path))}


def read(path: str, depth: int = 0) -> list[str]:
    """The requirements in a file as pip has it: comments, continued lines, and further files (``-r``)."""
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise _error(f"{path} cannot be read: {reason}", f"ls -l {path} on the controller") from error
    found: list[str] = []
    for number, line in _lines(text):
        option = re.match(r"(?:-r|--requirement)[ =]?\s*(\S+)$", line)
        if option and depth < DEEPEST:
            found += read(os.path.join(os.path.dirname(path), option.group(1)), depth + 1)
            continue
        wrong = _option(line) or problem(line)
        if wrong:
            shown = re.sub(r"//[^/@\s]+@", "//", line)
            raise _error(f"{path}, line {number}: {shown:.100} {wrong}", f"correct line {number} of {path}")
        found.append(line)
    return found


def _lines(text: str) -> list[tuple[int, str]]:
    """``(number, line)`` without comments and empty lines; a line that ends with a backslash goes on."""
    lines: list[tuple[int, str]] = []
    begun = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = begun + re.sub(r"(^|\s)#.*$", "", raw).strip()
        begun = line[:-1].rstrip() + " " if line.endswith("\\") else ""
        if line.strip() and not begun:
            lines.append((number, line.strip()))
    return lines


def _option(line: str) -> str | None:
    if "--hash" in line:
        return "has hashes: the lock takes those of the index, and the nodes check them"
    if re.match(r"-c|--constraint", line):
        return "is a file of constraints, which is not read: write its lines as requirements"
    if re.match(r"-i|-f|--(extra-)?index-url|--find-links|--no-index", line):
        return "names an index: set pytorch_index_url or pytorch_site_indexes"
    return "is an option, and only -r is understood" if line.startswith("-") else None


def _error(message: str, mend: str) -> GpufleetError:
    return GpufleetError("GF-REQUIREMENTS", message, "requirements of an environment is the path of a file", mend)
