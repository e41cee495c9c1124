"""The script for real GPUs, as far as it can be run without one; the facts of a recorded node stand for a GPU's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("gpu_run", ROOT / "tests/gpu/run.py")
assert SPEC is not None
assert SPEC.loader is not None
gpu_run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gpu_run)

DEVICE: dict[str, Any] = {
    "index": 0, "name": "NVIDIA A100", "memory_mib": 40960, "compute_capability": "8.0", "mig": {"enabled": False},
    "ecc": {"uncorrected": 0, "remapped_rows": None},
}  # fmt: skip
FACTS: dict[str, Any] = {
    "present": True, "devices": [DEVICE], "driver": {"loaded_version": "535.1"}, "errors": [], "health": {"xid": []},
    "fabric": {"needed": False},
}  # fmt: skip
FIGURE = {"metric": "gpu_gemm_fp16", "unit": "TFLOP/s", "better": "higher", "device": 0, "value": 250.5}


def run(monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], *answer: Any) -> int:
    monkeypatch.setattr(gpu_run.gpu, "collect", lambda: facts)
    monkeypatch.setattr(gpu_run, "verify", lambda *given: answer)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    return int(gpu_run.main())


def test_a_machine_without_a_gpu_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, {**FACTS, "present": False}) == 2
    assert run(monkeypatch, {**FACTS, "driver": {"loaded_version": None}}) == 2
    assert run(monkeypatch, FACTS, 2, "cannot import torch", {}) == 2


@pytest.mark.parametrize(("status", "errors", "rc"), [("passed", 0, 0), ("failed", 0, 1), ("passed", 1, 1)])
def test_what_fails_of_torch_or_of_the_facts_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: str, errors: int, rc: int
) -> None:
    facts = {**FACTS, "devices": [{**DEVICE, "ecc": {"uncorrected": errors, "remapped_rows": None}}]}
    checks = [{"name": "gpu_kernel:0", "status": status, "message": "why"}]
    assert run(monkeypatch, facts, int(status == "failed"), "", {"checks": checks, "performance": [FIGURE]}) == rc
    out = capsys.readouterr().out
    assert "| gpu_gemm_fp16 | 250.5 TFLOP/s | NVIDIA A100, driver 535.1, 20" in out


def test_torch_is_told_what_the_facts_say() -> None:
    wanted = gpu_run.expectations(
        {**FACTS, "devices": [DEVICE, {**DEVICE, "mig": {"enabled": True}}]}, "/usr/local/cuda"
    )
    assert (wanted["gpus"], wanted["compute_capabilities"], wanted["toolkit"]) == (1, ["8.0"], "/usr/local/cuda")
    assert wanted["devices"] == [{"name": "NVIDIA A100", "memory_mib": 40960}]
