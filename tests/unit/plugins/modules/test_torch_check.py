"""The module around the verdict: what counts as changed, and what a dry run leaves alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.stack.plugins.modules import torch_check


def run(capsys: pytest.CaptureFixture[str], folder: Path, **more: Any) -> dict[str, Any]:
    """One execution of the module; this Python stands for the environment's."""
    arguments = {
        "environments": [{"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1"}],
        "script": str(folder / "script.py"),
        "gpus": 0,
        "plan_digest": "abc",
        "state_dir": str(folder / "state"),
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


def test_dry_run_runs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path, _ansible_check_mode=True)
    assert (result["changed"], result["verdict"], result["msg"]) == (False, None, "would verify: default")
    assert list(tmp_path.iterdir()) == []


def test_errors_have_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, tmp_path)
    assert result["failed"] and result["error"]["code"] == "GF-VERIFY-SCRIPT"
    assert result["msg"].startswith("GF-VERIFY-SCRIPT: ") and "mend:" in result["msg"]
