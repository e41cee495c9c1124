"""The verdict for Prometheus, read by its own client library's parser."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verify_prometheus
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Pinned in requirements-test.txt; an environment made before that has it after the next `make`.
parser = pytest.importorskip("prometheus_client.parser")


def check(status: str) -> dict[str, Any]:
    return {"name": "tensor", "status": status, "measured": 1, "expected": 1, "seconds": 0.1, "message": ""}


def figure(metric: str, unit: str, value: float, device: int | None = None, better: str = "higher") -> dict[str, Any]:
    return {
        "environment": "default",
        "metric": metric,
        "unit": unit,
        "better": better,
        "device": device,
        "value": value,
    }


def verdict(**more: Any) -> dict[str, Any]:
    environments = [
        {"name": "default", "torch_version": "2.0.1+cu117", "ok": True, "checks": [check("passed"), check("skipped")]},
        {"name": 'odd"\\\nname', "torch_version": None, "ok": False, "checks": [check("failed")]},
    ]
    figures = [
        figure("cpu_matmul", "GFLOP/s", 81.5),
        figure("gpu_gemm_bf16", "TFLOP/s", 650.25, 0),
        figure("gpu_gemm_bf16", "TFLOP/s", 648.0, 1),
        figure("gpu_memory_bandwidth", "GiB/s", 2.0, 0),
        figure("training_step", "ms", 12.5, better="lower"),
        figure("training_step", "ms", 99.0, better="lower"),
        figure("Odd metric!", "furlongs/day", 7),
    ]
    return {
        "schema": 2,
        "ok": False,
        "at": "2026-03-02T10:11:12Z",
        "level": "health",
        "driver": "535.261.03",
        "gpus": 2,
        "seconds": 9.25,
        "environments": environments,
        "performance": figures,
        **more,
    }


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found and sample.timestamp is None
            found[key] = sample.value
    return found


def test_what_prometheus_reads() -> None:
    default, odd = ("environment", "default"), ("environment", 'odd"\\\nname')
    assert samples(verify_prometheus.text(verdict())) == {
        ("gpufleet_verdict_ok", (("driver", "535.261.03"), ("level", "health"))): 0,
        ("gpufleet_verdict_time_seconds", ()): 1772446272,
        ("gpufleet_verdict_duration_seconds", ()): 9.25,
        ("gpufleet_verdict_gpus", ()): 2,
        ("gpufleet_environment_ok", (default, ("torch", "2.0.1+cu117"))): 1,
        ("gpufleet_environment_ok", (odd, ("torch", ""))): 0,
        ("gpufleet_checks", (default, ("status", "passed"))): 1,
        ("gpufleet_checks", (default, ("status", "failed"))): 0,
        ("gpufleet_checks", (default, ("status", "skipped"))): 1,
        ("gpufleet_checks", (odd, ("status", "passed"))): 0,
        ("gpufleet_checks", (odd, ("status", "failed"))): 1,
        ("gpufleet_checks", (odd, ("status", "skipped"))): 0,
        ("gpufleet_cpu_matmul_flop_per_second", (default,)): 81.5e9,
        ("gpufleet_gpu_gemm_bf16_flop_per_second", (default, ("gpu", "0"))): 650.25e12,
        ("gpufleet_gpu_gemm_bf16_flop_per_second", (default, ("gpu", "1"))): 648e12,
        ("gpufleet_gpu_memory_bandwidth_bytes_per_second", (default, ("gpu", "0"))): 2 * 2**30,
        ("gpufleet_training_step_seconds", (default,)): 0.0125,
        ("gpufleet_odd_metric_furlongs_day", (default,)): 7,
    }


def test_a_good_node_without_a_gpu() -> None:
    found = samples(verify_prometheus.text(verdict(ok=True, driver=None, gpus=0, performance=[])))
    assert found["gpufleet_verdict_ok", (("driver", ""), ("level", "health"))] == 1


def test_the_file_is_put_there_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify_prometheus.write(str(tmp_path / "textfiles"), verdict())
    (only,) = (tmp_path / "textfiles").iterdir()
    assert only.name == "gpufleet.prom" and stat.S_IMODE(only.stat().st_mode) == 0o644
    assert samples(only.read_text(encoding="utf-8"))
    before = only.read_text(encoding="utf-8")

    def full(*_paths: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(GpufleetError, match="No space left"):
        verify_prometheus.write(str(tmp_path / "textfiles"), verdict(ok=True))
    assert [path.name for path in only.parent.iterdir()] == ["gpufleet.prom"]
    assert only.read_text(encoding="utf-8") == before
