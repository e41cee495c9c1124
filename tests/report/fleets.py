"""Made-up fleets for the report: plans, verdicts and a judgement of any number of nodes, the same for a seed.

python -m tests.report.fleets 128 /tmp/report       # writes a report of such a fleet, with a former one before it
"""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_document import make  # noqa: E402

from tests.report.hostile import STRINGS  # noqa: E402

Row = dict[str, Any]
DIGEST = "d1gest"
AT, BEFORE = "2026-11-25T09:30:00Z", "2026-11-24T18:02:11Z"
# Name, GPU, how many, memory in MiB, capability, driver, figures of each metric.
KINDS: tuple[tuple[str, str | None, int, int, str, str | None, dict[str, float]], ...] = (
    (
        "hopper", "NVIDIA H100 80GB HBM3", 8, 81559, "9.0", "570.195.03",
        {"gpu_gemm_bf16": 655, "gpu_gemm_tf32": 372, "gpu_memory_bandwidth": 2790, "gpu_host_to_device": 51.2},
    ),
    (
        "ampere", "NVIDIA A100-SXM4-40GB", 4, 40536, "8.0", "535.309.01",
        {"gpu_gemm_bf16": 258, "gpu_gemm_tf32": 118, "gpu_memory_bandwidth": 1310, "gpu_host_to_device": 24.1},
    ),
    ("cpu", None, 0, 0, "", None, {}),
)  # fmt: skip
UNITS = {
    "gpu_gemm_bf16": "TFLOP/s",
    "gpu_gemm_tf32": "TFLOP/s",
    "gpu_memory_bandwidth": "GiB/s",
    "gpu_host_to_device": "GiB/s",
    "cpu_matmul": "GFLOP/s",
    "training_step": "ms",
}
PASSED = (
    "torch_version", "torch_cuda_version", "torch_cudnn_version", "tensor", "cuda_available", "mlp_gradients",
    "mlp_gradients_sigmoid_output", "fine_tuning", "reproducible", "libraries", "compile", "amp", "checkpoint",
)  # fmt: skip


def check(name: str, status: str = "passed", **more: Any) -> Row:
    return {"name": name, "status": status, "measured": None, "expected": None, "seconds": 0.12, "message": "", **more}


def curve(dice: random.Random) -> list[list[float]]:
    """A loss that falls."""
    half = 42 + dice.random() * 4
    return [[step, round(41.5 * math.exp(-step / half) + 3e-4, 7)] for step in range(0, 501, 10)]


def environment_plan(variant: str, version: str = "2.0.1") -> Row:
    return {
        "name": "default",
        "torch_version": f"{version}+{variant}",
        "python": "3.11",
        "link": "/opt/gpufleet/envs/default/current",
    }


def plan(kind: int, needed: tuple[str, ...] = (), **more: Any) -> Row:
    """The plan of a node of that kind."""
    _name, gpu, count, memory, capability, driver, _figures = KINDS[kind]
    wanted = (
        ("nvidia_driver", "cuda_toolkit", "cudnn", "python", "pytorch", "verify")
        if gpu
        else ("python", "pytorch", "verify")
    )
    toolkits, cudnns = ([{"version": "11.8"}], [{"version": "8.9.6.50"}]) if gpu else ([], [])
    keys: Row = {
        "nvidia_driver": {"version": (driver or "").split(".", maxsplit=1)[0], "source": "nvidia", "flavour": "open"},
        "cuda_toolkit": {"toolkits": toolkits},
        "cudnn": {"cudnns": cudnns},
        "python": {"version": "3.11", "interpreter": "/usr/bin/python3.11", "provider": "distribution"},
        "pytorch": {"environments": [environment_plan("cu118" if gpu else "cpu")]},
        "verify": {
            "digest": DIGEST,
            "gpus": count,
            "gpu_checks": "run" if gpu else "skip",
            "gpu_skip_reason": None if gpu else "the node has no NVIDIA GPU",
        },
    }
    stages = {
        role: {"wanted": role in wanted, "needed": role in needed, "because": "its receipt holds", "why": [], **key}
        for role, key in keys.items()
    }
    devices = [
        {"index": index, "name": gpu, "memory_mib": memory, "compute_capability": capability, "mig": {"enabled": False}}
        for index in range(count)
    ]
    facts = {
        "gpu": {"devices": devices, "driver": {"installed_version": driver, "loaded_version": driver}},
        "cuda": {
            "torch": [{"environment": "default", "version": "2.0.1+cu118" if gpu else "2.0.1+cpu"}],
            "toolkits": [{**each, "default": True} for each in toolkits],
            "cudnn": cudnns,
        },
        "node": {
            "distribution": "Debian", "version": "12", "architecture": "x86_64", "kernel": {"release": "6.1.0-47-amd64"},
            "pythons": [{"version": "3.11", "full_version": "3.11.2", "path": "/usr/bin/python3.11"}],
        },
    }  # fmt: skip
    return {
        "ok": True,
        "stages": stages,
        "conflicts": [],
        "warnings": [],
        "facts": facts,
        "verdict": None,
        "drift": {},
        "judging": {"rules": [], "outliers": "warn", "look_again": False},
        **more,
    }


