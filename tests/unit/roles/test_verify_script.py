"""The parts of the check script that need no torch."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "roles" / "verify" / "files" / "gpufleet_verify.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("gpufleet_verify", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("measured", "expected", "status"),
    [
        ("2.0.1+cu117", "2.0.1+cu117", "passed"),
        ("1.10.0+cu102", "2.0.1+cu117", "failed"),  # what the tutorial shows for its "PyTorch 2.0"
        ("1.13.1+cu117", "2.0.1+cu117", "failed"),
        ("2.0.1", "2.0.1+cu117", "failed"),
        ("2.0.1+cpu", "2.0.1+cu117", "failed"),
        ("2.0.10+cu117", "2.0.1+cu117", "failed"),
    ],
)
def test_torch_version(script: Any, measured: str, expected: str, status: str) -> None:
    torch = SimpleNamespace(__version__=measured)
    found = script.check_torch_version(torch, script.Expectations({"torch_version": expected}))
    assert (found["status"], found["measured"], found["expected"]) == (status, measured, expected)


def test_no_cuda_is_an_expectation_and_silence_is_none(script: Any) -> None:
    torch = SimpleNamespace(version=SimpleNamespace(cuda="11.7"))
    assert script.check_torch_cuda_version(torch, script.Expectations({"cuda": None}))["status"] == "failed"
    silent = script.check_torch_cuda_version(torch, script.Expectations())
    assert silent["status"] == "skipped" and "nothing expected" in silent["message"] and silent["measured"] == "11.7"


@pytest.mark.parametrize(
    ("number", "text"), [(8500, "8.5.0"), (8902, "8.9.2"), (90100, "9.1.0"), (91002, "9.10.2"), (None, None)]
)
def test_cudnn_numbers(script: Any, number: int | None, text: str | None) -> None:
    assert script.cudnn_text(number) == text


@pytest.mark.parametrize(
    ("measured", "expected", "same"),
    [
        ("8.5.0", "8.5.0.96", True),
        ("8.5.0", "8.5", True),
        ("8.5.0", "8", True),
        ("8.9.0", "8.5", False),
        ("8.50.0", "8.5", False),
        (None, "8.5", False),
    ],
)
def test_cudnn_versions(script: Any, measured: str | None, expected: str, same: bool) -> None:
    assert script.same_cudnn(measured, expected) is same


MAPS = """\
7f00-7f01 r-xp 00000000 08:01 11 /env/lib/python3.11/site-packages/nvidia/cublas/lib/libcublas.so.11
7f01-7f02 r-xp 00000000 08:01 11 /env/lib/python3.11/site-packages/nvidia/cublas/lib/libcublas.so.11
7f02-7f03 r-xp 00000000 08:01 12 /env/lib/python3.11/site-packages/nvidia/cublas/lib/libcublasLt.so.11
7f03-7f04 r-xp 00000000 08:01 13 /env/lib/python3.11/site-packages/torchvision.libs/libcudart.782fcab0.so.11.0
7f04-7f05 r-xp 00000000 08:01 14 /usr/local/cuda-11.8/lib64/libcudnn_ops_infer.so.8
7f05-7f06 r-xp 00000000 08:01 15 /env2/lib/libnvrtc-builtins.so.11.7
7f06-7f07 r-xp 00000000 08:01 16 /usr/lib/x86_64-linux-gnu/libcuda.so.535.1
7f07-7f08 r-xp 00000000 08:01 17 /opt/a folder/libnccl.so.2
7f08-7f09 rw-p 00000000 00:00 0
7f09-7f10 rw-p 00000000 00:00 0 [heap]
"""


def test_libraries_from_elsewhere(script: Any) -> None:
    loaded = script.cuda_libraries(script.mapped_files(MAPS))
    assert len(loaded) == 6
    assert script.foreign(loaded, ["/env"]) == [
        "/env2/lib/libnvrtc-builtins.so.11.7",
        "/opt/a folder/libnccl.so.2",
        "/usr/local/cuda-11.8/lib64/libcudnn_ops_infer.so.8",
    ]


@pytest.mark.parametrize(
    ("capability", "architectures", "served"),
    [
        ("8.0", ["sm_37", "sm_80", "sm_86"], True),
        ("8.9", ["sm_80", "sm_86"], True),
        ("9.0", ["sm_80", "sm_86"], False),
        ("9.0", ["sm_80", "compute_86"], True),
        ("9.0", ["sm_90a"], True),
        ("12.0", ["sm_90", "sm_120"], True),
        ("3.5", ["sm_37"], False),
        ("8.0", [], False),
    ],
)
def test_architectures(script: Any, capability: str, architectures: list[str], served: bool) -> None:
    assert script.served_by(capability, architectures) is served


@pytest.mark.parametrize("sigmoid_output", [False, True])
def test_chain_rule_against_differences(script: Any, sigmoid_output: bool) -> None:
    """The formula by hand, against the loss itself."""
    parameters: dict[str, Any] = {
        "W1": [[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6], [0.7, -0.1], [0.2, 0.2]],
        "b1": [0.1, 0.2, -0.3, 0.4, 0.0],
        "W2": [[0.5, -0.6, 0.7, 0.8, -0.9]],
        "b2": [0.25],
    }

    def loss() -> float:
        total = 0.0
        for x, y in zip(script.X, script.Y):
            a1 = [
                script.sigmoid(sum(w * v for w, v in zip(row, x)) + b)
                for row, b in zip(parameters["W1"], parameters["b1"])
            ]
            z2 = sum(w * a for w, a in zip(parameters["W2"][0], a1)) + parameters["b2"][0]
            total += 0.5 * (y[0] - (script.sigmoid(z2) if sigmoid_output else z2)) ** 2
        return total

    exact = script.analytic_gradients(parameters, sigmoid_output)
    step = 1e-6
    for name, values in parameters.items():
        rows = values if isinstance(values[0], list) else [values]
        gradients = exact[name] if isinstance(values[0], list) else [exact[name]]
        for row, gradient in zip(rows, gradients):
            for index, value in enumerate(row):
                row[index] = value + step
                above = loss()
                row[index] = value - step
                below = loss()
                row[index] = value
                assert gradient[index] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize(
    ("found", "exact", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([0.0], [0.0], 0.0),
        ([1e-30], [0.0], math.inf),
        ([math.nan], [1.0], math.inf),
        ([1.0], [1.0, 2.0], math.inf),
    ],
)
def test_relative_error(script: Any, found: list[float], exact: list[float], error: float) -> None:
    assert script.relative_error(found, exact) == pytest.approx(error)


@pytest.mark.parametrize("result", [(40.0, math.nan), (math.nan, 0.0), (40.0, 0.5), (0.0, 0.0)])
def test_losses_that_prove_nothing(script: Any, result: tuple[float, float]) -> None:
    assert script.training_problems({"loss_start": result[0], "loss_end": result[1], "steps": 5}, 1e-3)


def test_values_that_json_lacks(script: Any) -> None:
    assert script.plain({"a": [math.nan, math.inf, 1.5], "b": (None, True)}) == {
        "a": ["nan", "inf", 1.5],
        "b": [None, True],
    }


def _torch(available: bool, count: int) -> Any:
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: available, device_count=lambda: count))


@pytest.mark.parametrize(
    ("available", "count", "expected", "status"),
    [
        (False, 0, {}, "skipped"),
        (True, 2, {}, "skipped"),
        (True, 2, {"gpus": 2, "gpu_checks": "run"}, "passed"),
        (True, 1, {"gpus": 2, "gpu_checks": "run"}, "failed"),
        (False, 0, {"gpus": 2, "gpu_checks": "run"}, "failed"),
        (False, 0, {"gpus": 0, "gpu_checks": "run"}, "passed"),
        (True, 1, {"gpus": 0, "gpu_checks": "run"}, "failed"),
        (False, 0, {"gpus": 0, "gpu_checks": "skip"}, "passed"),
        (True, 1, {"gpus": 0, "gpu_checks": "skip"}, "failed"),
        (False, 0, {"gpus": 1, "gpu_checks": "skip"}, "skipped"),
        (True, 1, {"gpus": 1, "gpu_checks": "run", "driver_pending": True}, "failed"),
    ],
)
def test_cuda_available(script: Any, available: bool, count: int, expected: dict[str, Any], status: str) -> None:
    found = script.check_cuda_available(_torch(available, count), script.Expectations(expected))
    assert found["status"] == status


@pytest.mark.parametrize(
    ("count", "expected", "outcomes"),
    [
        (2, {"gpus": 2}, [("k:0", "passed"), ("k:1", "passed")]),
        (1, {"gpus": 2}, [("k:0", "passed"), ("k:1", "failed")]),
        (2, {"gpus": 1}, [("k:0", "passed"), ("k:1", "passed")]),
        (0, {"gpus": 1}, [("k:0", "failed")]),
        (0, {}, [("k", "skipped")]),
        (1, {}, [("k:0", "passed")]),
        (1, {"gpu_checks": "skip", "gpu_skip_reason": "why"}, [("k", "skipped")]),
        (1, {"gpus": 1, "driver_pending": True}, [("k", "failed")]),
    ],
)
def test_one_check_for_each_gpu(
    script: Any, count: int, expected: dict[str, Any], outcomes: list[tuple[str, str]]
) -> None:
    def compute(index: int) -> dict[str, Any]:
        return dict(script.outcome(True, index, index, ""))

    checks = script.gpu_checks(_torch(count > 0, count), script.Expectations(expected), "k", compute)
    results = [(name, function()) for name, function in checks]
    assert [(name, result["status"]) for name, result in results] == outcomes
    for index, (_name, result) in enumerate(results):
        assert result["status"] != "passed" or result["measured"] == index


@pytest.mark.parametrize("content", ["[]", "{", '{"gpus": "two"}', '{"gpus": true}', '{"driver_pending": 1}'])
def test_bad_expectations_can_not_run(content: str, tmp_path: Path) -> None:
    path = tmp_path / "expect.json"
    path.write_text(content, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--expect", str(path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("gpufleet_verify: ")


def test_without_torch_it_can_not_run(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('half of it is gone')\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "half of it is gone" in ended.stderr


def test_a_check_that_raises_has_failed(script: Any) -> None:
    def broken() -> dict[str, Any]:
        raise OSError("gone")

    found = script.run_check("x", broken)
    assert found["status"] == "failed" and found["message"].startswith("OSError: gone (")
    json.dumps(found)
