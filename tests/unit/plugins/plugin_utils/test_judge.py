"""Slow nodes are found among their equals and against their own past; healthy oddities raise nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge import judge
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_figures import figures
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_text import lines

from .judging import CPU, METRICS, figure, measured, node, recorded, seeded

Fleet = dict[str, dict[str, Any]]
KIND = "driver 535.309.01, torch 2.0.1+cu117"
SLOW = ("n017", "n064", "n101")


def fleet(seed: int, slow: tuple[str, ...] = (), slower: float = 0.2, size: int = 128, **more: Any) -> Fleet:
    """Nodes with one A100 each."""
    noise, facts = seeded(seed), recorded("debian12-a100")
    names = [f"n{number:03}" for number in range(1, size + 1)]
    return {name: node(facts, *measured(noise, slower=slower if name in slow else 0.0), **more) for name in names}


def named(nodes: Fleet) -> set[str]:
    return {outlier["host"] for outlier in judge(nodes)["outliers"]}


@pytest.mark.parametrize("seed", range(8))
def test_three_slow_nodes_of_128_are_found_and_none_besides(seed: int) -> None:
    found = judge(fleet(seed, SLOW))["outliers"]
    assert {outlier["host"] for outlier in found} == set(SLOW)
    # In every single figure.
    assert {(outlier["host"], outlier["metric"]) for outlier in found} == {(n, m) for n in SLOW for m in METRICS}


def test_hardly_a_run_in_a_hundred_names_a_healthy_node() -> None:
    seeds = 200
    healthy = sum(bool(named(fleet(seed))) for seed in range(1000, 1000 + seeds))
    beside_slow = sum(named(fleet(seed, SLOW)) != set(SLOW) for seed in range(2000, 2000 + seeds // 2))
    # docs/judging.md states what was measured with more seeds; 1 % of 200 is two, 6 has a chance of 1 in 60.
    assert healthy <= 6
    assert beside_slow <= 4


def test_an_outlier_says_all_that_somebody_needs_to_know() -> None:
    judgement = judge(fleet(1, ("n017",)))
    worst = dict(next(row for row in judgement["outliers"] if row["metric"] == "gpu_gemm_bf16"))
    assert 180 < worst.pop("value") < 205
    assert 235 < worst.pop("median") < 245
    assert worst == {
        "host": "n017", "device": 0, "environment": "default", "metric": "gpu_gemm_bf16", "unit": "TFLOP/s", "equals": 127,
        "group": "NVIDIA A100 PCIe 40GB, driver 535.309.01, torch 2.0.1+cu117", "against": "equals",
    }  # fmt: skip
    assert judgement["failing"] == {}


def test_a_slow_node_is_told_with_its_worst_figure_and_what_to_do() -> None:
    row = {
        "host": "n7", "device": 3, "environment": "default", "metric": "gpu_gemm_bf16", "unit": "TFLOP/s", "value": 148.2,
        "median": 231.4, "equals": 127, "group": "NVIDIA A100", "against": "equals",
    }  # fmt: skip
    step = {**row, "metric": "training_step", "unit": "ms", "value": 50.0, "median": 41.0}
    others = [
        {**row, "device": 5, "value": 150.0},
        step,
        {**row, "host": "n10", "metric": "cpu_matmul", "device": None},
    ]
    past = {
        **row,
        "host": "n10",
        "metric": "cpu_matmul",
        "device": None,
        "against": "history",
        "equals": 9,
        "value": 99.0,
    }
    assert lines({"outliers": [row, *others, past], "rules": [], "too_few": []}) == [
        "n7: slow - gpu_gemm_bf16 of GPU 3, 5 is at worst 148 TFLOP/s, the median of its 127 equals 231 (NVIDIA A100)",
        "  also training_step +22%",
        "  look at nvidia-smi -q -d PERFORMANCE,CLOCK,TEMPERATURE,POWER: heat, a power limit, another process;"
        " then measure again: -e verify_max_age=0.01",
        "n10: slow - cpu_matmul is 99 TFLOP/s, the median of its 9 runs before 231",
        "  also cpu_matmul -36%",
        "  look at top, and the processor's frequency governor and power profile: another process, heat, a setting of the firmware;"
        " then measure again: -e verify_max_age=0.01",
    ]


def test_a_slow_gpu_of_eight_is_found_on_a_node_alone() -> None:
    noise, facts = seeded(5), recorded("h100-x8-nvswitch")
    performance = [row for device in range(8) for row in measured(noise, device, 0.01, 0.45 if device == 3 else 0.0)]
    found = judge({"n1": node(facts, *performance)})["outliers"]
    assert found
    assert {(row["host"], row["device"]) for row in found} == {("n1", 3)}
    assert any("of GPU 3 is" in line for line in lines({"outliers": found, "rules": [], "too_few": []}))


def test_a_slow_processor_is_found_among_nodes_without_gpus() -> None:
    noise, facts = seeded(6), recorded("debian12-none", None)
    nodes = {f"n{n}": node(facts, figure("cpu_matmul", noise.gauss(900, 9), None)) for n in range(1, 17)}
    nodes["n7"]["verdict"]["performance"][0]["value"] = 450.0
    found = judge(nodes)["outliers"]
    assert [(row["host"], row["device"], row["equals"]) for row in found] == [("n7", None, 15)]
    assert found[0]["group"] == "AMD EPYC 7763 64-Core Processor (64 threads), torch 2.0.1+cu117"
    assert "governor" in " ".join(lines(judge(nodes)))


@pytest.mark.parametrize(("wish", "outliers", "failing"), [("warn", 8, 0), ("fail", 8, 1), ("ignore", 0, 0)])
def test_what_becomes_of_a_slow_node_is_the_sites_wish(wish: str, outliers: int, failing: int) -> None:
    nodes = fleet(1, ("n017",), size=32)
    nodes["n017"]["plan"]["judging"]["outliers"] = wish
    judgement = judge(nodes)
    assert (len(judgement["outliers"]), len(judgement["failing"])) == (outliers, failing)
    assert all(row["host"] == "n017" for row in judgement["outliers"])
    if failing:
        assert judgement["failing"]["n017"][0].startswith("GF-VERIFY-OUTLIER: n017 is slow: gpu_")


# ---- the node's own past --------------------------------------------------------------------------------------------


def past(
    noise: random.Random, runs: int, driver: str = "535.309.01", torch: str = "2.0.1+cu117", **more: Any
) -> list[dict[str, Any]]:
    return [
        {
            "at": f"2026-11-{day:02}T03:00:00Z",
            "ok": True,
            "driver": driver,
            "torch": torch,
            "performance": measured(noise, **more),
        }
        for day in range(1, runs + 1)
    ]


def test_a_node_alone_that_became_slower_is_found_by_its_history() -> None:
    noise, facts = seeded(7), recorded("debian12-a100")
    found = judge({"n1": node(facts, *measured(noise, slower=0.4), history=past(noise, 10, spread=0.01))})["outliers"]
    assert {(row["host"], row["against"], row["equals"]) for row in found} == {("n1", "history", 10)}
    assert "the median of its 10 runs before" in " ".join(lines({"outliers": found, "rules": [], "too_few": []}))


def test_a_fleet_that_became_slower_as_a_whole_is_found_by_its_history() -> None:
    noise, facts = seeded(8), recorded("debian12-a100")
    nodes = {f"n{n}": node(facts, *measured(noise, slower=0.2), history=past(noise, 4)) for n in range(16)}
    found = judge(nodes)["outliers"]
    assert {row["host"] for row in found if row["against"] == "history"} == set(nodes)
    assert not [row for row in found if row["against"] == "equals"]


def test_a_healthy_history_names_hardly_anybody() -> None:
    facts, wrong = recorded("debian12-a100"), 0
    for seed in range(100):
        noise = seeded(seed)
        nodes = {f"n{n}": node(facts, *measured(noise), history=past(noise, 3 + n % 8)) for n in range(16)}
        wrong += bool(named(nodes))
    # Two families of 1 % each; 2 % of 100 is 2, more than 6 has a chance of 1 in 200.
    assert wrong <= 6


@pytest.mark.parametrize(
    "change",
    [
        {"driver": "550.54.15"},
        {"torch": "1.13.1"},
    ],
)
def test_what_was_measured_with_another_driver_or_torch_is_no_history(change: dict[str, Any]) -> None:
    noise, facts = seeded(9), recorded("debian12-a100")
    assert named({"n1": node(facts, *measured(noise, slower=0.4), history=past(noise, 10, **change))}) == set()


def test_neither_a_run_that_failed_nor_this_one_is_history() -> None:
    noise, facts = seeded(9), recorded("debian12-a100")
    failed = [{**row, "ok": False} for row in past(noise, 10)]
    own = [{**row, "at": "2026-11-25T18:00:00Z"} for row in past(noise, 10)]
    assert named({"n1": node(facts, *measured(noise, slower=0.4), history=failed + own)}) == set()


# ---- healthy oddities -----------------------------------------------------------------------------------------------


def some(
    recording: str, count: int, start: int, noise: random.Random, slower: float = 0.0, gpus: int = 1, **more: Any
) -> Fleet:
    facts = recorded(recording)
    return {
        f"n{start + n}": node(
            facts, *(row for gpu in range(gpus) for row in measured(noise, gpu, slower=slower)), **more
        )
        for n in range(count)
    }


def idle_generation_1(noise: random.Random) -> Fleet:
    nodes = some("debian12-a100", 16, 0, noise)
    facts = recorded("debian12-a100")
    facts["gpu"]["devices"][0]["pcie"].update(generation=1, generation_max=4, width=16, width_max=16)
    others = {f"n{n}": node(facts, *measured(noise)) for n in range(16, 32)}
    return {**nodes, **others}


def a100_without_bridge(noise: random.Random) -> Fleet:
    """A100 PCIe: two nodes' worth of GPUs that only the slot connects, beside SXM ones with NVLink that are faster."""
    return {
        **some("debian12-a100", 16, 0, noise, slower=0.15, gpus=2),
        **some("a100-x16-nvswitch", 2, 50, noise, gpus=16),
    }


