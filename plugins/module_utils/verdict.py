# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the check script in each environment and make the node's verdict of what it found. Private to the collection."""

from __future__ import annotations

import json
import math
import os
import socket
import tempfile
import time
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import driver
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_account import Account, give, own_name
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_process import (
    Ended,
    Runner,
    run,
    script_environment,
)

SCHEMA = 2
# Each serves wherever one before it is wanted.
LEVELS = ("quick", "standard", "health")
STATUSES = ("passed", "failed", "skipped")
CHECK_KEYS = ("name", "status", "measured", "expected", "seconds", "message")
FIGURE_KEYS = ("metric", "unit", "better", "device", "value")

# The name of the check that stands for the script itself.
SCRIPT_CHECK = "script"
# What the script exits with when it ran to its end: nothing failed, something failed.
SCRIPT_EXITS = (0, 1)
ERROR_TAIL_CHARACTERS = 2000

EXPECTED_OF_NODE = (
    "gpus", "devices", "compute_capabilities", "gpu_checks", "gpu_skip_reason", "driver_pending", "toolkit", "soak_seconds", "seed",
)  # fmt: skip
EXPECTED_OF_ENVIRONMENT = ("torch_version", "cuda", "cudnn", "torchvision", "torchaudio")


class How(NamedTuple):
    """How the script is run: with what, for how long, as whom, and where it may write."""

    script: str
    level: str = "quick"
    timeout: float = 300
    ld_library_path: tuple[str, ...] = ()
    account: Account | None = None
    runner: Runner = run
    # None: where temporary files lie.
    scratch: str | None = None


class Answer(NamedTuple):
    """What the script said of one environment."""

    checks: list[dict[str, Any]]
    performance: list[dict[str, Any]]
    python: str | None


