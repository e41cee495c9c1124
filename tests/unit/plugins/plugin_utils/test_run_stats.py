"""What programs read of a run: sums, the codes of failures, nodes that wait for their restart."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.filter.run_stats import run_stats as run_stats_filter
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_failures import SEEN, Failure
from ansible_collections.gpufleet.stack.plugins.plugin_utils.run_stats import run_stats
from ansible_collections.gpufleet.stack.tests.unit.plugins.plugin_utils.test_run_summary import (
    check,
    good,
    plan,
    reboot,
    training,
    verdict,
)

BAD = verdict(training(), check("torch_version", "failed", message="torch is 1.13.1, not 2.0.1"))
CONFLICT = {"code": "GF-PLAN-TORCH", "message": "there is no torch 9", "because": [], "fixes": []}


def stats(
    nodes: dict[str, Any], alive: set[str], seen: dict[str, Failure] | None = None, **more: bool
) -> dict[str, Any]:
    return run_stats(nodes, alive, seen or {}, more.get("check_mode", False), more.get("finished", True))


def test_all_is_well() -> None:
    nodes = {f"n{each}": {"plan": plan(), "verdict": good()} for each in range(1, 129)}
    assert stats(nodes, set(nodes)) == {
        "ok": True,
        "finished": True,
        "nodes": 128,
        "verified": 128,
        "failed": {},
        "reboot_needed": [],
    }


def test_every_failed_node_stands_under_its_code() -> None:
    nodes = {f"n{each}": {"plan": plan(), "verdict": good()} for each in range(1, 12)}
    nodes["n3"] = nodes["n10"] = {"plan": plan(), "verdict": BAD}
    nodes["n4"] = {"plan": plan(gpus=4), "verdict": reboot()}
    nodes["n5"] = {"plan": None, "verdict": None}
    nodes["n6"]["verdict"] = verdict(training(), digest="of an earlier plan")
    seen = {
        "n5": Failure("not reached", "no route"),
        "n7": Failure("GF-DISK-SPACE", "full"),
        "n8": Failure("failed", "Permission denied"),
    }
    found = stats(nodes, {"n1", "n2", "n9"}, seen)
    assert found["failed"] == {
        "GF-DISK-SPACE": ["n7"],
        "GF-REBOOT-NEEDED": ["n4"],
        "GF-VERIFY-FAILED": ["n3", "n10"],
        "failed": ["n8"],
        "not reached": ["n5"],
        "unknown": ["n6", "n11"],
    }
    assert (found["ok"], found["verified"], found["reboot_needed"]) == (False, 3, ["n4"])


def test_a_conflict_is_known_before_any_node_failed() -> None:
    nodes = {"n1": {"plan": plan()}, "n2": {"plan": plan(ok=False, conflicts=[CONFLICT, CONFLICT])}}
    found = stats(nodes, {"n1", "n2"}, finished=False)
    assert found["failed"] == {"GF-PLAN-TORCH": ["n2"]}
    assert (found["ok"], found["finished"], found["verified"]) == (False, False, 0)


def test_nodes_that_a_conflict_of_another_stopped_did_not_fail() -> None:
    nodes = {"n1": {"plan": plan()}, "n2": {"plan": plan(ok=False, conflicts=[CONFLICT])}, "n3": {"plan": None}}
    found = stats(nodes, set(), {"n3": Failure("not reached", "no route")}, finished=False)
    assert found["failed"] == {"GF-PLAN-TORCH": ["n2"], "not reached": ["n3"]}


def test_a_run_that_is_not_at_its_end_is_not_well() -> None:
    assert stats({"n1": {"plan": plan(), "verdict": good()}}, {"n1"}, finished=False)["ok"] is False


def test_a_node_that_the_sites_rules_do_not_accept_has_failed() -> None:
    judgement = {"failing": {"n2": ["GF-RULE-FAILED: the rule ecc does not hold on n2", "  mend:  look at it"]}}
    nodes = {host: {"plan": plan(), "verdict": good(), "judgement": judgement} for host in ("n1", "n2")}
    found = stats(nodes, {"n1", "n2"})
    assert (found["ok"], found["failed"]) == (False, {"GF-RULE-FAILED": ["n2"]})
    assert stats(nodes, {"n1", "n2"}, check_mode=True)["ok"] is True


def test_a_dry_run_verifies_nothing() -> None:
    found = stats({"n1": {"plan": plan(gpus=1), "verdict": good()}}, {"n1"}, check_mode=True)
    assert (found["ok"], found["verified"], found["reboot_needed"]) == (True, 0, [])


def test_the_filter_takes_the_reasons_from_the_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEEN, "n1", Failure("GF-DISK-SPACE", "full"))
    variables = {"n1": {"gpufleet_plan": plan()}}
    assert run_stats_filter(["n1"], variables, [])["failed"] == {"GF-DISK-SPACE": ["n1"]}


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [(("n1", {}, []), "'n1'"), ((["n1"], [], []), "[]"), ((["n1"], {}, "n1"), "'n1'"), (([], {}, [], "no"), "'no'")],
)
def test_the_filter_names_a_bad_argument(arguments: tuple[Any, ...], wrong: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet\.stack\.run_stats: .*") as caught:
        run_stats_filter(*arguments)
    assert wrong in str(caught.value)