def mig_on(noise: random.Random) -> Fleet:
    whole = recorded("a100-mig")
    for device in whole["gpu"]["devices"]:
        device["mig"] = {"enabled": False, "instances": []}
    nodes = {f"n{n}": node(whole, *measured(noise), *measured(noise, 1)) for n in range(16)}
    return {**nodes, **some("a100-mig", 2, 50, noise, slower=0.6)}


def mig_on_without_instances(noise: random.Random) -> Fleet:
    facts = recorded("a100-mig")
    facts["gpu"]["devices"][0]["mig"]["instances"] = []
    return {**some("a100-mig", 6, 0, noise), "n9": node(facts, *measured(noise, 0, slower=0.5))}


def consumer_cards_with_unknown_values(noise: random.Random) -> Fleet:
    return {**some("ubuntu24-rtx4090", 8, 0, noise), **some("wsl2-rtx4090", 8, 20, noise)}


def one_node_alone(noise: random.Random) -> Fleet:
    return some("vm-t4", 1, 0, noise, slower=0.9)


def too_few_of_a_kind(noise: random.Random) -> Fleet:
    return {**some("debian12-a100", 3, 0, noise), **some("debian12-a100", 1, 10, noise, slower=0.7)}


def mixed_generations_in_a_fleet(noise: random.Random) -> Fleet:
    kinds = [("v100-x2", 0.8, 2), ("debian12-a100", 0.5, 1), ("rocky9-l40s-x4", 0.3, 4), ("h100-x8-nvswitch", 0.0, 8)]
    return {
        name: there
        for place, (recording, slower, gpus) in enumerate(kinds)
        for name, there in some(recording, 6, place * 10, noise, slower, gpus).items()
    }


