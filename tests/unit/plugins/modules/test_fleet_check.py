"""The module around one node's part of a fleet check."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.stack.plugins.modules import fleet_check


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    given = {"interpreter": sys.executable, "port": 29511, **arguments}
    with patch_module_args(given), pytest.raises(SystemExit):
        fleet_check.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def part(folder: Path) -> dict[str, Any]:
    (folder / "script.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    return {"script": str(folder / "script.py"), "ranks": [0], "world_size": 2, "address": "127.0.0.1", "timeout": 20}


def test_look_says_what_is_there_in_a_dry_run_too(capsys: pytest.CaptureFixture[str]) -> None:
    for dry in (False, True):
        result = run(capsys, state="look", _ansible_check_mode=dry)
        assert result["changed"] is False
        assert set(result["look"]) == {"torch", "python", "address", "interface", "port_free"}


def test_a_rank_that_fails_is_an_answer_and_no_failure_of_the_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(capsys, **part(tmp_path))
    assert not result.get("failed")
    assert [(rank["rank"], rank["ended"], rank["rc"]) for rank in result["ranks"]] == [(0, "exit", 1)]


def test_a_dry_run_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, **part(tmp_path), _ansible_check_mode=True)
    assert (result["changed"], result["msg"], "ranks" in result) == (False, "would check the fleet", False)


def test_errors_have_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, **{**part(tmp_path), "interpreter": str(tmp_path / "python")})
    assert result["failed"] and result["error"]["code"] == "GF-FLEET-NOT-RUN"


def test_a_part_without_its_ranks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "script" in run(capsys)["msg"]
