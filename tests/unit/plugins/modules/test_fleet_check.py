"""The module around one node's part of a fleet check."""

from __future__ import annotations

import errno
import json
import os
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
    """One rank of two; this Python stands for the environment's, and has no torch."""
    places = {"script": str(folder / "prefix/libexec/gpufleet_fleet.pyz"), "state_dir": str(folder / "state")}
    return {**places, "ranks": [0], "world_size": 2, "address": "127.0.0.1", "timeout": 20}


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
    assert result["ranks"][0]["answer"]["error"]["text"] == "ModuleNotFoundError: No module named 'torch'"


def test_the_script_is_written_once_and_for_every_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    former = os.umask(0o077)
    try:
        changed = [run(capsys, **part(tmp_path))["changed"] for _time in range(2)]
    finally:
        os.umask(former)
    assert changed == [True, False]
    made = sorted(tmp_path.rglob("*"))
    assert [str(path.relative_to(tmp_path)) for path in made] == [
        "prefix",
        "prefix/libexec",
        "prefix/libexec/gpufleet_fleet.pyz",
        "state",
    ]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o755}


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, "GF-RIGHTS"), (errno.ENOSPC, "GF-DISK-SPACE")])
def test_where_the_script_cannot_be_written_it_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    def refuse(path: str, main: Any) -> bool:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(fleet_check.script_archive, "write", refuse)
    result = run(capsys, **part(tmp_path))
    assert result["failed"] and result["error"]["code"] == code


def test_a_dry_run_starts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, **part(tmp_path), _ansible_check_mode=True)
    assert (result["changed"], result["msg"], "ranks" in result) == (False, "would check the fleet", False)
    assert list(tmp_path.iterdir()) == []


def test_errors_have_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, **{**part(tmp_path), "interpreter": str(tmp_path / "python")})
    assert result["failed"] and result["error"]["code"] == "GF-FLEET-NOT-RUN"


def test_a_part_without_its_ranks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "script" in run(capsys)["msg"]
