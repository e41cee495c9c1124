"""What a person reads of a plan."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.filter.plan_summary import plan_summary
from ansible_collections.gpufleet.stack.plugins.filter.resolve import resolve_filter
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.plan_text import plan_lines
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts


def plan(node: dict[str, Any], needed: bool, **wanted: Any) -> dict[str, Any]:
    answer = resolve(node, wanted, catalog.load())
    for stage in answer["stages"].values():
        stage.update(needed=needed and stage["wanted"], because="it was never completed on this node")
    for environment in answer["stages"].get("pytorch", {}).get("environments", []):
        environment["lock"] = {"download_bytes": 2_300_000_000}
    return {**answer, "facts": node}


def test_a_bare_node_reads_what_will_be_done_and_how_much_is_downloaded() -> None:
    lines = plan_lines(plan(facts("a100", "a100"), needed=True))
    assert lines[0] == "Debian 12 on x86_64: 2 x NVIDIA A100-PCIE-40GB, no driver"
    assert lines[1] == "nvidia_driver: to do, it was never completed on this node"
    assert lines[2].startswith("  driver 535.")
    assert lines[-1].startswith("size: ")


def test_a_finished_node_reads_that_all_is_as_it_should_be() -> None:
    lines = plan_lines(plan(facts(), needed=False))
    assert lines[0] == "Debian 12 on x86_64: no NVIDIA GPU"
    assert lines[1] == "nvidia_driver: nothing to do, the node has no NVIDIA GPU"
    assert lines[-1] == "verify: as it should be"


def test_a_conflict_reads_what_is_wrong_why_and_what_mends_it() -> None:
    lines = plan_lines(plan(facts(), needed=True, pytorch_version="2.9.9"))
    assert lines[1] == "GF-TORCH-UNKNOWN: torch 2.9.9 is not known"
    assert lines[2].startswith("  because the catalog has torch")
    assert lines[3].startswith('  mend: pytorch_version: "2.')


def test_sizes_that_are_known_are_summed() -> None:
    made = plan(facts(), needed=True)
    made["stages"]["pytorch"]["environments"][0].update(disk_mib=4608)
    assert plan_lines(made)[-1] == "size: up to 2.3 GB to download, 4.5 GiB on disk"


def test_what_a_device_calls_itself_cannot_reach_the_terminal() -> None:
    node = facts("a100")
    node["gpu"]["devices"][0]["name"] = "A\x1b[31m100\n{{ x }}"
    assert plan_lines(plan(node, needed=True))[0] == "Debian 12 on x86_64: 1 x A100 {{ x }}, no driver"


@pytest.mark.parametrize("value", [None, [], "plan", {}])
def test_what_is_no_plan_is_refused_by_name(value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet\.stack\.plan_summary"):
        plan_summary(value)


@pytest.mark.parametrize("arguments", [(None, {}), ("facts", {}), (facts(), None)])
def test_the_resolve_filter_refuses_what_it_cannot_read(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet\.stack\.resolve"):
        resolve_filter(*arguments)


def test_the_resolve_filter_is_the_resolver() -> None:
    assert resolve_filter(facts(), {})["ok"] is True
