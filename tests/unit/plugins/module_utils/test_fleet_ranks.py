"""One node's ranks: how each end is told, and that no process stays. Small scripts stand for the real one."""

from __future__ import annotations

import json
import os
import pwd
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_ranks
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

PART: dict[str, Any] = {
    "ranks": [4, 5],
    "world_size": 8,
    "address": "127.0.0.1",
    "port": 29511,
    "interface": "",
    "timeout": 20,
    "brief": {"sizes": [4]},
}
# What each of these scripts can use.
HEAD = """
import json, os, signal, sys, time
out = sys.argv[sys.argv.index("--out") + 1]
rank = int(os.environ["RANK"])
def leave(name, content):
    with open(os.path.join(out, name + ".new"), "w") as file:
        json.dump(content, file)
    os.rename(os.path.join(out, name + ".new"), os.path.join(out, name))
def step(phase):
    leave("step.json", {"at": [4, 0], "phase": phase, "detail": ""})
def beat():
    leave("beat.json", time.monotonic())
"""


def run(folder: Path, code: str, **more: Any) -> list[dict[str, Any]]:
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(code), encoding="utf-8")
    user = more.pop("user", "")
    return fleet_ranks.run_ranks({**PART, **more}, str(script), sys.executable, user)


def is_running(pid: int) -> bool:
    return fleet_ranks.process_state(pid) not in (None, "Z")


def test_ranks_are_told_their_part_as_torchrun_would(tmp_path: Path) -> None:
    reports = run(
        tmp_path,
        """
        with open(sys.argv[sys.argv.index("--brief") + 1]) as file:
            brief = json.load(file)
        leave("answer.json", {"environment": dict(os.environ), "brief": brief, "cwd": os.getcwd()})
        """,
        interface="eth7",
    )
    assert [report["rank"] for report in reports] == [4, 5]
    assert [(report["ended"], report["rc"]) for report in reports] == [("exit", 0)] * 2
    answer = reports[1]["answer"]
    expected = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    expected |= {"MASTER_PORT": "29511", "GLOO_SOCKET_IFNAME": "eth7", "NCCL_SOCKET_IFNAME": "eth7"}
    assert {key: answer["environment"].get(key) for key in expected} == expected
    assert answer["brief"] == {"sizes": [4]}
    assert not Path(answer["cwd"]).exists()


def test_an_exit_and_a_signal_are_told_apart(tmp_path: Path) -> None:
    reports = run(
        tmp_path,
        """
        step("training")
        print("no such library", file=sys.stderr, flush=True)
        if rank == 4:
            sys.exit(3)
        os.kill(os.getpid(), signal.SIGSEGV)
        """,
    )
    assert [(report["ended"], report["rc"]) for report in reports] == [("exit", 3), ("signal", -11)]
    assert reports[0]["step"]["phase"] == "training" and reports[0]["answer"] is None
    assert reports[0]["stderr"] == "no such library"


def test_a_rank_without_a_sign_of_life_is_ended_with_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_ranks, "SILENT_SECONDS", 1.0)
    started = time.monotonic()
    reports = run(
        tmp_path,
        """
        step("all_reduce")
        beat()
        if rank == 4:
            os.kill(os.getpid(), signal.SIGSTOP)
        leave("answer.json", {})
        """,
    )
    assert [(report["ended"], report["state"]) for report in reports] == [("frozen", "T"), ("exit", None)]
    assert time.monotonic() - started < 10


def test_silence_while_torch_loads_is_no_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_ranks, "SILENT_SECONDS", 0.5)
    reports = run(tmp_path, 'step("import")\nbeat()\ntime.sleep(2)\nleave("answer.json", {})\n')
    assert [report["ended"] for report in reports] == ["exit", "exit"]


def test_the_time_ends_a_rank_that_lives_with_its_children_and_nobody_elses(tmp_path: Path) -> None:
    """A process that the rank started goes with it; one that is another's stays."""
    pids = tmp_path / "pids"
    reports = run(
        tmp_path,
        f"""
        import subprocess
        child = subprocess.Popen(["sleep", "1000"])
        with open({str(pids)!r}, "a") as file:
            file.write(f"{{os.getpid()}} {{child.pid}}\\n")
        step("pairs")
        while True:
            beat()
            time.sleep(0.1)
        """,
        timeout=3,
    )
    assert [report["ended"] for report in reports] == ["timeout", "timeout"]
    ours = [int(pid) for pid in pids.read_text(encoding="utf-8").split()]
    deadline = time.monotonic() + 5
    while any(map(is_running, ours)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ours) == 4 and not any(map(is_running, ours))
    assert is_running(os.getpid())


def test_an_interpreter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError) as caught:
        fleet_ranks.run_ranks(PART, str(tmp_path / "script.py"), str(tmp_path / "python"))
    assert caught.value.code == "GF-FLEET-NOT-RUN"


def test_a_user_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError) as caught:
        run(tmp_path, "", user="nobody-of-this-name")
    assert caught.value.code == "GF-VERIFY-USER"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_ranks_have_the_rights_of_the_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    script = tmp_path / "script.py"
    code = HEAD + 'leave("answer.json", {"ids": [os.getuid(), os.geteuid(), os.getgid()], "groups": os.getgroups()})\n'
    script.write_text(code, encoding="utf-8")
    reports = fleet_ranks.run_ranks(PART, str(script), "/usr/bin/python3", "nobody")
    assert reports[0]["answer"]["ids"] == [nobody.pw_uid, nobody.pw_uid, nobody.pw_gid], reports
    assert reports[0]["answer"]["groups"] == [nobody.pw_gid]


def test_what_a_process_does_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a) b) D 1 7 7 0\n", encoding="utf-8")
    assert fleet_ranks.process_state(7, str(tmp_path)) == "D"
    assert fleet_ranks.process_state(8, str(tmp_path)) is None


def test_a_file_that_is_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"a": 1})[:-1], encoding="utf-8")
    rank = fleet_ranks.Rank(0, str(tmp_path), None)  # type: ignore[arg-type]
    assert rank.read("answer.json") is None
