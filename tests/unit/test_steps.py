"""What the end of a test run shows: a service that keeps no more than that must still name the fault."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("steps", ROOT / "tests/tools/steps.py")
assert SPEC is not None
assert SPEC.loader is not None
steps = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(steps)


def test_a_failed_task_is_shown_with_what_it_said_without_colours() -> None:
    said = "  \x1b[2m│\x1b[0m fatal: [cpu]: FAILED! =>\n  │     msg: no space left\n" + "ok: [a100]\n" * 50
    shown = steps.faults("TASK [one]\nok: [cpu]\n" + said)
    assert shown[:2] == ["  │ fatal: [cpu]: FAILED! =>", "  │     msg: no space left"]
    assert len(shown) == steps.LINES_AFTER


def test_no_more_than_the_first_faults_are_shown() -> None:
    said = "".join(f"E   assert {number}\n" + "ok\n" * 20 for number in range(30))
    shown = [line for line in steps.faults(said) if line.startswith("E")]
    assert shown == [f"E   assert {number}" for number in range(steps.FAULTS_SHOWN)]


def test_steps_and_tests_are_added_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(steps, "REPORTS", tmp_path)
    (tmp_path / "unit.xml").write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="1"/></testsuites>', encoding="utf-8"
    )
    assert steps.counts({"lint": 3, "unit": 9}, "unit") == "6 passed, 4 failed, 1 skipped"
