# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that the alternatives system keeps, as NVIDIA's packages leave ``/usr/local/cuda``. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Callable, List, Tuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Runs a command, gives (status, stdout, stderr). An alias is evaluated when it is read, so typing's names (3.8).
Run = Callable[[List[str]], Tuple[int, str, str]]
DIRECTORY = "/etc/alternatives"
# Both families have the program under this name.
PROGRAM = "update-alternatives"


def kept_link(path: str, directory: str = DIRECTORY) -> str | None:
    """The second link, ``/etc/alternatives/<name>``, where ``path`` leads through it; else None."""
    try:
        target = os.readlink(path)
    except OSError:
        return None
    return target if os.path.dirname(target) == directory else None


def choices(text: str) -> list[str]:
    """The registered paths, from ``update-alternatives --display``."""
    return re.findall(r"^(/\S+) - (?:\S+ )*priority \d+$", text, re.MULTILINE)


def choose(path: str, name: str, target: str, run: Run) -> None:
    """Let ``path`` lead to ``target``, and stay there whatever is installed later.

    :raises GpufleetError: GF-CUDA-ALTERNATIVES where the alternatives system refuses.
    """
    code, out, _err = run([PROGRAM, "--display", name])
    commands = [[PROGRAM, "--set", name, target]]
    if code != 0 or target not in choices(out):
        # Lower than any of NVIDIA's own: should the choice ever be left to the system, theirs wins as it did before.
        commands.insert(0, [PROGRAM, "--install", path, name, target, "1"])
    for command in commands:
        code, out, err = run(command)
        if code != 0:
            raise GpufleetError(
                "GF-CUDA-ALTERNATIVES",
                f"{path} could not be pointed at {target}: {(err or out).strip()}",
                "the records of update-alternatives are damaged, or another package owns the link",
                f"{PROGRAM} --display {name}, then: {' '.join(commands[-1])}",
            )
