"""The verdict: how the script is run, what is made of its answer, how it is kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verdict, verdict_store, verify_process
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SCHEMA = Path(__file__).resolve().parents[4] / "docs" / "schemas" / "verdict.schema.json"
NODE = {
    "gpus": 0,
    "compute_capabilities": [],
    "gpu_checks": "skip",
    "gpu_skip_reason": "no GPU",
    "driver_pending": False,
    "seed": 0,
}


def check(name: str = "tensor", status: str = "passed", **more: Any) -> dict[str, Any]:
    return {"name": name, "status": status, "measured": 1, "expected": 1, "seconds": 0.1, "message": "", **more}


def figure(**more: Any) -> dict[str, Any]:
    return {"metric": "cpu_matmul", "unit": "GFLOP/s", "better": "higher", "device": None, "value": 81.5, **more}


def ended(rc: int | None = 0, out: Any = None, err: str = "") -> verify_process.Ended:
    document = out if isinstance(out, str) else json.dumps(out if out is not None else {"checks": [check()]})
    return verify_process.Ended(rc, document, err, 1.5)


def how(script: Path, **more: Any) -> verdict.How:
    return verdict.How(str(script), **{"timeout": 30, **more})


def make(script: Path, code: str, timeout: float = 30) -> dict[str, Any]:
    """A verdict by a script of our own, run for real by this Python."""
    script.write_text(code, encoding="utf-8")
    environment = {
        "name": "default",
        "interpreter": sys.executable,
        "torch_version": "2.0.1",
        "cuda": None,
        "cudnn": None,
    }
    return verdict.make_verdict([environment], NODE, how(script, timeout=timeout), plan_digest="abc")


def valid(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)


PRINT = (
    "import json, os, sys\n"
    "check = dict(name='x', status='passed', measured=%s, expected=1, seconds=0, message='')\n"
    "print(json.dumps({'checks': [check]}))\n"
)


def test_verdict_of_a_run_and_its_schema(tmp_path: Path) -> None:
    found = make(tmp_path / "s.py", PRINT % "[json.load(open(sys.argv[3])), os.getcwd(), dict(os.environ)]")
    assert found["ok"] and found["plan_digest"] == "abc" and found["schema"] == 2
    valid({**found, "history": []})
    expected, folder, variables = found["environments"][0]["checks"][0]["measured"]
    assert expected == {"torch_version": "2.0.1", "cuda": None, "cudnn": None, **NODE}
    assert folder == variables["HOME"] and not Path(folder).exists()
    assert variables["LC_ALL"] == "C.UTF-8" and variables["PYTHONDONTWRITEBYTECODE"] == "1"


def test_nothing_of_the_callers_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/wrong")
    monkeypatch.setenv("PYTHONPATH", "/wrong")
    variables = verify_process.script_environment([str(tmp_path), str(tmp_path / "gone")], "/tmp")
    assert variables["LD_LIBRARY_PATH"] == str(tmp_path)
    assert not {"CUDA_VISIBLE_DEVICES", "PYTHONPATH"} & set(variables)
    assert "LD_LIBRARY_PATH" not in verify_process.script_environment([str(tmp_path / "gone")], "/tmp")


def test_a_script_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"child = subprocess.Popen(['sleep', '300']); open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "print('half an answer', flush=True); time.sleep(300)\n"
    )
    started = time.monotonic()
    found = make(tmp_path / "s.py", code, timeout=5)
    assert time.monotonic() - started < 20
    assert not found["ok"]
    (only,) = found["environments"][0]["checks"]
    assert only["name"] == "script" and only["message"].startswith("GF-VERIFY-TIMEOUT") and only["measured"]
    state = Path(f"/proc/{pid.read_text(encoding='utf-8')}/stat")
    # The signal was sent; a busy kernel takes its time to end the process.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not _ended(state):
        time.sleep(0.05)
    assert _ended(state)


def _ended(state: Path) -> bool:
    try:
        return state.read_text(encoding="utf-8").split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_children_left_behind_do_not_hold_the_run(tmp_path: Path) -> None:
    code = "import subprocess\nsubprocess.Popen(['sleep', '300'])\n" + PRINT % "1"
    started = time.monotonic()
    assert make(tmp_path / "s.py", code)["ok"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ended(None), "GF-VERIFY-TIMEOUT"),
        (ended(2, "", "cannot import torch"), "GF-VERIFY-NOT-RUN: the script exited with 2: cannot import torch"),
        (ended(-11), "GF-VERIFY-NOT-RUN: the script was ended by signal 11"),
        (ended(0, ""), "GF-VERIFY-UNREADABLE"),
        (ended(0, '{"checks": ['), "GF-VERIFY-UNREADABLE"),
        (ended(0, []), "GF-VERIFY-UNREADABLE"),
        (ended(0, {"checks": []}), "it holds no checks"),
        (ended(0, {"checks": ["tensor"]}), "this is no check"),
        (ended(0, {"checks": [{"name": "tensor", "status": "passed"}]}), "this is no check"),
        (ended(0, {"checks": [check(status="PASSED")]}), "has the status 'PASSED'"),
        (ended(0, {"checks": [check(status="skipped")]}), "every check was skipped"),
        (ended(0, {"checks": [check(status="failed")]}), "its checks contradict"),
        (ended(0, {"checks": [check()], "level": "health"}), "of level 'health', and quick was asked for"),
        (ended(0, {"checks": [check()], "performance": [figure(value="fast")]}), "no list of measured figures"),
        (ended(0, {"checks": [check()], "performance": [figure(better="bigger")]}), "no list of measured figures"),
        (ended(0, {"checks": [check()], "performance": [{"metric": "x"}]}), "no list of measured figures"),
        (ended(1, {"checks": [check()]}), "its checks contradict"),
    ],
)
def test_answers_that_prove_nothing(answer: verify_process.Ended, text: str) -> None:
    checks = verdict.read_answer(answer, how(Path("s"), timeout=5)).checks
    assert checks[-1]["name"] == "script" and checks[-1]["status"] == "failed"
    assert text in checks[-1]["message"]


def test_answers_that_count() -> None:
    assert verdict.read_answer(ended(), how(Path("s"))).checks == [check()]
    extra = check(status="failed", traceback="long")
    assert verdict.read_answer(ended(1, {"checks": [extra]}), how(Path("s"))).checks == [check(status="failed")]


def test_one_failed_environment_fails_the_node(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text(PRINT % "1", encoding="utf-8")
    environments = [
        {"name": "good", "interpreter": sys.executable, "torch_version": "2.0.1"},
        {"name": "gone", "interpreter": str(tmp_path / "none"), "torch_version": "2.0.1"},
    ]
    found = verdict.make_verdict(environments, NODE, how(script), plan_digest="abc")
    assert (found["ok"], [e["ok"] for e in found["environments"]]) == (False, [True, False])
    assert found["environments"][1]["checks"][0]["message"].startswith("GF-VERIFY-NOT-RUN")


def test_nothing_to_verify_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError, match="no environment") as raised:
        verdict.make_verdict([], NODE, how(Path(__file__)), plan_digest="abc")
    assert raised.value.code == "GF-VERIFY-NOTHING"
    with pytest.raises(GpufleetError) as raised:
        verdict.make_verdict([{}], NODE, how(tmp_path / "gone"), plan_digest="abc")
    assert raised.value.code == "GF-VERIFY-SCRIPT"


def test_level_figures_and_hardware_are_in_the_verdict(tmp_path: Path) -> None:
    answer = {"checks": [check()], "level": "standard", "performance": [figure()], "python": "3.11.2"}
    script = tmp_path / "s.py"
    script.write_text(
        f"import sys\nassert sys.argv[4:] == ['--level', 'standard']\nprint({json.dumps(json.dumps(answer))})\n"
    )
    environment = {"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1"}
    found = verdict.make_verdict([environment], NODE, how(script, level="standard"), plan_digest="abc")
    assert (found["level"], found["performance"]) == ("standard", [figure(environment="default")])
    assert (found["environments"][0]["torch_version"], found["environments"][0]["python"]) == ("2.0.1", "3.11.2")
    valid({**found, "history": [verdict_store._remembered(found)]})


def test_the_loaded_driver_is_read_from_the_kernel(tmp_path: Path) -> None:
    assert verdict.loaded(str(tmp_path)) == {"driver": None, "gpus": 0}
    proc = tmp_path / "proc/driver/nvidia"
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (proc / "gpus" / address).mkdir(parents=True)
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Tue Jan  1 00:00:00 UTC 2026\n"
    (proc / "version").write_text(line, encoding="utf-8")
    assert verdict.loaded(str(tmp_path)) == {"driver": "535.261.03", "gpus": 2}
