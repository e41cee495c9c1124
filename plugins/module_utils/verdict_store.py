# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's verdict and its former ones, as files. Private to the collection."""

from __future__ import annotations

import json
import os
import re
import tempfile
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

FILE_NAME = "verdict.json"
# What gpufleet-verify has to know of the node.
SETTINGS = "gpufleet-verify.json"
# Every verdict without its history, in a file named after its time.
FORMER = "verdicts"
# How many stay there, and how many of them a verdict carries along: the probe of every run hands that over.
KEPT = 20
CARRIED = 10
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}Z(-\d+)?\.json")


def verdict_path(state_dir: str) -> str:
    """Where the verdict of a node lies."""
    return os.path.join(state_dir, FILE_NAME)


def read(path: str) -> dict[str, Any] | None:
    """The verdict in a file; None where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            verdict = json.load(file)
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) else None


def outcome(verdict: dict[str, Any] | None) -> Any:
    """What of a verdict decides whether another one says the same: no times and no measured values."""
    if verdict is None:
        return None
    try:
        return (
            verdict["ok"],
            verdict["plan_digest"],
            verdict.get("level"),
            verdict.get("user"),
            [
                (environment["name"], [(check["name"], check["status"]) for check in environment["checks"]])
                for environment in verdict["environments"]
            ],
        )
    except (KeyError, TypeError):
        return None


def history(state_dir: str, most: int = CARRIED) -> list[dict[str, Any]]:
    """What the former verdicts measured, the newest last: {at, ok, level, driver, torch, performance}."""
    found = (read(path) for path in _former(state_dir)[-most:])
    return [_remembered(verdict) for verdict in found if verdict is not None and verdict.get("schema") == 2]


def _remembered(verdict: dict[str, Any]) -> dict[str, Any]:
    # What is of the node itself has no torch.
    environments = [each for each in verdict.get("environments") or [] if each.get("torch_version")]
    versions = [str(environment.get("torch_version")) for environment in environments]
    if len(environments) > 1:
        versions = [f"{environment.get('name')} {version}" for environment, version in zip(environments, versions)]
    return {
        "at": verdict.get("at"),
        "ok": verdict.get("ok"),
        "level": verdict.get("level"),
        "driver": verdict.get("driver"),
        "torch": ", ".join(versions),
        "performance": verdict.get("performance") or [],
    }


def _former(state_dir: str) -> list[str]:
    folder = os.path.join(state_dir, FORMER)
    try:
        # Two of the same second: the first has no number.
        names = sorted((name for name in os.listdir(folder) if _NAME.fullmatch(name)), key=lambda name: name[:-5])
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names]


def keep(state_dir: str, verdict: dict[str, Any], most: int = KEPT) -> None:
    """Write the verdict, and keep it among the former ones, of which the oldest go.

    :raises GpufleetError: GF-VERDICT-WRITE.
    """
    write(verdict_path(state_dir), verdict)
    former = {name: value for name, value in verdict.items() if name != "history"}
    folder = os.path.join(state_dir, FORMER)
    name = str(verdict["at"]).replace(":", "")
    path, number = os.path.join(folder, f"{name}.json"), 1
    while os.path.exists(path):
        path, number = os.path.join(folder, f"{name}-{number}.json"), number + 1
    write(path, former)
    for old in _former(state_dir)[:-most]:
        _unlink(old)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise _unwritten(path, error) from error


def write(path: str, verdict: dict[str, Any]) -> None:
    """Write the verdict so that a reader sees the old one or the new one, also after a power cut.

    :raises GpufleetError: GF-VERDICT-WRITE.
    """
    put(path, json.dumps(verdict, indent=1, sort_keys=True, allow_nan=False) + "\n")


def put(path: str, text: str) -> None:
    """Write a text whole, for everybody to read.

    :raises GpufleetError: GF-VERDICT-WRITE.
    """
    folder = os.path.dirname(path)
    temporary = None
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".verdict-", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _unwritten(path: str, error: OSError) -> GpufleetError:
    return GpufleetError(
        "GF-VERDICT-WRITE",
        f"the verdict can't be written to {path}: {error.strerror or error}",
        "no rights, a read-only file system or a full disk",
        "run with become: true, and look at: df -h " + os.path.dirname(path),
    )