def mixed_generations_in_a_node(noise: random.Random) -> Fleet:
    facts = recorded("mixed-v100-a100-h100")
    rows = [*measured(noise, 0, slower=0.8), *measured(noise, 1, slower=0.5), *measured(noise, 2)]
    return {f"n{n}": node(facts, *rows) for n in range(8)}


def a_share_of_a_gpu(noise: random.Random) -> Fleet:
    return {**some("debian12-a100", 16, 0, noise), **some("vgpu-guest", 2, 30, noise, slower=0.5)}


def ecc_switched_off(noise: random.Random) -> Fleet:
    off = recorded("a100-mig")
    for device in off["gpu"]["devices"]:
        device["ecc"]["enabled"] = False
        device["mig"] = {"enabled": False, "instances": []}
    on = recorded("a100-mig")
    for device in on["gpu"]["devices"]:
        device["mig"] = {"enabled": False, "instances": []}
    nodes = {f"n{n}": node(off, *measured(noise)) for n in range(16)}
    return {**nodes, "n20": node(on, *measured(noise, slower=0.3))}


def an_older_slot(noise: random.Random) -> Fleet:
    def facts(generation: int) -> dict[str, Any]:
        found = recorded("debian12-a100")
        found["gpu"]["devices"][0]["pcie"]["generation_max"] = generation
        return found

    nodes = {f"n{n}": node(facts(4), figure("gpu_host_to_device", noise.gauss(24, 0.2))) for n in range(16)}
    old = {f"n{n}": node(facts(3), figure("gpu_host_to_device", noise.gauss(12, 0.2))) for n in range(20, 23)}
    return {**nodes, **old}


