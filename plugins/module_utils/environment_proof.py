# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof of an environment: torch and its companions import, and are what the plan has. Private to the collection."""

from __future__ import annotations

import json
import os
import subprocess

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

IMPORT_TIMEOUT = 600
CLEAN = {"LC_ALL": "C", "PATH": "/usr/local/bin:/usr/bin:/bin"}

# Runs in the environment, in a process of its own. The answer is marked, for packages may print when imported.
PROOF = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    found[name] = str(getattr(importlib.import_module(name), "__version__", None))
import torch
found["cuda"] = torch.version.cuda
print("gpufleet-proof:" + json.dumps(found))
"""


def prove(name: str, path: str, torch_version: str, cuda: str | None, companions: dict[str, str]) -> None:
    """Import the packages in a fresh process with a clean environment and compare the versions.

    Nothing keeps Python from writing the compiled files here: users cannot write them, and would compile each time.
    """
    names = ["torch", *sorted(companions)]
    command = [os.path.join(path, "bin", "python"), "-I", "-c", PROOF, *names]
    try:
        answer = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=CLEAN,
            cwd="/",
            timeout=IMPORT_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _import_failed(name, path, names, str(error)) from error
    line = next((line for line in answer.stdout.splitlines() if line.startswith("gpufleet-proof:")), None)
    if answer.returncode != 0 or line is None:
        last = (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1]
        raise _import_failed(name, path, names, last)
    found = json.loads(line.partition(":")[2])
    expected: dict[str, str | None] = {"torch": torch_version, "cuda": cuda, **companions}
    wrong = [
        f"{name} is {found[name]}, the plan has {value}"
        for name, value in expected.items()
        if not _same_version(name, found[name], value)
    ]
    if wrong:
        raise GpufleetError(
            "GF-TORCH-WRONG-VERSION",
            f"environment {name}: {'; '.join(wrong)}",
            "the lock holds another build than the plan, or a requirement of the environment replaced it",
            "look at the environment's requirements; remove its lock on the controller and run again",
        )


def prove_start(name: str, path: str) -> None:
    """The environment's Python starts, is this environment's, and finds torch in it; its files were proved elsewhere."""
    python = os.path.join(path, "bin", "python")
    code = "import importlib.util, sys; print(sys.prefix); print(importlib.util.find_spec('torch').origin)"
    try:
        answer = subprocess.run(  # pylint: disable=ansible-bad-function
            [python, "-I", "-c", code],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            env=CLEAN,
            cwd="/",
        )
    except OSError as error:
        raise _import_failed(name, path, ["torch"], str(error)) from error
    found = [os.path.realpath(line) for line in answer.stdout.splitlines()]
    inside = os.path.realpath(path)
    if answer.returncode != 0 or len(found) != 2 or found[0] != inside or not found[1].startswith(inside + os.sep):
        last = (answer.stderr.strip().splitlines() or [answer.stdout.strip() or f"exit status {answer.returncode}"])[-1]
        raise _import_failed(name, path, ["torch"], last)


def _same_version(name: str, found: str | None, expected: str | None) -> bool:
    """torch is held to its whole version; companions tell their variant only in some builds (0.15.2, 0.15.2+cu117)."""
    if found == expected or name in ("torch", "cuda"):
        return found == expected
    return str(found).partition("+")[0] == str(expected).partition("+")[0]


def _import_failed(name: str, path: str, names: list[str], reason: str) -> GpufleetError:
    return GpufleetError(
        "GF-TORCH-IMPORT",
        f"environment {name}: import of {', '.join(names)} fails: {reason}",
        "a shared library is missing or two packages of the environment do not fit each other",
        f"see the whole message on the node: {path}/bin/python -I -c 'import {', '.join(names)}'",
    )
