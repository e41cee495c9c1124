# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting variables and prepending to search paths, in the words of each shell. Private to the collection.

Read twice, no text does anything new. A variable that is set already is left alone, so that a shell inside a shell keeps
what its user chose. A search path that was empty gets no stray colon, which would mean the working directory.
"""

from __future__ import annotations

import re
import shlex
from typing import Callable, Dict, List

# An alias is evaluated when it is read, so typing's names (3.8).
Variables = Dict[str, str]
Paths = Dict[str, List[str]]


def sh(variables: Variables, prepend: Paths) -> list[str]:
    """Lines for sh and its kin: bash, dash, ksh, and zsh in its emulation of sh."""
    lines = []
    for variable, value in variables.items():
        lines += [f'[ -n "${{{variable}-}}" ] || {variable}={shlex.quote(value)}', f"export {variable}"]
    for variable, directories in prepend.items():
        for directory in reversed(directories):
            joined = re.sub(r'([\\"$`])', r"\\\1", directory) + f"${{{variable}:+:${{{variable}}}}}"
            search = f'case ":${{{variable}-}}:" in *:{shlex.quote(directory)}:*) ;;'
            lines.append(f'{search} *) {variable}="{joined}" ;; esac')
        lines.append(f"export {variable}")
    return lines


def csh(variables: Variables, prepend: Paths) -> list[str]:
    """Lines for csh and tcsh. They look into a variable even where a condition keeps a line from running, so many lines."""
    lines = []
    for variable, value in variables.items():
        lines += [
            f"if ( ! $?{variable} ) setenv {variable} ''",
            f"if ( \"${variable}\" == '' ) setenv {variable} {_csh(value)}",
        ]
    for variable, directories in prepend.items():
        lines.append(f"if ( ! $?{variable} ) setenv {variable} ''")
        for directory in reversed(directories):
            lines += [
                f"set gpufleet_directory = {_csh(directory)}",
                f'if ( ":${{{variable}}}:" !~ *":${{gpufleet_directory}}:"* ) then',
                f"  if ( \"${{{variable}}}\" == '' ) then",
                f'    setenv {variable} "${{gpufleet_directory}}"',
                "  else",
                f'    setenv {variable} "${{gpufleet_directory}}:${{{variable}}}"',
                "  endif",
                "endif",
            ]
    return [*lines, "unset gpufleet_directory"] if any(prepend.values()) else lines


def fish(variables: Variables, prepend: Paths) -> list[str]:
    """Lines for fish."""
    lines = [f'test -n "${variable}"; or set -gx {variable} {_fish(value)}' for variable, value in variables.items()]
    for variable, directories in prepend.items():
        for directory in map(_fish, reversed(directories)):
            there = f'(string split --no-empty : -- "${variable}")'
            lines.append(f"contains -- {directory} {there}; or set -gx --path {variable} {directory} {there}")
    return lines


def _csh(text: str) -> str:
    """Quoted for csh, which sees an exclamation mark even between single quotes."""
    return "'" + text.replace("'", "'\\''").replace("!", "\\!") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SYNTAXES: dict[str, Callable[[Variables, Paths], list[str]]] = {"sh": sh, "csh": csh, "fish": fish}
