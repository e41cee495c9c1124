"""Checks as a Slurm job: the call, and what is made of srun's words. tests/integration/test_srun.py has a real Slurm."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verify_srun
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_process import Ended


class Slurm:
    """Stands in for Slurm's programs: srun as a test has it, and a queue that is a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.queue = folder, folder / "queue"
        self.program("scancel", f"rm -f '{self.queue}'")
        self.program("squeue", f"cat '{self.queue}' 2>/dev/null || :")

    def program(self, name: str, code: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
        path.chmod(0o755)

    def run(self, code: str, timeout: float = 30, **wish: Any) -> Ended:
        self.program("srun", code)
        srun = verify_srun.Srun(verify_srun.Wish(**wish), path=str(self.folder))
        return srun(["python", "s.py"], {"PATH": "/usr/bin:/bin"}, str(self.folder), timeout)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    monkeypatch.setattr(verify_srun, "END_SECONDS", 1.0)
    monkeypatch.setattr(verify_srun, "GONE_SECONDS", 2.0)
    return Slurm(tmp_path)


def test_the_call(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "n7.cluster.example")
    wish: dict[str, Any] = {
        "account": "admin",
        "partition": "gpu",
        "gres": "gpu:4",
        "options": ("--qos=test", "--time=9"),
    }
    words = slurm.run('echo "$@"', 61, **wish).out.split()
    name = next(word for word in words if word.startswith("--job-name="))
    assert name.startswith("--job-name=gpufleet-verify-")
    words.remove(name)
    assert words == [
        *("--nodes=1", "--ntasks=1", "--nodelist=n7", "--time=3", "--export=ALL", "--mpi=none"),
        *(f"--chdir={slurm.folder}", "--account=admin", "--partition=gpu", "--gres=gpu:4"),
        *("--qos=test", "--time=9", "python", "s.py"),
    ]
    assert not {"--account", "--partition", "--gres"} & {
        word.partition("=")[0] for word in slurm.run('echo "$@"').out.split()
    }


@pytest.mark.parametrize(
    ("wanted", "gpus", "checks", "gres"),
    [
        ("auto", 4, "run", "gpu:4"),
        ("auto", 0, "run", ""),
        ("auto", 4, "skip", ""),
        ("", 4, "run", ""),
        ("gpu:a100:2", 4, "run", "gpu:a100:2"),
    ],
)
def test_the_gpus_that_are_asked_for(wanted: str, gpus: int, checks: str, gres: str) -> None:
    assert verify_srun.gres(wanted, gpus, checks) == gres


def test_a_node_without_slurm(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError) as raised:
        verify_srun.Srun(verify_srun.Wish(), path=str(tmp_path))
    assert raised.value.code == "GF-VERIFY-SRUN-MISSING"


# Words of Slurm 22.05.
REFUSED = "srun: error: invalid partition specified: none\nsrun: error: Unable to allocate resources: Invalid partition name specified"
NO_ANSWER = "srun: error: Unable to allocate resources: Unable to contact slurm controller (connect failure)"
TASK_FAILED = (
    "srun: job 6 queued and waiting for resources\nsrun: job 6 has been allocated resources\n"
    "srun: error: node: task 0: Exited with exit code 2\noops"
)


@pytest.mark.parametrize("words", [REFUSED, NO_ANSWER])
def test_a_job_that_is_refused(slurm: Slurm, words: str) -> None:
    with pytest.raises(GpufleetError) as raised:
        slurm.run(f"printf '{words}' >&2; exit 1")
    assert raised.value.code == "GF-VERIFY-SRUN-REFUSED"
    assert words.splitlines()[-1] in raised.value.message


def test_a_script_that_fails_is_no_refusal(slurm: Slurm) -> None:
    ended = slurm.run(f"printf '{TASK_FAILED}' >&2; exit 2")
    assert (ended.rc, ended.err) == (2, TASK_FAILED)
    # Checks that failed: srun says so, too, and the answer is there.
    ended = slurm.run("echo '{}'; echo 'srun: error: node: task 0: Exited with exit code 1' >&2; exit 1")
    assert (ended.rc, ended.out) == (1, "{}\n")
    assert slurm.run("echo answer; echo 'srun: error: odd' >&2").rc == 0


def test_a_job_that_waits_too_long_is_cancelled(slurm: Slurm) -> None:
    slurm.queue.write_text("17", encoding="utf-8")
    started = time.monotonic()
    with pytest.raises(GpufleetError) as raised:
        slurm.run("echo 'srun: job 17 queued and waiting for resources' >&2; exec sleep 300", wait=1)
    assert raised.value.code == "GF-VERIFY-SRUN-PENDING" and "within 1 seconds" in raised.value.message
    assert time.monotonic() - started < 20
    assert not slurm.queue.exists()


def test_a_job_that_runs_too_long_is_cancelled(slurm: Slurm) -> None:
    slurm.queue.write_text("17", encoding="utf-8")
    queued = "echo 'srun: job 17 queued and waiting for resources' >&2; sleep 2; "
    code = queued + "echo 'srun: job 17 has been allocated resources' >&2; sleep 300"
    # Time in the queue does not count, and the rest does.
    ended = slurm.run(code, timeout=1, wait=60)
    assert ended.rc is None and 2.5 < ended.seconds < 20
    assert not slurm.queue.exists()


def test_a_job_that_does_not_go_is_told_of(slurm: Slurm) -> None:
    slurm.queue.write_text("17", encoding="utf-8")
    slurm.program("scancel", "exit 1")
    assert "the job 17 could not be cancelled within 2 seconds" in slurm.run("exec sleep 300", timeout=0.5).err
