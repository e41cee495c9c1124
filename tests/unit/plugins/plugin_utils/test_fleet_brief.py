"""Who takes part in a fleet check, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.filter.fleet_brief import fleet_brief
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_brief import make_brief

from .fleets import WISHES, node, nodes


def refused(found: list[dict[str, Any]], **wishes: Any) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        make_brief(found, {**WISHES, **wishes})
    return caught.value


def test_cpu_nodes_have_one_rank_each_in_natural_order() -> None:
    brief = make_brief([node("n10"), node("n2"), node("n1")], WISHES)
    assert brief["hosts"] == ["n1", "n2", "n10"]
    assert brief["ranks"] == {"n1": [0], "n2": [1], "n10": [2]}
    assert (brief["backend"], brief["address"], brief["port"], brief["world_size"]) == ("gloo", "10.0.0.1", 29511, 3)
    assert brief["interpreters"]["n2"] == "/n2/bin/python"
    assert brief["script"] == {
        "backend": "gloo",
        "sizes": [4, 4096],
        "seed": 7,
        "start": 60,
        "stall": 30,
        "leaders": [0, 1, 2],
    }


def test_gpu_nodes_have_a_rank_for_each_gpu_and_compute_with_nccl() -> None:
    brief = make_brief([node("n1", gpus=2), node("n2", gpus=4)], WISHES)
    assert (brief["backend"], brief["world_size"]) == ("nccl", 6)
    assert brief["ranks"] == {"n1": [0, 1], "n2": [2, 3, 4, 5]}
    assert brief["script"]["leaders"] == [0, 2]


def test_one_node_without_a_usable_gpu_makes_all_compute_on_cpus() -> None:
    pending = node("n2", gpus=4)
    pending["stage"]["driver_pending"] = True
    brief = make_brief([node("n1", gpus=2), pending], WISHES)
    assert (brief["backend"], brief["ranks"]) == ("gloo", {"n1": [0], "n2": [1]})
    error = refused([node("n1", gpus=2), pending], backend="nccl")
    assert error.code == "GF-FLEET-BACKEND" and "n2" in error.message


def test_a_short_time_is_shared_out() -> None:
    assert make_brief(nodes(2), {**WISHES, "timeout": 40})["script"]["start"] == 20
    assert make_brief(nodes(2), {**WISHES, "timeout": 40})["script"]["stall"] == 10


def test_a_node_that_was_not_seen_is_absent_and_the_others_go_on() -> None:
    lost = {**node("n2"), "look": None, "why": "no route to host"}
    brief = make_brief([node("n1"), lost, node("n3")], WISHES)
    assert brief["hosts"] == ["n1", "n3"]
    assert brief["absent"] == [{"host": "n2", "why": "no route to host"}]


def test_another_environment_is_checked_where_it_is_named() -> None:
    assert make_brief(nodes(2), {**WISHES, "environment": "b"})["interpreters"] == {"n1": "/b", "n2": "/b"}
    assert refused(nodes(2), environment="c").code == "GF-FLEET-ENVIRONMENT"
    assert "n2" in refused([node("n1"), node("n2", torch=None)]).message


def test_too_few_nodes_are_refused() -> None:
    assert refused([node("n1")]).code == "GF-FLEET-FEW"
    assert refused([]).code == "GF-FLEET-FEW"


def test_nodes_that_would_not_run_at_the_same_time_are_refused() -> None:
    error = refused(nodes(6), forks=5)
    assert error.code == "GF-FLEET-FORKS" and "--forks 6" in error.fix
    assert "serial" in refused(nodes(6), together=False).cause
    assert make_brief(nodes(6), {**WISHES, "forks": 6})["world_size"] == 6


def test_different_environments_are_refused_with_the_nodes_of_each() -> None:
    error = refused([*nodes(3), node("n4", torch="2.1.0+cu121"), node("n5", python="3.8")])
    assert error.code == "GF-FLEET-VERSIONS"
    assert "n[1-3]: torch 2.0.1+cu117, Python 3.11; n4: torch 2.1.0+cu121" in error.message
    assert "n5: torch 2.0.1+cu117, Python 3.8" in error.message


def test_the_meeting_place_must_be_there() -> None:
    assert refused([node("n1", address=None), node("n2")]).code == "GF-FLEET-ADDRESS"
    assert refused([node("n1", port_free=False), node("n2")]).code == "GF-FLEET-PORT"
    assert make_brief([node("n1"), node("n2", port_free=False, address=None)], WISHES)["address"] == "10.0.0.1"


def test_a_gpu_that_somebody_uses_is_left_alone() -> None:
    used = {**node("n2", gpus=1), "busy": [{"name": "python", "pid": 4711, "user": "alice"}]}
    error = refused([node("n1", gpus=1), used])
    assert error.code == "GF-FLEET-BUSY" and "python (4711) uses a GPU of n2" in error.message
    assert make_brief([node("n1", gpus=1), used], {**WISHES, "backend": "gloo"})["backend"] == "gloo"
    used["stage"]["busy"] = True
    assert make_brief([node("n1", gpus=1), used], WISHES)["backend"] == "nccl"


def test_gpus_that_only_slurm_shows_are_refused() -> None:
    hidden = node("n2", gpus=1)
    hidden["stage"]["launcher"] = "srun"
    error = refused([node("n1", gpus=1), hidden])
    assert error.code == "GF-FLEET-SRUN" and "n2" in error.message
    assert make_brief([node("n1", gpus=1), hidden], {**WISHES, "backend": "gloo"})["backend"] == "gloo"


def variables(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "gpufleet_plan": {"ok": True, "stages": {"verify": found["stage"]}, "facts": {"gpu": {"busy": found["busy"]}}},
        "__verify_fleet_look": {"look": found["look"]},
    }


def test_the_filter_reads_the_variables_of_the_nodes() -> None:
    known: dict[str, Any] = {f"n{number}": variables(node(f"n{number}")) for number in (1, 2)}
    known["n3"] = {"__verify_fleet_look": {"failed": True, "msg": "GF-FLEET-INTERFACE: no ib0\n  cause: x"}}
    known["n4"] = {}
    answer = fleet_brief(list(known), known, WISHES)
    assert (answer["ok"], answer["text"], answer["brief"]["hosts"]) == (True, "", ["n1", "n2"])
    assert answer["brief"]["absent"] == [
        {"host": "n3", "why": "GF-FLEET-INTERFACE: no ib0"},
        {"host": "n4", "why": "it could not be looked at, see its error above"},
    ]
    known["n2"] = variables({**node("n2", gpus=1), "busy": [{"name": None, "pid": 7}]})
    known["n1"] = variables(node("n1", gpus=1))
    assert "a process (7) uses a GPU of n2" in fleet_brief(["n1", "n2"], known, WISHES)["text"]
    assert fleet_brief(["n1", "n3"], known, WISHES)["text"].startswith("GF-FLEET-FEW: ")
