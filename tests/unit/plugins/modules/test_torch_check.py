"""The module around the verdict: what counts as changed, and what a dry run leaves alone."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_holders
from ansible_collections.gpufleet.stack.plugins.modules import torch_check


@pytest.fixture(autouse=True)
def own_script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script of a test in the place of the real one; what writes the real one."""
    write = torch_check.script_archive.write
    monkeypatch.setattr(torch_check.script_archive, "write", lambda path, main: False)
    return write


SCHEMA = Path(__file__).resolve().parents[4] / "docs" / "schemas" / "verdict.schema.json"


def run(capsys: pytest.CaptureFixture[str], folder: Path, **more: Any) -> dict[str, Any]:
    """One execution of the module; this Python stands for the environment's."""
    arguments = {
        "environments": [{"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1"}],
        "script": str(folder / "script.py"),
        "gpus": 0,
        "plan_digest": "abc",
        "state_dir": str(folder / "state"),
        "prefix": str(folder / "prefix"),
        **more,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        torch_check.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def script(folder: Path, status: str, measured: int = 1) -> None:
    check = {"name": "x", "status": status, "measured": measured, "expected": 1, "seconds": 0, "message": ""}
    code = f"import sys\nprint({json.dumps(json.dumps({'checks': [check]}))})\nsys.exit({int(status == 'failed')})\n"
    (folder / "script.py").write_text(code, encoding="utf-8")


def test_changed_follows_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path, "passed")
    assert run(capsys, tmp_path)["changed"] is True
    script(tmp_path, "passed", measured=2)
    again = run(capsys, tmp_path)
    assert (again["changed"], again["verdict"]["ok"]) == (False, True)
    kept = json.loads((tmp_path / "state" / "verdict.json").read_text(encoding="utf-8"))
    assert kept == again["verdict"]
    assert run(capsys, tmp_path, plan_digest="other")["changed"] is True


def test_a_failed_check_is_a_verdict_and_no_failure_of_the_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path, "failed")
    result = run(capsys, tmp_path)
    assert (result["verdict"]["ok"], result.get("failed", False), result["changed"]) == (False, False, True)
    assert json.loads((tmp_path / "state" / "verdict.json").read_text(encoding="utf-8"))["ok"] is False


def test_what_former_runs_measured_comes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path, "passed")
    assert run(capsys, tmp_path)["verdict"]["history"] == []
    script(tmp_path, "failed")
    assert [former["ok"] for former in run(capsys, tmp_path, keep=2)["verdict"]["history"]] == [True]
    assert [former["ok"] for former in run(capsys, tmp_path, keep=2)["verdict"]["history"]] == [True, False]
    assert len(list((tmp_path / "state/verdicts").iterdir())) == 2


def test_the_nodes_own_programs_know_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path, "failed")
    python = tmp_path / "prefix/envs/default/current/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))
    one, other = tmp_path / "one", tmp_path / "other"
    result = run(capsys, tmp_path, prometheus_dir=str(one), max_age=24)
    command = tmp_path / "prefix/bin/gpufleet-verify"
    assert result["files"] == [
        str(tmp_path / "script.py"),
        str(command),
        str(tmp_path / "prefix/libexec/gpufleet_verify_node.py"),
        str(tmp_path / "state/gpufleet-verify.json"),
        str(one / "gpufleet.prom"),
    ]
    assert all(Path(path).exists() for path in result["files"])
    assert subprocess.run([command], check=False, capture_output=True).returncode == 1
    assert "gpufleet_verdict_ok" in (one / "gpufleet.prom").read_text(encoding="utf-8")
    # Elsewhere, or nowhere: what lay there would say for ever what was true once.
    assert run(capsys, tmp_path, prometheus_dir=str(other), max_age=24)["changed"] is True
    assert (list(one.iterdir()), [path.name for path in other.iterdir()]) == ([], ["gpufleet.prom"])
    assert run(capsys, tmp_path, max_age=24)["files"] == result["files"][:4]
    assert list(other.iterdir()) == []
    assert run(capsys, tmp_path, max_age=24)["changed"] is False
    command.unlink()
    assert run(capsys, tmp_path, max_age=24)["changed"] is True
    assert subprocess.run([command, "--run"], check=False, capture_output=True).returncode == 1


def test_everybody_may_read_and_ask_whatever_the_umask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path, "passed")
    former = os.umask(0o077)
    try:
        result = run(capsys, tmp_path, prometheus_dir=str(tmp_path / "textfiles"))
    finally:
        os.umask(former)
    # The script is this test's own, in pytest's own directory.
    (former_verdict,) = (tmp_path / "state/verdicts").iterdir()
    for path in map(Path, [*result["files"][1:], result["path"], former_verdict]):
        assert path.stat().st_mode & 0o044 == 0o044, path
        assert path.parent.stat().st_mode & 0o055 == 0o055, path.parent


def look(users: list[dict[str, Any]], unseen: int = 0) -> gpu_holders.Look:
    return gpu_holders.Look(users, [], unseen, [])


