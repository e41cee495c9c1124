"""A site's rules on a real node: asked of what a run left, asked again without running anything there, and refused before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

COUNT = "/var/log/module-executions"
# Before the run no torch was there: this holds only where the node is looked at again.
FOUND = {"name": "found", "expression": "length(cuda.torch) > `0` && verdict.ok"}
WARNED = {
    "name": "warned",
    "expression": "node.distribution == 'Nowhere'",
    "severity": "warning",
    "advice": "move house",
}
TOLD = "node: rule warned does not hold (warning)"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("judging", tmp_path_factory.mktemp("judging")) as world:
        yield world


def play(world: World, *rules: dict[str, Any]) -> tuple[Run, int]:
    """A run with these rules, and how many modules were executed on the node."""
    world.sh("node", f"rm -f {COUNT}")
    run = world.play(verify_rules=list(rules))
    return run, int(world.sh("node", f"cat {COUNT} | wc -l"))


def test_rules_are_asked_of_what_the_run_left(node: World) -> None:
    run, _executions = play(node, FOUND, WARNED)
    assert run.rc == 0, run.stdout
    assert TOLD in run.stdout
    assert "move house" in run.stdout
    assert "rule found" not in run.stdout


def test_a_run_without_changes_asks_them_again_with_one_module_execution(node: World) -> None:
    run, executions = play(node, FOUND, WARNED)
    assert run.rc == 0, run.stdout
    assert run.changed("node") == 0
    assert TOLD in run.stdout
    assert executions == 1


def test_another_rule_fails_the_node_without_running_anything_else_there(node: World) -> None:
    run, executions = play(node, FOUND, {**WARNED, "severity": "error"})
    assert run.rc == 2, run.stdout
    assert "GF-RULE-FAILED: the rule warned does not hold on node" in run.stdout
    assert run.changed("node") == 0
    assert executions == 1
    # The summary stands before the failure.
    assert run.stdout.index("node: verified - PyTorch") < run.stdout.index("GF-RULE-FAILED")


def test_a_rule_that_cannot_be_meant_stops_the_run_at_the_plan(node: World) -> None:
    run, executions = play(node, {"name": "slip", "expression": "!(cuda.torhc)"})
    assert run.rc == 2, run.stdout
    assert "GF-RULE-NAME" in run.stdout
    assert "is torch meant?" in run.stdout
    assert executions == 1