def another_server(noise: random.Random) -> Fleet:
    """The same GPU beside a slower processor, which has a part in copies and in short steps."""
    facts = recorded("debian12-a100")
    facts["node"]["cpu"] = {"model": "Intel(R) Xeon(R) CPU E5-2650 v4 @ 2.20GHz", "threads": 48}
    rows = [figure(metric, METRICS[metric][2] * 0.6) for metric in ("gpu_host_to_device", "gpu_device_to_host")]
    rows.append(figure("training_step", 80.0))
    return {**some("debian12-a100", 16, 0, noise), **{f"n{n}": node(facts, *rows) for n in range(20, 23)}}


def another_driver(noise: random.Random) -> Fleet:
    facts = recorded("debian12-a100")
    return {
        **some("debian12-a100", 16, 0, noise),
        "n30": node(facts, *measured(noise, slower=0.3), driver="450.248.02"),
    }


def another_torch(noise: random.Random) -> Fleet:
    nodes = some("debian12-a100", 17, 0, noise)
    nodes["n16"]["verdict"]["environments"][0]["torch_version"] = "1.13.1+cu117"
    nodes["n16"]["verdict"]["performance"] = measured(noise, slower=0.3)
    return nodes


def two_environments(noise: random.Random) -> Fleet:
    """The older torch of a second environment is slower on every node."""
    nodes = some("debian12-a100", 16, 0, noise)
    for there in nodes.values():
        verdict = there["verdict"]
        verdict["environments"].append({**verdict["environments"][0], "name": "old", "torch_version": "1.13.1+cu117"})
        verdict["performance"] += [{**row, "environment": "old"} for row in measured(noise, slower=0.4)]
    return nodes


def two_processors(noise: random.Random) -> Fleet:
    small, large = recorded("debian12-none", None), recorded("debian12-none", None)
    small["node"]["cpu"]["threads"] = 16
    nodes = {f"n{n}": node(large, figure("cpu_matmul", noise.gauss(900, 9), None)) for n in range(16)}
    return {**nodes, **{f"n{n}": node(small, figure("cpu_matmul", noise.gauss(250, 3), None)) for n in range(20, 24)}}


def an_unknown_processor(noise: random.Random) -> Fleet:
    """Facts of an older look, without a processor; and Arm, where the kernel tells no name."""
    older = recorded("grace-hopper", None)
    del older["node"]["cpu"]
    nodes = {f"n{n}": node(older, figure("cpu_matmul", 900.0, None)) for n in range(16)}
    nodes["n0"]["verdict"]["performance"][0]["value"] = 90.0
    return nodes