def figures(kind: int, dice: random.Random) -> list[Row]:
    """What a healthy node of that kind measures."""
    _name, _gpu, count, _memory, _capability, _driver, medians = KINDS[kind]
    rows = [
        {
            "metric": metric,
            "unit": UNITS[metric],
            "better": "higher",
            "device": device,
            "value": round(dice.gauss(1, 0.006) * median, 2),
        }
        for metric, median in medians.items()
        for device in range(count)
    ]
    rows.append(
        {
            "metric": "cpu_matmul",
            "unit": "GFLOP/s",
            "better": "higher",
            "device": None,
            "value": round(dice.gauss(1180, 14), 1),
        }
    )
    return rows


def verdict(kind: int, dice: random.Random, *failed: Row, host: str = "n") -> Row:
    """A verdict; the checks given are those that failed."""
    gpu = KINDS[kind][1]
    names = {each["name"] for each in failed}
    measured = {
        "torch_version": "2.0.1+cu118" if gpu else "2.0.1+cpu",
        "torch_cudnn_version": "8.7.0" if gpu else None,
    }
    checks = [check(name, measured=measured.get(name)) for name in PASSED if name not in names]
    if gpu:
        checks += [check(f"gpu_{what}:{index}") for what in ("kernel", "training") for index in range(KINDS[kind][2])]
    else:
        checks += [
            check(name, "skipped", message="the node has no NVIDIA GPU") for name in ("gpu_kernel", "gpu_training")
        ]
    points = curve(dice)
    result = {"loss_start": points[0][1], "loss_end": points[-1][1], "steps": 500, "loss_curve": points}
    if "mlp_training" not in names:
        checks.append(check("mlp_training", measured=result))
    checks += failed
    return {
        "schema": 2, "ok": not failed, "at": AT, "plan_digest": DIGEST, "host": host, "level": "standard", "user": "nobody",
        "seconds": round(dice.uniform(38, 46), 1),
        "environments": [{"name": "default", "ok": not failed, "checks": checks}],
        "performance": figures(kind, dice),
    }  # fmt: skip


def node(plan_: Row | None, verdict_: Row | None, **more: Any) -> Row:
    return {"plan": plan_, "verdict": verdict_, "reachable": plan_ is not None, "error": None, "finished": True, **more}


def wrong_torch() -> Row:
    return check(
        "torch_version",
        "failed",
        measured="2.8.0+cu128",
        expected="2.0.1+cu118",
        message="torch is 2.8.0+cu128, but 2.0.1+cu118 was planned",
    )


