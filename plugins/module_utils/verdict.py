# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the check script in each environment and keep what it found as the node's verdict. Private to the collection."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SCHEMA = 1
FILE_NAME = "verdict.json"
STATUSES = ("passed", "failed", "skipped")
CHECK_KEYS = ("name", "status", "measured", "expected", "seconds", "message")

# The name of the check that stands for the script itself.
SCRIPT_CHECK = "script"
# What the script exits with when it ran to its end: nothing failed, something failed.
SCRIPT_EXITS = (0, 1)
# After SIGTERM, before SIGKILL; and after SIGKILL, before a process that is stuck in the driver is left behind.
GRACE_SECONDS = 3.0
ERROR_TAIL_CHARACTERS = 2000

EXPECTED_OF_NODE = ("gpus", "compute_capabilities", "gpu_checks", "gpu_skip_reason", "driver_pending", "seed")
EXPECTED_OF_ENVIRONMENT = ("torch_version", "cuda", "cudnn", "torchvision", "torchaudio")


class Ended(NamedTuple):
    """How a process ended. ``rc`` is None where it had to be killed."""

    rc: int | None
    out: str
    err: str
    seconds: float


Runner = Callable[..., Ended]


def script_environment(ld_library_path: list[str], home: str) -> dict[str, str]:
    """The environment variables of the script: its locale, the given library path, and nothing of the caller's.

    Python writes no byte code, so that checking an environment leaves it as it was.
    """
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "LANGUAGE": "C",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    existing = [path for path in ld_library_path if os.path.isdir(path)]
    if existing:
        environment["LD_LIBRARY_PATH"] = ":".join(existing)
    return environment


def run(argv: list[str], environment: dict[str, str], cwd: str, timeout: float) -> Ended:
    """Run a program in a process group of its own, and end that group after ``timeout`` seconds.

    Output goes to files: a pipe would keep this waiting for as long as any descendant holds it open.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with open(os.devnull, "rb") as nothing:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv, stdin=nothing, stdout=out, stderr=err, cwd=cwd, env=environment, start_new_session=True
            )
        try:
            rc: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            rc = None
        finally:
            _end_group(process)
        seconds = time.monotonic() - started
        return Ended(rc, _content(out), _content(err), seconds)


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what the program left running: asked first, then killed; what can't even be killed is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        if process.poll() is None:
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue


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


def read_checks(ended: Ended, timeout: float) -> list[dict[str, Any]]:
    """The checks that the script reported, or the one that says why it reported none."""
    if ended.rc is None:
        message = f"GF-VERIFY-TIMEOUT: the checks took longer than {timeout:g} seconds and were ended"
        return [script_failure(message, _tail(ended), ended.seconds)]
    if ended.rc not in SCRIPT_EXITS:
        how = f"was ended by signal {-ended.rc}" if ended.rc < 0 else f"exited with {ended.rc}"
        return [script_failure(f"GF-VERIFY-NOT-RUN: the script {how}: {_tail(ended)}", ended.rc, ended.seconds)]
    try:
        checks = _valid_checks(json.loads(ended.out))
    except ValueError as error:
        message = f"GF-VERIFY-UNREADABLE: the script's answer can't be used: {error}"
        return [script_failure(message, ended.out[-ERROR_TAIL_CHARACTERS:], ended.seconds)]
    failed = any(check["status"] == "failed" for check in checks)
    if failed != (ended.rc == 1):
        message = f"GF-VERIFY-UNREADABLE: the script exited with {ended.rc}, which its checks contradict"
        checks.append(script_failure(message, ended.rc, ended.seconds))
    return checks


def _valid_checks(document: Any) -> list[dict[str, Any]]:
    """The checks of the document as the contract has them.

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
    return [{key: check[key] for key in CHECK_KEYS} for check in checks]


def _tail(ended: Ended) -> str:
    return (ended.err or ended.out).strip()[-ERROR_TAIL_CHARACTERS:]


def check_environment(
    environment: dict[str, Any],
    node: dict[str, Any],
    script: str,
    timeout: float,
    *,
    ld_library_path: list[str],
    runner: Runner = run,
) -> dict[str, Any]:
    """Run the script with the environment's Python and say what it found: {name, ok, checks}."""
    with tempfile.TemporaryDirectory(prefix="gpufleet-verify-") as folder:
        expect = os.path.join(folder, "expect.json")
        with open(expect, "w", encoding="utf-8") as file:
            json.dump(expectations(environment, node), file)
        argv = [environment["interpreter"], script, "--json", "--expect", expect]
        try:
            ended = runner(argv, script_environment(ld_library_path, folder), folder, timeout)
        except OSError as error:
            message = f"GF-VERIFY-NOT-RUN: {environment['interpreter']} can't be run: {error.strerror or error}"
            checks = [script_failure(message, None, 0.0)]
        else:
            checks = read_checks(ended, timeout)
    return {
        "name": environment["name"],
        "ok": not any(check["status"] == "failed" for check in checks),
        "checks": checks,
    }


def make_verdict(
    environments: list[dict[str, Any]],
    node: dict[str, Any],
    script: str,
    timeout: float,
    *,
    plan_digest: str,
    ld_library_path: list[str],
    runner: Runner = run,
) -> dict[str, Any]:
    """Check every environment and put the verdict together.

    :raises GpufleetError: GF-VERIFY-NOTHING, GF-VERIFY-SCRIPT.
    """
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
    started = time.monotonic()
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    checked = [
        check_environment(environment, node, script, timeout, ld_library_path=ld_library_path, runner=runner)
        for environment in environments
    ]
    return {
        "schema": SCHEMA,
        "ok": all(environment["ok"] for environment in checked),
        "at": at,
        "plan_digest": plan_digest,
        "host": socket.gethostname(),
        "environments": checked,
        "seconds": round(time.monotonic() - started, 3),
    }


def outcome(verdict: dict[str, Any] | None) -> Any:
    """What of a verdict decides whether another one says the same: no times and no measured values."""
    if verdict is None:
        return None
    try:
        return (
            verdict["ok"],
            verdict["plan_digest"],
            [
                (environment["name"], [(check["name"], check["status"]) for check in environment["checks"]])
                for environment in verdict["environments"]
            ],
        )
    except (KeyError, TypeError):
        return None


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


def write(path: str, verdict: dict[str, Any]) -> None:
    """Write the verdict so that a reader sees the old one or the new one, also after a power cut.

    :raises GpufleetError: GF-VERDICT-WRITE.
    """
    folder = os.path.dirname(path)
    temporary = None
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".verdict-", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(verdict, file, indent=1, sort_keys=True, allow_nan=False)
            file.write("\n")
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
        raise GpufleetError(
            "GF-VERDICT-WRITE",
            f"the verdict can't be written to {path}: {error.strerror or error}",
            "no rights, a read-only file system or a full disk",
            "run with become: true, and look at: df -h " + folder,
        ) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)