def an_unknown_driver(noise: random.Random) -> Fleet:
    facts = recorded("jetson-orin", None)
    nodes = {f"n{n}": node(facts, *measured(noise)) for n in range(16)}
    nodes["n3"]["verdict"]["performance"] = measured(noise, slower=0.9)
    return nodes


def a_gpu_of_a_guest(noise: random.Random) -> Fleet:
    facts = recorded("passthrough-host")
    return {f"n{n}": node(facts, figure("cpu_matmul", noise.gauss(900, 9), None)) for n in range(8)}


def wsl_without_nvml(noise: random.Random) -> Fleet:
    return some("wsl2", 6, 0, noise)


def a_coarse_clock(noise: random.Random) -> Fleet:
    facts = recorded("debian12-a100")
    values = [41.0] * 20 + [41.5] * 8 + [40.5] * 4
    return {f"n{n}": node(facts, figure("training_step", value)) for n, value in enumerate(values)}


def one_much_faster(noise: random.Random) -> Fleet:
    facts = recorded("debian12-a100")
    return {**some("debian12-a100", 16, 0, noise), "n30": node(facts, *measured(noise, slower=-1.0))}


def a_verdict_of_another_plan(noise: random.Random) -> Fleet:
    return {
        **some("debian12-a100", 16, 0, noise),
        **some("debian12-a100", 1, 30, noise, slower=0.8, plan_digest="former"),
    }


def verdicts_without_figures(noise: random.Random) -> Fleet:
    """As former releases left them, as a node has them that waits for a reboot, and as one that did not get that far."""
    nodes = some("debian12-a100", 16, 0, noise)
    for key in ("performance", "history", "level", "driver"):
        del nodes["n3"]["verdict"][key]
    nodes["n4"]["verdict"]["performance"] = []
    nodes["n5"]["verdict"] = None
    nodes["n6"] = {"plan": None, "verdict": None}
    nodes["n7"]["plan"].update(ok=False, stages={})
    return nodes


def values_that_are_no_numbers(noise: random.Random) -> Fleet:
    nodes = some("debian12-a100", 16, 0, noise)
    odd = (None, float("nan"), float("inf"), "fast", True)
    nodes["n3"]["verdict"]["performance"] = [figure("gpu_gemm_bf16", value) for value in odd]
    nodes["n4"]["verdict"]["performance"][0]["better"] = "bluer"
    nodes["n5"]["verdict"]["performance"] = [figure("training_step", float("inf"))]
    return nodes


def short_histories(noise: random.Random) -> Fleet:
    facts = recorded("debian12-a100")
    return {f"n{n}": node(facts, *measured(noise, slower=0.9), history=past(noise, 2)) for n in range(4)}


ODDITIES = [
    idle_generation_1, a100_without_bridge, mig_on, mig_on_without_instances, consumer_cards_with_unknown_values, one_node_alone,
    too_few_of_a_kind, mixed_generations_in_a_fleet, mixed_generations_in_a_node, a_share_of_a_gpu, ecc_switched_off,
    an_older_slot, another_server, another_driver, another_torch, two_environments, two_processors, an_unknown_processor, an_unknown_driver,
    a_gpu_of_a_guest, wsl_without_nvml, a_coarse_clock, one_much_faster, a_verdict_of_another_plan, verdicts_without_figures,
    values_that_are_no_numbers, short_histories,
]  # fmt: skip


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda function: function.__name__)
def test_a_healthy_oddity_raises_nothing(oddity: Callable[[random.Random], Fleet]) -> None:
    judgement = judge(oddity(seeded(11)))
    assert judgement["outliers"] == []
    assert judgement["failing"] == {}


def test_groups_that_are_too_small_are_told() -> None:
    nodes = too_few_of_a_kind(seeded(1))
    judgement = judge(nodes)
    cpu = f", {CPU['model']} (64 threads)"
    assert judgement["too_few"] == [
        {"group": f"NVIDIA A100 PCIe 40GB, {group}", "hosts": ["n0", "n1", "n2", "n10"], "equals": 4}
        for group in (KIND, f"PCIe 4.0, {KIND}{cpu}", f"{KIND}{cpu}")
    ]
    assert lines(judgement) == ["speed not compared with other nodes' (fewer than 5 of a kind in this run): n[0-2,10]"]