def fleet(count: int, seed: int = 0) -> Row:
    """The report's input for a fleet with some of everything that can be wrong; ``former`` is empty."""
    dice = random.Random(seed)  # noqa: S311
    nodes = {f"n{number}": _healthy(number, dice) for number in range(1, count + 1)}
    trouble(nodes, dice)
    slow = [
        name
        for name in list(nodes)[count // 2 :: max(1, count // 3)]
        if (nodes[name]["plan"] or {}).get("ok") and nodes[name]["verdict"]
    ]
    return {
        "at": AT,
        "title": "mycluster",
        "nodes": nodes,
        "inventory": list(nodes),
        "judgement": {"outliers": [_slow(name, nodes[name]["verdict"], count) for name in slow], "rules": rules(nodes)},
        "fleet_verdict": across(list(nodes)),
        "former": None,
    }


def _healthy(number: int, dice: random.Random) -> Row:
    kind = kind_of(number)
    return node(plan(kind), verdict(kind, dice, host=f"n{number}"))


def kind_of(number: int) -> int:
    """Of five nodes three have H100, one A100, one no GPU."""
    return (0, 0, 0, 1, 2)[number % 5]


def trouble(nodes: dict[str, Row], dice: random.Random) -> None:
    """n7 (or the last one) fails, others drifted, wait for a reboot, cannot be planned or are gone."""
    names = list(nodes)
    failing = names[6] if len(names) > 6 else names[-1]
    nodes[failing] = node(plan(0, ("pytorch", "verify")), verdict(0, dice, wrong_torch()), finished=False)
    altered = {
        "pytorch": ["file /etc/profile.d/gpufleet-pytorch.sh was changed"],
        "cudnn": ["link /opt/gpufleet/cudnn/8.9.6.50-cuda11/lib is gone"],
    }
    for name in names[1 : max(2, len(names) // 40) + 1]:
        kind = kind_of(names.index(name) + 1)
        mine = altered if kind != 2 else {"pytorch": altered["pytorch"]}
        nodes[name] = node(plan(kind, (*mine, "verify"), drift=mine), verdict(kind, dice, host=name))
    if len(names) < 30:
        return
    waiting = check(
        "cuda_available", "failed", message="GF-REBOOT-NEEDED: the planned driver is installed, but not loaded yet"
    )
    nodes[names[11]] = node(plan(0), verdict(0, dice, waiting), finished=False)
    conflict = {
        "code": "GF-TORCH-NO-BUILD", "message": "torch 2.0.1 has no build for NVIDIA B200 (compute capability 10.0)",
        "because": ["torch.yml: 2.0.1 was compiled for 3.7 to 9.0"], "fixes": [{"pytorch_version": "2.7.0"}], "advice": [],
    }  # fmt: skip
    nodes[names[14]] = node(plan(0, ok=False, stages={}, conflicts=[conflict]), None, finished=False)
    nodes[names[21]] = node(
        None, None, error="Failed to connect to the host via ssh: connect to host port 22: No route to host"
    )
    dropped = check(
        "cuda_available",
        "failed",
        measured={"count": 7},
        expected={"count": 8},
        message="torch sees 7 GPU(s), but the plan has 8",
    )
    for name in (names[15], names[16]):
        nodes[name] = node(plan(0), verdict(0, dice, dropped), finished=False)


def _slow(name: str, found: Row, count: int) -> Row:
    """One figure of the node made bad, as the judge then tells it."""
    figure = next(
        (each for each in found["performance"] if each["metric"] == "gpu_memory_bandwidth"), found["performance"][-1]
    )
    median = figure["value"]
    figure["value"] = round(median * 0.78, 1)
    keys = {key: figure[key] for key in ("device", "metric", "unit", "value")}
    return {"host": name, **keys, "median": median, "equals": count * 5, "group": "all", "against": "equals"}


def rules(nodes: dict[str, Row]) -> list[Row]:
    cpu = [
        name
        for name, each in nodes.items()
        if each["plan"] and each["plan"]["ok"] and not each["plan"]["stages"]["verify"]["gpus"]
    ]
    return [
        {"name": "kernel", "severity": "info", "advice": "boot the kernel 6.1.0-49", "hosts_failing": cpu[:2]},
        {"name": "memory", "severity": "error", "advice": "none", "hosts_failing": []},
    ]


def hostile() -> Row:
    """The input of a fleet in which every text wants something of whoever shows it."""
    dice = random.Random(0)  # noqa: S311
    nodes = {text: _hostile_node(text, place, dice) for place, text in enumerate(STRINGS)}
    given = {"at": AT, "title": STRINGS[0], "nodes": nodes, "inventory": list(nodes), "former": None}
    figures_ = [(text, nodes[text]["verdict"]) for text in STRINGS]
    outliers = [{**_slow(text, found, 8), "group": text} for text, found in figures_ if found]
    rules_ = [{"name": text, "severity": "warning", "advice": text, "hosts_failing": [text]} for text in STRINGS]
    links = across(list(STRINGS))
    links["suspects"] = [{"link": [text, STRINGS[0]], "why": text} for text in STRINGS]
    links["checks"] = [check(text, message=text) for text in STRINGS]
    given.update(judgement={"outliers": outliers, "rules": rules_}, fleet_verdict={**links, "backend": STRINGS[1]})
    former = make({**given, "nodes": {text: _healthy(1, dice) for text in STRINGS}})
    for text, row in former["nodes"].items():
        row.update(driver=text, torch=text, python=text)
    return {**given, "former": former}


def _hostile_node(text: str, place: int, dice: random.Random) -> Row:
    """One node of each state in turn, with the text wherever there is one."""
    made = plan(0, ("pytorch",), drift={"pytorch": [text], text: [text]})
    facts = made["facts"]
    for device in facts["gpu"]["devices"]:
        device.update(name=text, compute_capability=text)
    facts["gpu"]["driver"] = {"installed_version": text, "loaded_version": text}
    facts["node"].update(distribution=text, version=text, architecture=text, kernel={"release": text})
    facts["cuda"].update(toolkits=[{"version": text, "default": True}], cudnn=[{"version": text}])
    made["stages"]["pytorch"]["environments"][0].update(name=text, torch_version=text, link=text)
    conflict = {
        "code": "GF-TORCH-NO-BUILD",
        "message": text,
        "because": [text, text],
        "fixes": [{"pytorch_version": text}, {text: text}],
        "advice": [text],
    }
    failed = [check(text, "failed", message=text, measured=text, expected=text)]
    found = verdict(0, dice, *failed, host=text)
    found["environments"][0]["name"] = text
    found["environments"][0]["checks"] += [check(text, "skipped", message=text), check("torch_version", measured=text)]
    found["performance"][-1].update(metric=text, unit=text)
    return (
        node(made, found, finished=False),
        node(made, {**found, "plan_digest": text}),
        node({**made, "ok": False, "stages": {}, "conflicts": [conflict]}, None),
        node(None, None, error=text),
        node(made, verdict(0, dice, host=text), finished=False),
        node(made, verdict(0, dice, host=text)),
    )[place % 6]


def across(hosts: list[str]) -> Row:
    sizes = [2**power for power in range(10, 31, 2)]
    bandwidth = [round(9.4 / (1 + 3_000_000 / size), 4) for size in sizes]
    return {
        "schema": 1, "ok": True, "at": AT, "backend": "nccl", "hosts": hosts, "world_size": len(hosts) * 8, "seconds": 41.2,
        "checks": [check(name) for name in ("all_reduce", "ddp_parameters", "ddp_equals_single", "pairs", "finished")],
        "all_reduce": [{"bytes": size, "seconds": 0.01, "gib_s": gib} for size, gib in zip(sizes, bandwidth)],
        "pairs": [{"hosts": [hosts[0], other], "gib_s": 11.2} for other in hosts[1:]],
        "suspects": [{"link": hosts[:2], "why": f"the link between {hosts[0]} and {hosts[1]} carries 4.1 GiB/s, the others 11.2"}],
    }  # fmt: skip


def before(given: Row, seed: int = 0) -> Row:
    """The input of a report that was made the day before: other drivers on some nodes, one node less."""
    dice = random.Random(seed + 1)  # noqa: S311
    nodes = {name: _healthy(number, dice) for number, name in enumerate(given["nodes"], start=1)}
    for number, name in enumerate(nodes):
        driver = nodes[name]["plan"]["facts"]["gpu"]["driver"]
        if number % 31 == 3 and driver["loaded_version"]:
            driver.update(loaded_version="570.133.20", installed_version="570.133.20")
    del nodes[list(nodes)[-1]]
    nodes["old1"] = _healthy(5, dice)
    return {**given, "at": BEFORE, "nodes": nodes, "inventory": list(nodes), "judgement": {}, "former": None}


def main() -> None:
    from ansible_collections.gpufleet.stack.plugins.plugin_utils import report_files

    given = fleet(int(sys.argv[1]))
    given["former"] = make(before(given))
    for path in report_files.write(sys.argv[2], make(given)):
        print(path)


if __name__ == "__main__":
    main()
