"""Four nodes that compute together for real, with gloo; and one of them that does not, in every way, is named."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from .fleet_faults import (
    HOSTS,
    WRONG_GRADIENT,
    WRONG_SUM,
    broken,
    check,
    container,
    cut_link,
    disturbed,
    failed,
    fleet_world,
    slow_link,
    verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import World

pytestmark = pytest.mark.slow

# What docs/verify.md states, with some seconds for Ansible on a machine of two cores: the module ends a frozen rank after
# ten seconds; nobody waits longer than 30 s in one step; a node that is frozen as a whole is given up when the check's
# time and 20 s are over.
FROZEN_SECONDS, DEAD_SECONDS, STEP_SECONDS, SLACK = 10, 2, 30, 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fleet_world(tmp_path_factory) as world:
        yield world


def test_all_is_well(fleet: World) -> None:
    run = check(fleet)
    assert run.rc == 0, run.stdout
    found = verdict(fleet)
    assert (found["ok"], found["hosts"], found["world_size"], found["backend"]) == (True, [*HOSTS], 4, "gloo")
    assert {row["name"]: row["status"] for row in found["checks"]} == dict.fromkeys(
        ("finished", "all_reduce", "ddp_parameters", "ddp_equals_single", "pairs"), "passed"
    )
    assert [row["bytes"] for row in found["all_reduce"]] == [4, 4100, 1048576, 16777216]
    assert len(found["pairs"]) == 6
    assert found["suspects"] == []
    assert [verdict(fleet, host) for host in HOSTS] == [found] * 4
    assert fleet.sh("n1", "ls -d /tmp/gpufleet-fleet-* 2>/dev/null || true") == ""
    print(f"four nodes: {found['seconds']:.1f} s")


def test_two_nodes_are_enough(fleet: World) -> None:
    run = fleet.play(
        playbook="playbooks/verify.yml",
        cmdline="--forks 8 --limit n2,n3",
        verify_level="fleet",
        verify_fleet_group="nodes",
    )
    assert run.rc == 0, run.stdout
    found = verdict(fleet, "n2")
    assert (found["hosts"], found["world_size"], len(found["pairs"])) == (["n2", "n3"], 2, 1)
    print(f"two nodes: {found['seconds']:.1f} s")


def test_fewer_forks_than_nodes_are_refused_before_anything_runs(fleet: World) -> None:
    fleet.sh("n1", "rm -f /var/lib/gpufleet/fleet-verdict.json")
    run = fleet.play(
        playbook="playbooks/verify.yml", cmdline="--forks 3", verify_level="fleet", verify_fleet_group="nodes"
    )
    assert run.rc != 0
    assert "GF-FLEET-FORKS" in run.stdout and "--forks 4" in run.stdout
    assert fleet.sh("n1", "test -e /var/lib/gpufleet/fleet-verdict.json || echo none") == "none"


def test_a_slow_node_is_named(fleet: World) -> None:
    with slow_link(fleet, "n3", mbit=100):
        run = check(fleet)
    assert run.rc != 0
    found = verdict(fleet)
    assert failed(found) == ["pairs"], run.stdout
    assert [suspect["host"] for suspect in found["suspects"]] == ["n3"]
    assert "n3 is slow" in run.stdout


def test_a_link_that_is_cut_is_named(fleet: World) -> None:
    with cut_link(fleet, "n2", "n4"):
        run = check(fleet)
    assert run.rc != 0
    found = verdict(fleet)
    assert found["suspects"] == [{"link": ["n2", "n4"], "why": "no connection can be opened between them"}], run.stdout


@pytest.mark.parametrize(
    ("fault", "what"), [(WRONG_SUM, "all_reduce"), (WRONG_GRADIENT, "ddp_equals_single")], ids=["sum", "gradient"]
)
def test_a_rank_that_computes_wrongly_is_named(fleet: World, fault: str, what: str) -> None:
    with broken(fleet, "n2", fault):
        run = check(fleet)
    assert run.rc != 0
    found = verdict(fleet)
    assert what in failed(found), run.stdout
    assert [suspect["host"] for suspect in found["suspects"]] == ["n2"]


@pytest.mark.parametrize("host", ["n3", "n1"], ids=["any", "the one where they meet"])
def test_a_frozen_rank_is_named_in_time(fleet: World, host: str) -> None:
    run, seconds = disturbed(fleet, host, lambda pid: fleet.sh(host, f"kill -STOP {pid}") and None)
    assert run.rc != 0
    found = verdict(fleet)
    assert [suspect["host"] for suspect in found["suspects"]] == [host], run.stdout
    assert "its process was stopped" in found["suspects"][0]["why"]
    assert seconds < FROZEN_SECONDS + SLACK
    assert fleet.sh(host, "pgrep -f '[g]pufleet_fleet' || echo none") == "none"
    print(f"frozen: {seconds:.1f} s")


def test_a_killed_rank_is_named_in_time(fleet: World) -> None:
    run, seconds = disturbed(fleet, "n2", lambda pid: fleet.sh("n2", f"kill -KILL {pid}") and None)
    assert run.rc != 0
    found = verdict(fleet)
    assert [suspect["host"] for suspect in found["suspects"]] == ["n2"], run.stdout
    assert "SIGKILL" in found["suspects"][0]["why"]
    assert seconds < DEAD_SECONDS + SLACK
    print(f"killed: {seconds:.1f} s")


def test_a_node_that_is_frozen_as_a_whole_is_named_in_time(fleet: World) -> None:
    """Nothing on the node runs any more, not even what answers SSH."""

    def freeze(_pid: str) -> None:
        subprocess.run(["podman", "pause", container(fleet, "n4")], check=True)

    try:
        run, seconds = disturbed(fleet, "n4", freeze, verify_fleet_timeout=90)
    finally:
        subprocess.run(["podman", "unpause", container(fleet, "n4")], check=False)
    assert run.rc != 0
    found = verdict(fleet)
    assert [suspect["host"] for suspect in found["suspects"]] == ["n4"], run.stdout
    assert seconds < 90 + 20 + SLACK
    print(f"whole node frozen: {seconds:.1f} s")


def test_a_node_that_dies_is_named_in_time(fleet: World) -> None:
    """Every process of it ends at once, and nobody tells SSH."""

    def kill(_pid: str) -> None:
        subprocess.run(["podman", "kill", container(fleet, "n4")], check=True)

    try:
        run, seconds = disturbed(fleet, "n4", kill)
    finally:
        fleet.tool("start", "n4")
    assert run.rc != 0
    found = verdict(fleet)
    assert [suspect["host"] for suspect in found["suspects"]] == ["n4"], run.stdout
    assert seconds < STEP_SECONDS + SLACK
    print(f"dead: {seconds:.1f} s")
