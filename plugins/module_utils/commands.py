# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a node's programs for functions that take a ``run``. Private to the collection."""

from __future__ import annotations

from typing import Any, Callable, List, Tuple

# Runs a command, gives (status, stdout, stderr). An alias is evaluated when it is read, so typing's names (3.8).
Run = Callable[[List[str]], Tuple[int, str, str]]


def runner(module: Any) -> Run:
    """Runs commands of an ``AnsibleModule`` in the C locale and without questions, root's programs too; 127 where a program is missing."""
    module.run_command_environ_update = {"LANGUAGE": "C", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}

    def run(command: list[str]) -> tuple[int, str, str]:
        program = module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            return 127, "", f"{command[0]} is not installed"
        code, out, err = module.run_command([program, *command[1:]])
        return code, out, err

    return run
