"""What ansible-runner, and AWX with it, keeps of a whole run of site.yml: real nodes, the real torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import ansible_runner
import pytest

from .conftest import World, fresh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def play(world: World, **wanted: Any) -> tuple[str, dict[str, Any]]:
    """The output of a run, and what it kept."""
    done = ansible_runner.run(**world.settings(gpufleet_report_dir=str(world.work / "report"), **wanted))
    kept = [event["event_data"]["artifact_data"] for event in done.events if event["event"] == "playbook_on_stats"]
    assert len(kept) == 1 and set(kept[0]) == {"gpufleet", "gpufleet_report"}, kept
    assert kept[0]["gpufleet_report"]["nodes"] == 2
    return done.stdout.read(), kept[0]["gpufleet"]


def test_a_run_keeps_what_it_came_to(tmp_path: Path) -> None:
    with fresh("stats", tmp_path, nodes=("n1", "n2")) as world:
        output, kept = play(world)
        well = {"ok": True, "finished": True, "nodes": 2, "verified": 2, "failed": {}, "reboot_needed": []}
        assert kept == well, output
        assert "gpufleet all 2 nodes got through" in output

        world.tool("stop", "n2")
        output, kept = play(world)
        assert kept == {**well, "ok": False, "verified": 1, "failed": {"not reached": ["n2"]}}, output
        assert "gpufleet 1 of 2 nodes got through, 1 not reached" in output
        assert "not reached on n2: " in output

        # Nobody is left: the check takes longer than it may. The run is summed up and reported all the same.
        output, kept = play(world, verify_seed=7, verify_timeout=1)
        failed = {"GF-VERIFY-FAILED": ["n1"], "not reached": ["n2"]}
        assert kept == {**well, "ok": False, "finished": False, "verified": 0, "failed": failed}, output
        assert "n1: NOT verified - PyTorch 2.0.1" in output
        report = json.loads((world.work / "report/report.json").read_text(encoding="utf-8"))
        assert {host: node["state"] for host, node in report["nodes"].items()} == {"n1": "failed", "n2": "lost"}
