"""plan.yml, site.yml --check and a run tell the same: what is foretold is what changes, and looking changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

PROFILE = "/etc/profile.d/gpufleet-pytorch.sh"


def foretold(world: World, work: Path, playbook: str, cmdline: str = "") -> dict[str, Any]:
    """For every node the stages that a playbook says would change."""
    report = work / f"{playbook.rpartition('/')[2]}.json"
    run = world.play(playbook=playbook, cmdline=cmdline, gpufleet_plan_json=str(report))
    assert run.rc == 0, run.stdout
    nodes = json.loads(report.read_text())["nodes"]
    return {
        node: sorted(role for role, stage in nodes[node]["stages"].items() if stage["action"] == "change")
        for node in nodes
    }


@pytest.fixture
def damaged(converged: World) -> World:
    """The converged nodes, one with a profile that somebody removed."""
    converged.sh("cpu", f"rm {PROFILE}")
    return converged


def test_what_is_foretold_is_what_a_run_changes(damaged: World, tmp_path: Path) -> None:
    planned = foretold(damaged, tmp_path, "playbooks/plan.yml")
    assert planned == {"cpu": ["pytorch", "verify"], "a100": []}
    damaged.sh("cpu", f"test ! -e {PROFILE}")  # looking has mended nothing
    assert foretold(damaged, tmp_path, "site.yml", "--check") == planned

    run = damaged.play()

    assert run.rc == 0, run.stdout
    assert run.changed("cpu") > 0
    assert run.changed("a100") == 0
    damaged.sh("cpu", f"test -s {PROFILE}")
    assert foretold(damaged, tmp_path, "playbooks/plan.yml") == {"cpu": [], "a100": []}


def test_a_plan_from_kept_facts_contacts_no_node(converged: World) -> None:
    converged.sh("cpu", "rm -f /var/log/module-executions")

    run = converged.play(playbook="playbooks/plan.yml", gpufleet_facts="cached")

    assert run.rc == 0, run.stdout
    assert converged.sh("cpu", "test ! -e /var/log/module-executions && echo untouched") == "untouched"
