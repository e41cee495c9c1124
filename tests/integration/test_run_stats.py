"""What ansible-runner, and AWX with it, keeps of a whole run of site.yml: real nodes, the real torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ansible_runner
import pytest

from .conftest import World, fresh

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def play(world: World) -> tuple[str, dict[str, Any]]:
    """The output of a run, and what it kept."""
    done = ansible_runner.run(**world.settings())
    kept = [event["event_data"]["artifact_data"] for event in done.events if event["event"] == "playbook_on_stats"]
    assert len(kept) == 1 and list(kept[0]) == ["gpufleet"], kept
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
