"""Verified nodes for the tests of the judgement: facts of recorded nodes, with figures that are made up."""

from __future__ import annotations

import copy
import functools
import json
import random
from pathlib import Path
from typing import Any

NODES = Path(__file__).parents[3] / "fixtures/nodes"
DIGEST = "abc"
CPU = {"model": "AMD EPYC 7763 64-Core Processor", "threads": 64}
LOADED = "535.309.01"
# What a healthy A100 or so measures; the test's own figures, not those of a real one.
METRICS = {
    "gpu_gemm_float32": ("TFLOP/s", "higher", 19.0),
    "gpu_gemm_tf32": ("TFLOP/s", "higher", 120.0),
    "gpu_gemm_bf16": ("TFLOP/s", "higher", 240.0),
    "gpu_gemm_fp16": ("TFLOP/s", "higher", 241.0),
    "gpu_memory_bandwidth": ("GiB/s", "higher", 1300.0),
    "gpu_host_to_device": ("GiB/s", "higher", 24.0),
    "gpu_device_to_host": ("GiB/s", "higher", 23.0),
    "training_step": ("ms", "lower", 41.0),
}


def seeded(seed: int) -> random.Random:
    """The same figures every time."""
    return random.Random(seed)  # noqa: S311


@functools.lru_cache(maxsize=None)
def _read(name: str) -> str:
    return (NODES / name / "expected.json").read_text(encoding="utf-8")


def recorded(name: str, driver: str | None = LOADED) -> dict[str, Any]:
    """The facts of a recorded node, with a processor; ``driver`` is loaded where the recording has none."""
    facts: dict[str, Any] = json.loads(_read(name))
    facts["node"]["cpu"] = dict(CPU)
    if facts["gpu"]["devices"] and facts["gpu"]["driver"]["loaded_version"] is None:
        facts["gpu"]["driver"].update(loaded_version=driver, installed_version=driver, branch=driver and driver[:3])
    return facts


def figure(metric: str, value: Any, device: int | None = 0, **more: Any) -> dict[str, Any]:
    unit, better, _usual = METRICS.get(metric, ("GFLOP/s", "higher", 0.0))
    return {
        "environment": "default",
        "metric": metric,
        "unit": unit,
        "better": better,
        "device": device,
        "value": value,
        **more,
    }


def node(facts: dict[str, Any], *performance: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A verified node as a run leaves it."""
    training = {
        "name": "mlp_training", "status": "passed", "measured": {"loss_start": 41.5, "loss_end": 3e-4, "steps": 500},
        "expected": None, "seconds": 1.0, "message": "",
    }  # fmt: skip
    environment = {"name": "default", "torch_version": "2.0.1+cu117", "ok": True, "checks": [training]}
    verdict = {
        "schema": 2, "ok": True, "at": "2026-11-25T18:00:00Z", "plan_digest": DIGEST, "host": "n", "level": "health",
        "driver": facts["gpu"]["driver"]["loaded_version"], "environments": [environment],
        "performance": list(performance), "history": [], "seconds": 20.0, **more,
    }  # fmt: skip
    lock = {"text": "torch==2.0.1\nnvidia-nccl-cu11==2.14.3\n", "sha256": "0" * 64}
    stages = {
        "verify": {"digest": DIGEST, "needed": True},
        "pytorch": {"environments": [{"name": "default", "cuda": "11.7", "lock": lock}]},
    }
    judging = {"rules": [], "outliers": "warn", "look_again": False}
    plan = {"ok": True, "conflicts": [], "warnings": [], "stages": stages, "facts": facts, "judging": judging}
    return {"plan": plan, "verdict": verdict}


def with_rules(there: dict[str, Any], *rules: dict[str, Any], **judging: Any) -> dict[str, Any]:
    changed = copy.deepcopy(there)
    full = [{"severity": "error", "advice": "", **rule} for rule in rules]
    changed["plan"]["judging"].update(rules=full, **judging)
    return changed


def measured(
    noise: random.Random, device: int | None = 0, spread: float = 0.02, slower: float = 0.0
) -> list[dict[str, Any]]:
    """Every figure of one GPU, with a spread, and worse by a share where it is slow."""
    found = []
    for metric, (_unit, better, usual) in METRICS.items():
        value = usual * noise.gauss(1.0, spread) * (1 - slower if better == "higher" else 1 / (1 - slower))
        found.append(figure(metric, round(value, 3), device))
    return found
