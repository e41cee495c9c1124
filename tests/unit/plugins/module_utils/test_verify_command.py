"""gpufleet-verify as it lies on a node: its shell, its program, and that both end in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verdict, verify_command, verify_install

SHELLS = [["sh"], ["bash", "--posix"]]
NODE = {
    "gpus": 0,
    "compute_capabilities": [],
    "gpu_checks": "skip",
    "gpu_skip_reason": "no GPU",
    "driver_pending": False,
}
# Stands in for an environment's torch and the check script: it says that one check has this status.
ANSWER = """\
import json, sys
check = dict(name='tensor', status='%s', measured=1, expected=1, seconds=0, message='%s')
print(json.dumps({'checks': [check]}))
sys.exit(%d)
"""
# Stands in for a torch that hangs in its import, with a process of its own, and hears no request.
HANGS = """\
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(['sleep', '300'])
open(os.environ['PIDS'], 'w').write(f'{os.getpid()} {child.pid}')
time.sleep(300)
"""


class Node:
    """A prefix and a state directory with what a run leaves there."""

    def __init__(self, folder: Path) -> None:
        self.prefix, self.state = folder / "it's a prefix", folder / "state"
        self.python = self.prefix / "envs/default/current/bin/python"
        self.python.parent.mkdir(parents=True)
        self.python.symlink_to(os.path.realpath(sys.executable))
        self.script, self.pids = folder / "script.py", folder / "pids"
        self.environment = {"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1+cpu"}
        how = verdict.How(str(self.script))
        knows = verify_install.settings([self.environment], NODE, how, 168)
        knows["variables"]["PIDS"] = str(self.pids)
        verify_install.apply(str(self.prefix), str(self.state), knows)

    def verdict(self, status: str = "passed", hours: float = 1, **more: Any) -> None:
        check = {
            "name": "tensor",
            "status": status,
            "measured": 1,
            "expected": 1,
            "seconds": 0,
            "message": "wrong \x1b[31m",
        }
        environment = {**self.environment, "ok": status == "passed", "checks": [check, {**check, "name": "other"}]}
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - hours * 3600))
        found = {"schema": 2, "ok": status == "passed", "at": at, "level": "quick", **verify_command.loaded()}
        self.state.mkdir(exist_ok=True)
        document = {**found, "environments": [environment], **more}
        (self.state / "verdict.json").write_text(json.dumps(document), encoding="utf-8")

    def answers(self, status: str, message: str = "") -> None:
        self.script.write_text(ANSWER % (status, message, int(status == "failed")), encoding="utf-8")

    def ask(
        self, *arguments: str, shell: list[str] | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        command = [*(shell or SHELLS[0]), verify_install.command_path(str(self.prefix)), *arguments]
        # An end that waits for a process which keeps the output open would be no end.
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **variables}
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_last_verdict(node: Node, shell: list[str]) -> None:
    done = node.ask(shell=shell)
    assert (done.returncode, done.stderr) == (2, "") and "there is no verdict" in done.stdout
    node.verdict()
    done = node.ask(shell=shell)
    assert done.returncode == 0
    assert done.stdout == "gpufleet-verify: proved: 1 hours ago, level quick: torch 2.0.1+cpu; no GPU\n"
    node.verdict("failed")
    done = node.ask(shell=shell)
    assert done.returncode == 1
    assert done.stdout == "gpufleet-verify: failed: default/tensor: wrong [31m (and 1 more)\n"
    (node.state / "verdict.json").write_text("{", encoding="utf-8")
    assert node.ask(shell=shell).returncode == 2


def test_its_age(node: Node) -> None:
    node.verdict(hours=200)
    done = node.ask()
    assert done.returncode == 2 and "200 hours old (more than 168)" in done.stdout
    assert node.ask("--max-age", "201").returncode == 0
    assert node.ask("--max-age", "0").returncode == 0
    node.verdict(hours=2)
    assert node.ask("--max-age", "1.5").returncode == 2


def test_for_programs(node: Node) -> None:
    node.verdict("failed")
    done = node.ask("--json")
    found = json.loads(done.stdout)
    assert (found["schema"], found["status"], found["exit"], found["level"]) == (1, "failed", 1, "quick")
    assert found["verified"] == found["loaded"] == verify_command.loaded()
    assert 0.9 < found["age_hours"] < 1.2 and found["source"] == "verdict"


def test_a_look_is_quick(node: Node) -> None:
    node.verdict()
    seconds = []
    for _each in range(5):
        started = time.monotonic()
        assert node.ask().returncode == 0
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1


@pytest.mark.parametrize(
    ("verified", "loaded", "status", "words"),
    [
        (("535.1", 2), ("535.1", 2), 0, "driver 535.1, 2 GPUs"),
        (("535.1", 2), ("535.1", 1), 1, "the driver lists 1 GPUs, 2 were verified"),
        (("535.1", 2), (None, 0), 1, "no NVIDIA driver is loaded, 535.1 was verified"),
        (("535.1", 2), ("550.1", 2), 2, "driver 550.1 with 2 GPUs is loaded, 535.1 with 2 was verified"),
        (("535.1", 1), ("535.1", 2), 2, "driver 535.1 with 2 GPUs is loaded"),
        ((None, 0), ("535.1", 1), 2, "none with 0 was verified"),
    ],
)
def test_the_node_as_it_is_now(verified: Any, loaded: Any, status: int, words: str) -> None:
    environments = [{"interpreter": sys.executable, "torch_version": "2.0.1"}]
    found = {"schema": 2, "ok": True, "at": "2026-03-02T10:11:12Z", "environments": environments}
    found.update(driver=verified[0], gpus=verified[1])
    answer = verify_command.stored(found, {"driver": loaded[0], "gpus": loaded[1]}, 1772446272.0, 1)
    assert (answer.status, words in answer.message) == (status, True), answer.message


def test_more_of_the_node(tmp_path: Path) -> None:
    found: dict[str, Any] = {"schema": 2, "ok": True, "at": None, "environments": []}
    answer = verify_command.stored(found, {"driver": None, "gpus": 0}, 0, 0)
    assert (answer.status, answer.message) == (2, "the verdict does not say when it was made")
    found["environments"] = [{"interpreter": str(tmp_path / "gone/bin/python")}]
    answer = verify_command.stored(found, {"driver": None, "gpus": 0}, 0, 0)
    assert (answer.status, answer.message) == (1, f"{tmp_path}/gone/bin/python is gone")
    # A verdict of schema 1 knows nothing of driver and GPUs.
    found = {"schema": 1, "ok": True, "at": "2026-03-02T10:11:12Z", "environments": []}
    assert verify_command.stored(found, {"driver": "535.1", "gpus": 1}, 1772446272.0, 1).status == 0


def test_what_the_kernel_says(tmp_path: Path) -> None:
    assert verify_command.loaded(str(tmp_path)) == {"driver": None, "gpus": 0}
    proc = tmp_path / "proc/driver/nvidia"
    (proc / "gpus/0000:01:00.0").mkdir(parents=True)
    lines = (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue Jan  1 00:00:00 UTC 2026",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.261.03  Release Build  (dvs-builder@x)",
    )
    for line in lines:
        (proc / "version").write_text(line + "\nGCC version: gcc version 12.2.0\n", encoding="utf-8")
        # The verdict is written by another reader of the same file: they have to agree.
        assert (
            verify_command.loaded(str(tmp_path)) == verdict.loaded(str(tmp_path)) == {"driver": "535.261.03", "gpus": 1}
        )


def test_the_quick_checks_now(node: Node) -> None:
    node.answers("passed")
    done = node.ask("--run")
    assert (done.returncode, done.stdout) == (0, "gpufleet-verify: proved: 1 quick checks passed just now\n")
    node.answers("failed", "2 is not 3")
    done = node.ask("--run", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["message"] == "default/tensor: 2 is not 3"
    node.script.write_text("raise SystemExit('no torch')", encoding="utf-8")
    done = node.ask("--run")
    assert done.returncode == 2 and "no torch" in done.stdout
    node.script.write_text("import os; os._exit(139)", encoding="utf-8")
    assert node.ask("--run").returncode == 2
    assert not (node.state / "verdict.json").exists()
    (node.state / "gpufleet-verify.json").unlink()
    assert "never verified" in node.ask("--run").stdout


def gone(pids: Path) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = [pid for pid in pids.read_text(encoding="utf-8").split() if alive(pid)]
        if not left:
            return True
        time.sleep(0.05)
    return False


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_torch_that_hangs_is_ended_in_time(node: Node, shell: list[str]) -> None:
    node.script.write_text(HANGS, encoding="utf-8")
    started = time.monotonic()
    done = node.ask("--run", "--timeout", "4", shell=shell)
    assert time.monotonic() - started < 15
    assert done.returncode == 2 and "took longer than 3 seconds" in done.stdout
    assert gone(node.pids)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["line", "json"])
def test_a_python_that_hangs_is_ended_in_time(node: Node, shell: list[str], form: list[str]) -> None:
    node.python.unlink()
    node.python.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ > '{node.pids}'\nexec sleep 300\n", encoding="utf-8")
    node.python.chmod(0o755)
    started = time.monotonic()
    done = node.ask("--timeout=2", *form, shell=shell)
    assert time.monotonic() - started < 12
    assert done.returncode == 2 and "it did not end within 2 seconds" in (done.stdout if form else done.stderr)
    assert not form or json.loads(done.stdout)["status"] == "unknown"
    assert gone(node.pids)


def test_nothing_runs_on(node: Node) -> None:
    """Neither the watch nor its sleep outlive an answer, nor does an answer wait for them."""
    node.verdict()
    # A time that no other run of this test has.
    limit = str(100_000 + os.getpid())
    started = time.monotonic()
    assert node.ask("--timeout", limit).returncode == 0
    assert time.monotonic() - started < 20
    time.sleep(0.5)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"sleep {limit}" not in running.splitlines()


@pytest.mark.parametrize("limit", ["0", "x", "-1", "1.5", ""])
def test_a_time_that_is_none(node: Node, limit: str) -> None:
    done = node.ask("--timeout", limit)
    assert done.returncode == 2 and "whole seconds" in done.stderr


def test_without_an_environment(node: Node) -> None:
    node.python.unlink()
    done = node.ask()
    assert done.returncode == 2 and "there is no Python of an environment" in done.stderr
    # Any other serves.
    other = node.prefix / "envs/other/current/bin/python"
    other.parent.mkdir(parents=True)
    other.symlink_to(os.path.realpath(sys.executable))
    node.verdict()
    assert node.ask().returncode == 0


def test_nothing_of_the_callers_environment_gets_in(node: Node, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(0)", encoding="utf-8")
    assert node.ask(PYTHONPATH=str(tmp_path), PYTHONSTARTUP="/x").returncode == 2


SCONTROL = """\
#!/bin/sh
echo "$@" >> '{calls}'
[ "$1" != show ] || echo "NodeName=n1 State={state} Reason=none"
exit {status}
"""


def slurm(tmp_path: Path, state: str = "IDLE", status: int = 0) -> tuple[dict[str, str], Path]:
    """Stands in for Slurm's scontrol; tests/integration/test_srun.py has the real one."""
    program, calls = tmp_path / "bin/scontrol", tmp_path / "calls"
    program.parent.mkdir(exist_ok=True)
    program.write_text(SCONTROL.format(calls=calls, state=state, status=status), encoding="utf-8")
    program.chmod(0o755)
    calls.write_text("", encoding="utf-8")
    return {"PATH": f"{program.parent}:{os.environ['PATH']}", "SLURMD_NODENAME": "n1"}, calls


