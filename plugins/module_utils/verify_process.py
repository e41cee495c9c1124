# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the check script: its environment, its user, and its end after a stated time. Private to the collection."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.verify_account import Account

# After SIGTERM, before SIGKILL; and after SIGKILL, before a process that is stuck in the driver is left behind.
GRACE_SECONDS = 3.0


class Ended(NamedTuple):
    """How a process ended. ``rc`` is None where it had to be killed."""

    rc: int | None
    out: str
    err: str
    seconds: float


Runner = Callable[..., Ended]


def script_environment(ld_library_path: list[str], home: str, account: Account | None = None) -> dict[str, str]:
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
    if account is not None:
        environment.update(USER=account.name, LOGNAME=account.name)
    existing = [path for path in ld_library_path if os.path.isdir(path)]
    if existing:
        environment["LD_LIBRARY_PATH"] = ":".join(existing)
    return environment


def start(
    argv: list[str], environment: dict[str, str], cwd: str, out: Any, err: Any, account: Account | None
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, as ``account`` where one is given."""
    with open(os.devnull, "rb") as nothing:
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=nothing,
            stdout=out,
            stderr=err,
            cwd=cwd,
            env=environment,
            start_new_session=True,
            # Python 3.8 has no user= yet; a module has one thread, so nothing is held over the fork.
            preexec_fn=account.become if account is not None else None,  # noqa: PLW1509 - one thread
        )


def run(
    argv: list[str], environment: dict[str, str], cwd: str, timeout: float, account: Account | None = None
) -> Ended:
    """Run a program in a process group of its own, and end that group after ``timeout`` seconds.

    Output goes to files: a pipe would keep this waiting for as long as any descendant holds it open.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(argv, environment, cwd, out, err, account)
        try:
            rc: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            rc = None
        finally:
            end_group(process)
        seconds = time.monotonic() - started
        return Ended(rc, content(out), content(err), seconds)


def content(file: Any) -> str:
    """What a program has written to a file up to now."""
    # The program shares the place where it writes: reading must not move it.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")


def end_group(process: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """End what the program left running: asked first, then killed; what can't even be killed is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        if process.poll() is None:
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                continue