def expectations(environment: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What the script is told to expect of one environment on this node."""
    expected = {key: environment[key] for key in EXPECTED_OF_ENVIRONMENT if key in environment}
    expected.update({key: node[key] for key in EXPECTED_OF_NODE if key in node})
    return expected


def script_failure(message: str, measured: Any, seconds: float) -> dict[str, Any]:
    """The check that says that the script itself went wrong."""
    return {
        "name": SCRIPT_CHECK,
        "status": "failed",
        "measured": measured,
        "expected": "exit status 0 or 1 and one JSON document",
        "seconds": round(seconds, 3),
        "message": message,
    }


def read_answer(ended: Ended, how: How) -> Answer:
    """What the script reported, or the one check that says why it reported nothing."""
    if ended.rc is None:
        message = f"GF-VERIFY-TIMEOUT: the checks took longer than {how.timeout:g} seconds and were ended"
        return _nothing(message, _tail(ended), ended.seconds)
    if ended.rc not in SCRIPT_EXITS:
        end = f"was ended by signal {-ended.rc}" if ended.rc < 0 else f"exited with {ended.rc}"
        return _nothing(f"GF-VERIFY-NOT-RUN: the script {end}: {_tail(ended)}", ended.rc, ended.seconds)
    try:
        answer = _valid(json.loads(ended.out), how.level)
    except ValueError as error:
        message = f"GF-VERIFY-UNREADABLE: the script's answer can't be used: {error}"
        return _nothing(message, ended.out[-ERROR_TAIL_CHARACTERS:], ended.seconds)
    failed = any(check["status"] == "failed" for check in answer.checks)
    if failed != (ended.rc == 1):
        message = f"GF-VERIFY-UNREADABLE: the script exited with {ended.rc}, which its checks contradict"
        answer.checks.append(script_failure(message, ended.rc, ended.seconds))
    return answer


def _nothing(message: str, measured: Any, seconds: float) -> Answer:
    return Answer([script_failure(message, measured, seconds)], [], None)


def _valid(document: Any, level: str) -> Answer:
    """The answer as the contract has it.

    :raises ValueError: where it is anything else.
    """
    checks = document.get("checks") if isinstance(document, dict) else None
    if not isinstance(checks, list) or not checks:
        raise ValueError("it holds no checks")
    for check in checks:
        if not isinstance(check, dict) or any(key not in check for key in CHECK_KEYS):
            raise ValueError(f"this is no check: {check!r:.200}")
        if check["status"] not in STATUSES:
            raise ValueError(f"check {check['name']} has the status {check['status']!r:.50}")
    if all(check["status"] == "skipped" for check in checks):
        raise ValueError("every check was skipped, so nothing was proved")
    if document.get("level", level) != level:
        raise ValueError(f"it is of level {document['level']!r:.50}, and {level} was asked for")
    figures = document.get("performance", [])
    if not isinstance(figures, list) or not all(_is_figure(figure) for figure in figures):
        raise ValueError(f"this is no list of measured figures: {figures!r:.200}")
    return Answer(
        [{key: check[key] for key in CHECK_KEYS} for check in checks],
        [{key: figure[key] for key in FIGURE_KEYS} for figure in figures],
        document.get("python"),
    )


def _is_figure(figure: Any) -> bool:
    if not isinstance(figure, dict) or any(key not in figure for key in FIGURE_KEYS):
        return False
    value = figure["value"]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return number and figure["better"] in ("higher", "lower")


def _tail(ended: Ended) -> str:
    return (ended.err or ended.out).strip()[-ERROR_TAIL_CHARACTERS:]


def check_environment(environment: dict[str, Any], node: dict[str, Any], how: How) -> tuple[dict[str, Any], Answer]:
    """Run the script with the environment's Python: the environment's part of the verdict, and all that it answered."""
    with tempfile.TemporaryDirectory(prefix="gpufleet-verify-", dir=how.scratch) as folder:
        expect = os.path.join(folder, "expect.json")
        with open(expect, "w", encoding="utf-8") as file:
            json.dump(expectations(environment, node), file)
        give(expect, how.account)
        give(folder, how.account)
        argv = [environment["interpreter"], how.script, "--json", "--expect", expect, "--level", how.level]
        variables = script_environment(list(how.ld_library_path), folder, how.account)
        try:
            ended = how.runner(argv, variables, folder, how.timeout, how.account)
        except OSError as error:
            message = f"GF-VERIFY-NOT-RUN: {environment['interpreter']} can't be run: {error.strerror or error}"
            answer = _nothing(message, None, 0.0)
        else:
            answer = read_answer(ended, how)
    return {
        "name": environment["name"],
        "torch_version": environment.get("torch_version"),
        "interpreter": environment["interpreter"],
        "python": answer.python,
        "ok": not any(check["status"] == "failed" for check in answer.checks),
        "checks": answer.checks,
    }, answer


def _require(environments: list[dict[str, Any]], script: str) -> None:
    if not environments:
        raise GpufleetError(
            "GF-VERIFY-NOTHING",
            "there is no environment to verify",
            "the list of environments is empty",
            "name at least one environment in pytorch_environments",
        )
    if not os.path.isfile(script):
        raise GpufleetError(
            "GF-VERIFY-SCRIPT",
            f"{script} is not there",
            "the script was not copied to the node, or was removed since",
            "run the verify role, which copies it",
        )


def make_verdict(
    environments: list[dict[str, Any]], node: dict[str, Any], how: How, *, plan_digest: str
) -> dict[str, Any]:
    """Check every environment and put the verdict together.

    :raises GpufleetError: GF-VERIFY-NOTHING, GF-VERIFY-SCRIPT, and what the way to run it raises.
    """
    _require(environments, how.script)
    started = time.monotonic()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = [check_environment(environment, node, how) for environment in environments]
    checked = [environment for environment, _answer in found]
    return {
        "schema": SCHEMA,
        "ok": all(environment["ok"] for environment in checked),
        "at": at,
        "plan_digest": plan_digest,
        "host": socket.gethostname(),
        "level": how.level,
        "user": how.account.name if how.account is not None else own_name(),
        **loaded(),
        "environments": checked,
        "performance": [
            {"environment": environment["name"], **figure}
            for environment, answer in found
            for figure in answer.performance
        ],
        "seconds": round(time.monotonic() - started, 3),
    }


def loaded(root: str = "/") -> dict[str, Any]:
    """The driver that is loaded, and the number of GPUs that it lists; later looks compare with it."""
    try:
        gpus = len(os.listdir(os.path.join(root, "proc/driver/nvidia/gpus")))
    except OSError:
        gpus = 0
    return {"driver": driver.loaded(root).version, "gpus": gpus}