def test_a_node_that_failed_is_drained(node: Node, tmp_path: Path) -> None:
    variables, calls = slurm(tmp_path)
    node.verdict("failed")
    assert node.ask(**variables).returncode == 1
    assert calls.read_text(encoding="utf-8") == ""
    done = node.ask("--drain", **variables)
    assert done.returncode == 1 and "n1 was drained" in done.stdout
    shown, update = calls.read_text(encoding="utf-8").splitlines()
    assert shown == "show node --oneliner n1"
    assert update.startswith("update NodeName=n1 State=DRAIN Reason=gpufleet-verify: default/tensor: wrong")
    # One that somebody drained keeps that reason, and one of which nothing is known goes on.
    variables, calls = slurm(tmp_path, "IDLE+DRAIN")
    assert "drained already" in node.ask("--drain", **variables).stdout
    assert "update" not in calls.read_text(encoding="utf-8")
    node.verdict(hours=999)
    variables, calls = slurm(tmp_path)
    assert node.ask("--drain", **variables).returncode == 2
    assert calls.read_text(encoding="utf-8") == ""


def test_a_slurm_that_does_not_answer_changes_no_verdict(node: Node, tmp_path: Path) -> None:
    variables, _calls = slurm(tmp_path, status=1)
    node.verdict("failed")
    done = node.ask("--drain", "--json", **variables)
    assert done.returncode == 1 and "could not be drained" in json.loads(done.stdout)["drain"]


def test_gpus_that_somebody_uses(tmp_path: Path) -> None:
    for pid, name, target in (
        ("7", "python", "/dev/nvidia0"),
        ("8", "nvidia-smi", "/dev/nvidia0"),
        ("9", "sh", "/dev/null"),
    ):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd/3").symlink_to(target)
        (tmp_path / pid / "comm").write_text(name + "\n", encoding="utf-8")
    assert verify_command.users_of_gpus(str(tmp_path)) == ["python (7)"]


def test_the_checks_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_command, "users_of_gpus", lambda: ["python (7)"])
    monkeypatch.setattr(verify_command, "run_checks", lambda *_: [{"name": "x", "status": "passed"}])
    settings = {"environments": [{"name": "default"}]}
    answer = verify_command.checked(settings, 0, busy=False)
    assert (answer.status, "python (7) uses a GPU" in answer.message) == (2, True)
    assert verify_command.checked(settings, 0, busy=True).status == 0
    assert verify_command.checked({"environments": []}, 0, busy=True).status == 2
