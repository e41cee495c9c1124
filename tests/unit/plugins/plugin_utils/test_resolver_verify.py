"""When a verdict does no longer: its level, its age, and GPUs that somebody works on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import verify

from .test_planning import index, needed, plan, probe, with_receipts

__all__ = ["index"]

NOW = 1_800_000_000
JOB = [{"pid": 4711, "name": "python"}]


def at(hours_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - hours_ago * 3600))


def stage(**more: Any) -> dict[str, Any]:
    ours = {"level": "quick", "max_age": 168, "busy": False, "gpu_checks": "run", "launcher": "direct"}
    return {"wanted": True, "needed": False, "because": "its receipt holds", **ours, **more}


def verdict(**more: Any) -> dict[str, Any]:
    return {"schema": 2, "level": "quick", "at": at(1), "ok": True, **more}


@pytest.mark.parametrize(
    ("wanted", "found", "because"),
    [
        ({}, verdict(), None),
        ({}, verdict(level="health"), None),
        ({"level": "standard"}, verdict(level="health"), None),
        ({"level": "standard"}, verdict(), "the last verdict is of level quick, and standard is wanted"),
        ({"level": "health"}, verdict(level="standard"), "the last verdict is of level standard, and health is wanted"),
        ({"level": "quick"}, {"schema": 1, "at": at(1)}, None),
        (
            {"level": "standard"},
            {"schema": 1, "at": at(1)},
            "the last verdict is of level quick, and standard is wanted",
        ),
        ({}, verdict(level="other"), "the last verdict is of level other, and quick is wanted"),
        ({}, verdict(at=at(167.9)), None),
        ({}, verdict(at=at(200)), "the last verdict is 200 hours old (verify_max_age: 168)"),
        ({"max_age": 0.5}, verdict(), "the last verdict is 1 hours old (verify_max_age: 0.5)"),
        ({"max_age": 0}, verdict(at=at(9999)), None),
        ({}, verdict(at=None), "the last verdict does not say when it was made"),
        ({}, verdict(at=at(-1)), None),
        ({}, verdict(at="2099-01-01T00:00:00Z"), "the last verdict was made in the future (2099-01-01T00:00:00Z)"),
        ({}, None, None),
    ],
)
def test_level_and_age(wanted: dict[str, Any], found: dict[str, Any] | None, because: str | None) -> None:
    standing = stage(**wanted)
    assert verify.freshen(standing, found, [], NOW) is None
    assert standing["needed"] is (because is not None)
    assert standing["because"] == because or because is None


def test_an_old_verdict_waits_for_the_users_of_a_gpu() -> None:
    standing = stage()
    warning = verify.freshen(standing, verdict(at=at(200)), JOB, NOW)
    assert warning is not None and warning["code"] == "GF-VERIFY-LATER"
    assert "200 hours old" in warning["message"] and "python (4711) uses a GPU" in warning["message"]
    assert not standing["needed"]


@pytest.mark.parametrize("wanted", [{"busy": True}, {"gpu_checks": "skip"}, {"launcher": "srun"}])
def test_where_nothing_is_waited_for(wanted: dict[str, Any]) -> None:
    standing = stage(**wanted)
    assert verify.freshen(standing, verdict(at=at(200)), JOB, NOW) is None
    assert standing["needed"]


def test_more_than_age_does_not_wait() -> None:
    standing = stage(level="health")
    assert verify.freshen(standing, verdict(at=at(200)), JOB, NOW) is None
    assert standing["needed"]


def test_what_is_needed_or_not_wanted_stays_so() -> None:
    for standing in (stage(needed=True), stage(wanted=False)):
        before = dict(standing)
        assert verify.freshen(standing, verdict(at=at(200)), JOB, NOW) is None
        assert standing == before


def test_in_the_plan(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    seen["verdict"] = verdict(at=now, level="standard")
    for level in ("quick", "standard", "fleet"):
        assert needed(plan(seen, tmp_path, verify_level=level)) == []
    assert needed(plan(seen, tmp_path, verify_level="health")) == ["verify"]
    # Neither the age nor whether a GPU may be shared makes another plan; the user does.
    assert needed(plan(seen, tmp_path, verify_max_age=24, verify_busy=True, verify_launcher="srun")) == []
    assert needed(plan(seen, tmp_path, verify_user="alice")) == ["verify"]
    seen["verdict"]["at"] = "2026-01-01T00:00:00Z"
    assert needed(plan(seen, tmp_path)) == ["verify"]
    seen["gpu"]["busy"] = JOB
    later = plan(seen, tmp_path)
    assert needed(later) == []
    assert [warning["code"] for warning in later["warnings"]].count("GF-VERIFY-LATER") == 1
    # Changes before it bring the proof along, and then nothing waits.
    seen["receipts"]["pytorch"].update(holds=False, drift=["gone"])
    changed = plan(seen, tmp_path)
    assert needed(changed) == ["pytorch", "verify"]
    assert "GF-VERIFY-LATER" not in [warning["code"] for warning in changed["warnings"]]