def test_nothing_is_computed_on_a_busy_gpu_unless_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "passed")
    job = {"pid": 4711, "name": "python", "user": "alice", "devices": ["/dev/nvidia0"]}
    monkeypatch.setattr(gpu_holders, "look", lambda: look([job]))
    result = run(capsys, tmp_path, gpus=1)
    assert result["failed"] and result["error"]["code"] == "GF-VERIFY-BUSY"
    assert "python (4711) of alice on /dev/nvidia0" in result["msg"]
    assert not (tmp_path / "state").exists()
    assert run(capsys, tmp_path, gpus=1, busy=True)["verdict"]["ok"]
    assert run(capsys, tmp_path, gpus=1, gpu_checks="skip")["verdict"]["ok"]
    monkeypatch.setattr(gpu_holders, "look", lambda: look([], unseen=3))
    assert "3 processes hide" in run(capsys, tmp_path, gpus=1)["msg"]
    monkeypatch.setattr(gpu_holders, "look", lambda: look([]))
    assert run(capsys, tmp_path, gpus=1)["verdict"]["ok"]


def test_a_user_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(tmp_path, "passed")
    result = run(capsys, tmp_path, user="no-such-user")
    assert result["error"]["code"] == "GF-VERIFY-USER" and "getent passwd no-such-user" in result["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_script_is_that_user_and_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    # Not below pytest's own directory, which only its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        code = (
            "import json, os, sys\n"
            "open(os.path.join(os.environ['HOME'], 'mine'), 'w').close()\n"
            "json.load(open(sys.argv[3]))\n"
            "who = [os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'], os.access(__file__, os.W_OK)]\n"
            "check = dict(name='x', status='passed', measured=who, expected=1, seconds=0, message='')\n"
            "print(json.dumps({'checks': [check]}))\n"
        )
        (folder / "script.py").write_text(code, encoding="utf-8")
        nobody = pwd.getpwnam("nobody")
        # This Python may lie where only root may look.
        environment = {"name": "default", "interpreter": "/usr/bin/python3", "torch_version": "2.0.1"}
        result = run(capsys, folder, user="nobody", environments=[environment])
        (only,) = result["verdict"]["environments"][0]["checks"]
        ids = [[nobody.pw_uid] * 3, [nobody.pw_gid] * 3, os.getgrouplist("nobody", nobody.pw_gid)]
        assert only["measured"] == [*ids, "nobody", False], only
        assert result["verdict"]["user"] == "nobody"


def test_dry_run_runs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path, _ansible_check_mode=True)
    assert (result["changed"], result["verdict"], result["msg"]) == (False, None, "would verify: default")
    assert list(tmp_path.iterdir()) == []


def test_errors_have_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path)
    assert result["failed"] and result["error"]["code"] == "GF-VERIFY-SCRIPT"
    assert result["msg"].startswith("GF-VERIFY-SCRIPT: ") and "mend:" in result["msg"]


def test_the_real_script_is_written_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_script: Any
) -> None:
    monkeypatch.setattr(torch_check.script_archive, "write", own_script)
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')\n", encoding="utf-8")
    monkeypatch.setattr(torch_check.verdict, "script_environment", lambda *given: {"PYTHONPATH": str(tmp_path)})
    result = run(capsys, tmp_path)
    (only,) = result["verdict"]["environments"][0]["checks"]
    assert "no torch here" in only["message"]
    assert str(tmp_path / "script.py") in result["files"]
    assert run(capsys, tmp_path)["changed"] is False


@pytest.mark.parametrize(
    ("level", "gpu_checks", "named"), [("health", "run", True), ("health", "skip", False), ("standard", "run", False)]
)
def test_the_health_of_the_node_is_told_beside_its_environments(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    gpu_checks: str,
    named: bool,
) -> None:
    row = {"index": 0, "ecc": {"uncorrected": 2, "remapped_rows": None}}
    facts = {"devices": [row], "health": {"xid": None}, "fabric": {"needed": False}}
    monkeypatch.setattr(torch_check.gpu, "collect", lambda: facts)
    script(tmp_path, "passed")
    more = {"gpu_checks": gpu_checks, "gpu_skip_reason": "none", "prometheus_dir": str(tmp_path)}
    found = run(capsys, tmp_path, level=level, **more)["verdict"]
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(found)
    assert [each["name"] for each in found["environments"]] == ["default", *(["node"] if named else [])]
    assert found["ok"] is not named


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"timeout": 0, "level": "quick"}, 300),
        ({"timeout": 0, "level": "standard"}, 1800),
        ({"timeout": 0, "level": "health"}, 1800 + 60 * 5),
        ({"timeout": 7, "level": "health"}, 7),
    ],
)
def test_a_higher_level_has_more_time(given: dict[str, Any], seconds: int) -> None:
    assert torch_check.seconds({"gpus": 4, "soak_seconds": 60, **given}) == seconds
