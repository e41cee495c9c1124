"""The verdict as files: the present one, the former ones, and what is remembered of them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verdict_store
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def check(name: str = "tensor", status: str = "passed", **more: Any) -> dict[str, Any]:
    return {"name": name, "status": status, "measured": 1, "expected": 1, "seconds": 0.1, "message": "", **more}


def figure(**more: Any) -> dict[str, Any]:
    return {"metric": "cpu_matmul", "unit": "GFLOP/s", "better": "higher", "device": None, "value": 81.5, **more}


def _verdict(**more: Any) -> dict[str, Any]:
    environments = [{"name": "default", "ok": True, "checks": [check()]}]
    return {"schema": 2, "ok": True, "plan_digest": "a", "at": "1", "environments": environments, **more}


def test_outcome_is_without_times_and_values() -> None:
    same = _verdict(at="2", environments=[{"name": "default", "ok": True, "checks": [check(seconds=9, measured=2)]}])
    assert verdict_store.outcome(_verdict()) == verdict_store.outcome(same)
    assert verdict_store.outcome(_verdict()) != verdict_store.outcome(_verdict(plan_digest="b"))
    assert verdict_store.outcome(_verdict()) != verdict_store.outcome(_verdict(ok=False))
    assert verdict_store.outcome(_verdict()) != verdict_store.outcome(_verdict(level="health"))
    assert verdict_store.outcome(None) is None
    assert verdict_store.outcome({"ok": True}) is None


def test_written_whole_and_readable_by_all(tmp_path: Path) -> None:
    path = tmp_path / "state" / "verdict.json"
    old = os.umask(0o077)
    try:
        verdict_store.write(str(path), _verdict())
        verdict_store.write(str(path), _verdict(at="2"))
    finally:
        os.umask(old)
    assert verdict_store.read(str(path)) == _verdict(at="2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["verdict.json"]


def test_a_verdict_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(GpufleetError) as raised:
        verdict_store.write(str(tmp_path / "file" / "verdict.json"), _verdict())
    assert raised.value.code == "GF-VERDICT-WRITE"
    path = tmp_path / "verdict.json"
    verdict_store.write(str(path), _verdict())
    with pytest.raises(ValueError, match="JSON compliant"):
        verdict_store.write(str(path), {"loss": float("nan")})
    assert verdict_store.read(str(path)) == _verdict()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "verdict.json"]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_unreadable_former_verdicts(tmp_path: Path, content: str) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(content, encoding="utf-8")
    assert verdict_store.read(str(path)) is None


def test_the_last_verdicts_stay_and_the_newest_comes_last(tmp_path: Path) -> None:
    environments = [{"name": "default", "torch_version": "2.0.1+cpu", "ok": True, "checks": [check()]}]
    for second in range(25):
        # Every second one was made within the same second as the one before it.
        at = f"2026-03-02T10:11:{second // 2:02}Z"
        found = _verdict(
            at=at, environments=environments, performance=[figure(value=second)], level="quick", driver=None
        )
        found["history"] = verdict_store.history(str(tmp_path))
        verdict_store.keep(str(tmp_path), found)
    names = sorted(path.name for path in (tmp_path / "verdicts").iterdir())
    assert len(names) == verdict_store.KEPT and names[0] == "2026-03-02T101102Z-1.json"
    assert [entry["performance"][0]["value"] for entry in verdict_store.history(str(tmp_path), most=3)] == [22, 23, 24]
    assert len(found["history"]) == verdict_store.CARRIED
    assert found["history"][-1] == {
        "at": "2026-03-02T10:11:11Z",
        "ok": True,
        "level": "quick",
        "driver": None,
        "torch": "2.0.1+cpu",
        "performance": [figure(value=23)],
    }
    assert "history" not in json.loads((tmp_path / "verdicts" / names[-1]).read_text(encoding="utf-8"))
    assert verdict_store.read(verdict_store.verdict_path(str(tmp_path))) == found


def test_foreign_and_broken_files_are_no_history(tmp_path: Path) -> None:
    folder = tmp_path / "verdicts"
    folder.mkdir()
    (folder / "notes.json").write_text("{}", encoding="utf-8")
    (folder / "2026-03-02T101112Z.json").write_text("{", encoding="utf-8")
    (folder / "2026-03-02T101113Z.json").write_text('{"schema": 1}', encoding="utf-8")
    assert verdict_store.history(str(tmp_path)) == []
    verdict_store.keep(str(tmp_path), _verdict(at="2026-03-03T00:00:00Z"), 1)
    assert sorted(path.name for path in folder.iterdir()) == ["2026-03-03T000000Z.json", "notes.json"]


def test_each_of_several_environments_is_named_in_the_history(tmp_path: Path) -> None:
    names = {"default": "2.0.1", "new": "2.7.0"}
    environments = [{"name": name, "torch_version": names[name], "ok": True, "checks": [check()]} for name in names]
    environments.append({"name": "node", "torch_version": None, "ok": True, "checks": [check()]})
    verdict_store.keep(str(tmp_path), _verdict(at="2026-03-03T00:00:00Z", environments=environments))
    assert verdict_store.history(str(tmp_path))[0]["torch"] == "default 2.0.1, new 2.7.0"