def test_a_run_in_which_half_the_figures_are_slow_is_told_in_few_lines() -> None:
    noise, facts = seeded(3), recorded("debian12-a100")
    nodes = {f"n{n}": node(facts, *measured(noise, slower=0.5 if n < 40 else 0.0)) for n in range(128)}
    told = lines(judge(nodes))
    assert len(told) == 31
    assert told[-1] == "slow in all: n[0-39] (40 nodes); gpufleet_judgement has every figure"


def test_a_group_as_torch_names_the_gpu() -> None:
    noise, facts = seeded(3), recorded("debian12-a100")
    nodes = {f"n{n}": node(facts, *measured(noise)) for n in range(6)}
    for there in nodes.values():
        check = {"name": "gpu_kernel:0", "status": "passed", "measured": {"device": "NVIDIA A100-PCIE-40GB (rev 2)"}}
        there["verdict"]["environments"][0]["checks"].append(check)
    nodes["n1"]["verdict"]["performance"] = measured(noise, slower=0.9)
    groups = {row["group"] for row in judge(nodes)["outliers"]}
    assert groups
    assert all(group.startswith("NVIDIA A100-PCIE-40GB (rev 2), ") for group in groups)


@pytest.mark.parametrize(
    ("recording", "metric", "device", "group"),
    [
        ("debian12-a100", "gpu_gemm_bf16", 0, f"NVIDIA A100 PCIe 40GB, {KIND}"),
        ("a100-mig", "gpu_gemm_bf16", 0, f"NVIDIA A100 MIG 3g.20gb, ECC on, {KIND}"),
        (
            "a100-mig",
            "gpu_host_to_device",
            0,
            f"NVIDIA A100 MIG 3g.20gb, ECC on, PCIe 4.0, {KIND}, {CPU['model']} (64 threads)",
        ),
        # CUDA shows one instance and nothing else: what a second one would be nobody knows.
        ("a100-mig", "gpu_gemm_bf16", 1, None),
        # CUDA numbers GPUs of several kinds by their speed: without torch's word nobody knows which one it is.
        ("mixed-v100-a100-h100", "gpu_gemm_bf16", 0, None),
        ("debian12-none", "cpu_matmul", None, f"{CPU['model']} (64 threads), torch 2.0.1+cu117"),
    ],
)
def test_what_equals_have_in_common(recording: str, metric: str, device: int | None, group: str | None) -> None:
    there = node(recorded(recording), figure(metric, 1.0, device))
    found = figures("n1", there["plan"], there["verdict"])
    assert [each.group for each in found] == ([group] if group else [])


def test_a_whole_gpu_with_mig_on_is_no_equal_of_one_with_mig_off() -> None:
    """As torch names it, which does not say that MIG is on."""
    there = node(recorded("a100-mig"), figure("gpu_gemm_bf16", 1.0))
    check = {"name": "gpu_kernel:0", "status": "passed", "measured": {"device": "NVIDIA A100-SXM4-40GB"}}
    there["verdict"]["environments"][0]["checks"].append(check)
    assert figures("n1", there["plan"], there["verdict"])[0].group == f"NVIDIA A100-SXM4-40GB, MIG, ECC on, {KIND}"


def test_gpus_of_several_kinds_are_told_apart_by_what_torch_says() -> None:
    facts = recorded("mixed-v100-a100-h100")
    facts["gpu"]["devices"][2]["ecc"]["enabled"] = True
    fastest = str(facts["gpu"]["devices"][2]["name"])
    there = node(facts, figure("gpu_gemm_bf16", 1.0), figure("gpu_gemm_bf16", 1.0, 1))
    for index, name in enumerate((fastest, "NVIDIA T1000")):
        check = {"name": f"gpu_kernel:{index}", "status": "passed", "measured": {"device": name}}
        there["verdict"]["environments"][0]["checks"].append(check)
    found = figures("n1", there["plan"], there["verdict"])
    assert [each.group for each in found] == [f"{fastest}, ECC on, {KIND}", f"NVIDIA T1000, {KIND}"]
