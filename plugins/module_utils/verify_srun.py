# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the check script through Slurm's srun, where GPUs are hidden from SSH sessions. Private to the collection."""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_account import Account
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_process import Ended, content, end_group, start

# Where sites that build Slurm themselves put it, besides the usual places.
PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/opt/slurm/bin:/usr/local/slurm/bin"
QUEUED, ALLOCATED, TASK = "queued and waiting", "has been allocated", "task 0"
# What srun is given to end its job; and how long a job that was ended may stay in the queue.
END_SECONDS = 10.0
GONE_SECONDS = 30.0
ASK_SECONDS = 10.0
LOOK_SECONDS = 0.25
TAIL_CHARACTERS = 600


class Wish(NamedTuple):
    """What a site wants of the job; ``wait`` are the seconds that it may be queued."""

    account: str = ""
    partition: str = ""
    gres: str = ""
    options: tuple[str, ...] = ()
    wait: float = 600


def gres(wanted: str, gpus: int, gpu_checks: str) -> str:
    """``auto``: as many GPUs as are checked, so that Slurm gives away what is computed on."""
    if wanted != "auto":
        return wanted
    return f"gpu:{gpus}" if gpus and gpu_checks == "run" else ""


class Srun:
    """Runs a program as a job of one task on this node, and leaves no job behind."""

    def __init__(self, wish: Wish, path: str = PLACES) -> None:
        self.wish = wish
        self.program = shutil.which("srun", path=path)
        if self.program is None:
            raise GpufleetError(
                "GF-VERIFY-SRUN-MISSING",
                "verify_launcher is srun, and this node has no srun",
                "Slurm's client programs are not installed here, or lie in none of " + path.replace(":", ", "),
                "install the distribution's slurm-client, or set verify_launcher: direct for this node",
            )

    def command(self, argv: list[str], cwd: str, timeout: float, name: str) -> list[str]:
        """The whole call; the site's own options come last, so that they win."""
        wish = self.wish
        # Slurm's own limit comes after ours: it is there for a node that is cut off from us.
        minutes = math.ceil(timeout / 60) + 1
        node = socket.gethostname().partition(".")[0]
        options = ["--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--time={minutes}", f"--job-name={name}"]
        options += ["--export=ALL", "--mpi=none", f"--chdir={cwd}"]
        for option, value in (("account", wish.account), ("partition", wish.partition), ("gres", wish.gres)):
            options += [f"--{option}={value}"] if value else []
        return [str(self.program), *options, *wish.options, *argv]

    def __call__(
        self, argv: list[str], environment: dict[str, str], cwd: str, timeout: float, account: Account | None = None
    ) -> Ended:
        """Run it; ``timeout`` counts from the moment at which the job runs.

        :raises GpufleetError: GF-VERIFY-SRUN-REFUSED, GF-VERIFY-SRUN-PENDING.
        """
        name = f"gpufleet-verify-{uuid.uuid4().hex[:12]}"
        if "SLURM_CONF" in os.environ:
            environment = {**environment, "SLURM_CONF": os.environ["SLURM_CONF"]}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            command = self.command(argv, cwd, timeout, name)
            process = start(command, environment, cwd, out, err, account)
            started = time.monotonic()
            ended = False
            try:
                rc, pending = self._wait(process, err, timeout)
                ended = rc is not None
            finally:
                end_group(process, END_SECONDS)
                left = "" if ended else self._cancel(name, environment, account)
            seconds = time.monotonic() - started
            found = Ended(rc, content(out), content(err) + left, seconds)
        if pending:
            raise self._pending(found, left)
        if rc and is_refusal(found):
            raise self._refused(found)
        return found

    def _wait(self, process: subprocess.Popen[bytes], err: Any, timeout: float) -> tuple[int | None, bool]:
        """How the job ended (None: not in its time), and whether it was still queued then."""
        begun = runs_since = time.monotonic()
        while True:
            try:
                return process.wait(LOOK_SECONDS), False
            except subprocess.TimeoutExpired:
                pass
            now, said = time.monotonic(), content(err)
            if QUEUED in said and ALLOCATED not in said:
                runs_since = now
                if now - begun > self.wish.wait:
                    return None, True
            elif now - runs_since > timeout:
                return None, False

    def _cancel(self, name: str, environment: dict[str, str], account: Account | None) -> str:
        """Make sure that the job is gone: srun may have been killed before it could cancel it.

        :returns: what is still there, as a sentence; mostly nothing.
        """
        deadline = time.monotonic() + GONE_SECONDS
        self._ask("scancel", [f"--name={name}"], environment, account)
        while True:
            listed = self._ask("squeue", ["--noheader", "--format=%i", f"--name={name}"], environment, account)
            if listed == "":
                return ""
            if time.monotonic() > deadline:
                return f"\nthe job {listed or name} could not be cancelled within {GONE_SECONDS:g} seconds"
            time.sleep(1)

    def _ask(
        self, program: str, arguments: list[str], environment: dict[str, str], account: Account | None
    ) -> str | None:
        """What another of Slurm's programs answers; None where it does not."""
        path = os.path.join(os.path.dirname(str(self.program)), program)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = start([path, *arguments], environment, "/", out, err, account)
            except OSError:
                return None
            try:
                rc = process.wait(ASK_SECONDS)
            except subprocess.TimeoutExpired:
                rc = None
            finally:
                end_group(process)
            return content(out).strip() if rc == 0 else None

    def _pending(self, found: Ended, left: str) -> GpufleetError:
        return GpufleetError(
            "GF-VERIFY-SRUN-PENDING",
            f"Slurm did not start the job within {self.wish.wait:g} seconds, and it was cancelled{left}",
            "the node is full, drained, or reserved for others; nothing was checked, and the former verdict stays",
            "run this play again when the node is free, or give it more time: verify_srun_wait (seconds)",
        )

    def _refused(self, found: Ended) -> GpufleetError:
        return GpufleetError(
            "GF-VERIFY-SRUN-REFUSED",
            f"Slurm refused the job: {found.err.strip()[-TAIL_CHARACTERS:]}",
            "account, partition or gres are not this cluster's or not this user's, or Slurm's controller does not answer",
            "try it on the node: srun --nodelist=$(hostname -s) hostname; then correct verify_srun_account, "
            "verify_srun_partition, verify_srun_gres, verify_srun_options or verify_user",
        )


def is_refusal(ended: Ended) -> bool:
    """Whether srun failed before the script began: it then names no task, and nothing was printed."""
    complaints = [
        line for line in ended.err.splitlines() if line.startswith(("srun: error:", "srun: fatal:", "srun: "))
    ]
    return not ended.out.strip() and bool(complaints) and TASK not in ended.err
