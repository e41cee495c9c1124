"""The check script under a real torch: right environments pass, wrong and broken ones fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import verdict

BREAK_THINGS = Path(__file__).with_name("break_things.py")
NO_GPU = {"gpus": 0, "gpu_checks": "skip", "gpu_skip_reason": "the node has no NVIDIA GPU", "compute_capabilities": []}
PLAN = {"torch_version": "2.0.1+cu117", "cuda": "11.7", "cudnn": "8.5.0.96", "driver_pending": False, "seed": 0}
ON_CPU = [
    "mlp_gradients",
    "mlp_gradients_sigmoid_output",
    "mlp_training",
    "fine_tuning",
    "reproducible",
    "tensor",
    "precision",
    "libraries",
]
BROKEN = [
    "formula_off_by_a_ten_millionth",
    "formula_with_a_linear_output",
    "autograd_gives_nan",
    "zeros_hold_a_one",
    "zeros_of_another_shape",
    "zeros_of_another_type",
    "first_layer_not_frozen",
    "frozen_layer_moves_by_one_bit",
    "nothing_is_learnt",
    "loss_is_nan",
    "loss_is_always_zero",
    "seed_is_ignored",
    "check_raises",
    "library_from_elsewhere",
    "gpu_that_the_plan_does_not_know",
    "product_in_bfloat16_is_nan",
    "product_in_bfloat16_is_off_by_a_twentieth",
    "one_bit_of_the_third_product_flips",
    "every_product_is_nan",
    "loss_of_the_images_is_nan",
    "attention_sees_nothing",
    "loss_in_mixed_precision_stays",
    "workers_bring_other_items",
    "workers_bring_an_item_twice",
    "one_bit_flips_on_the_disk",
]


def run(python: str, script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # No GPU of the machine that runs the tests is to be seen: these tests are about nodes without one.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(
        [python, str(script), *arguments], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


def checked(
    python: str, script: Path, folder: Path, expected: dict[str, Any], **variables: str
) -> tuple[int, dict[str, Any]]:
    path = folder / "expect.json"
    path.write_text(json.dumps(expected), encoding="utf-8")
    ended = run(python, script, "--json", "--expect", str(path), **variables)
    assert ended.stdout, ended.stderr
    return ended.returncode, {check["name"]: check for check in json.loads(ended.stdout)["checks"]}


def failed(checks: dict[str, Any]) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == "failed"}


def test_planned_environment_passes(torch_2_0: str, script: Path, tmp_path: Path) -> None:
    rc, checks = checked(torch_2_0, script, tmp_path, {**PLAN, **NO_GPU, "torchvision": "0.15.2"})
    assert (rc, failed(checks)) == (0, set())
    assert {name for name, check in checks.items() if check["status"] == "skipped"} == {
        "gpu_device",
        "gpu_kernel",
        "gpu_precision",
        "gpu_training",
    }
    assert checks["gpu_kernel"]["message"] == NO_GPU["gpu_skip_reason"]
    assert len(checks["libraries"]["measured"]["loaded"]) >= 8
    assert checks["mlp_training"]["measured"]["loss_start"] > 10
    assert checks["mlp_training"]["measured"]["predictions"] == pytest.approx([3, 5, 7], abs=0.05)
    assert sum(check["seconds"] for check in checks.values()) < 60


def test_torch_1_13_is_not_the_planned_2_0(torch_1_13: str, script: Path, tmp_path: Path) -> None:
    rc, checks = checked(torch_1_13, script, tmp_path, {**PLAN, **NO_GPU})
    assert (rc, failed(checks)) == (1, {"torch_version"})
    assert checks["torch_version"]["measured"].startswith("1.13.1")
    assert checks["torch_version"]["expected"] == "2.0.1+cu117"
    assert all(checks[name]["status"] == "passed" for name in ON_CPU)


def test_by_hand_nothing_expected(torch_2_0: str, script: Path) -> None:
    ended = run(torch_2_0, script)
    assert ended.returncode == 0
    assert "OK: " in ended.stdout
    line = next(line for line in ended.stdout.splitlines() if " torch_version " in line)
    assert line.startswith("skipped") and "2.0.1+cu117" in line and "nothing expected" in line


def test_wrong_expectations(torch_2_0: str, script: Path, tmp_path: Path) -> None:
    wrong = {
        "torch_version": "2.0.1",
        "cuda": "11.8",
        "cudnn": "8.9",
        "torchvision": "0.15.1",
        "gpus": 1,
        "gpu_checks": "run",
    }
    rc, checks = checked(torch_2_0, script, tmp_path, wrong)
    assert rc == 1
    assert failed(checks) == {
        "torch_version",
        "torch_cuda_version",
        "torch_cudnn_version",
        "torchvision",
        "cuda_available",
        "gpu_device:0",
        "gpu_kernel:0",
        "gpu_precision:0",
        "gpu_training:0",
    }


def test_driver_that_is_not_loaded_needs_a_reboot(torch_2_0: str, script: Path, tmp_path: Path) -> None:
    rc, checks = checked(torch_2_0, script, tmp_path, {**PLAN, "gpus": 2, "gpu_checks": "run", "driver_pending": True})
    assert (rc, failed(checks)) == (1, {"cuda_available", "gpu_device", "gpu_kernel", "gpu_precision", "gpu_training"})
    assert all(checks[name]["message"].startswith("GF-REBOOT-NEEDED") for name in failed(checks))


def test_library_path_of_a_shell_does_not_hide_torchs_own(torch_2_0: str, script: Path, tmp_path: Path) -> None:
    """The tutorial's LD_LIBRARY_PATH with libraries of the same names."""
    site = Path(torch_2_0).parent.parent / "lib" / "python3.11" / "site-packages"
    toolkit = tmp_path / "lib64"
    toolkit.mkdir()
    for name in ("nvidia/cuda_runtime/lib/libcudart.so.11.0", "nvidia/curand/lib/libcurand.so.10"):
        shutil.copy(site / name, toolkit)
    rc, checks = checked(torch_2_0, script, tmp_path, {**PLAN, **NO_GPU}, LD_LIBRARY_PATH=str(toolkit))
    assert (rc, failed(checks)) == (0, set())


def test_whole_verdict(torch_2_0: str, script: Path) -> None:
    environment = {"name": "default", "interpreter": torch_2_0, **PLAN}
    found = verdict.make_verdict([environment], {**NO_GPU, "seed": 3}, verdict.How(str(script)), plan_digest="abc")
    assert found["ok"], found
    training = next(c for c in found["environments"][0]["checks"] if c["name"] == "mlp_training")
    assert training["measured"]["seed"] == 3


@pytest.fixture(scope="module")
def broken(torch_2_0: str, script: Path) -> Any:
    ended = run(torch_2_0, BREAK_THINGS, str(script))
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_things_fail(broken: Any, case: str) -> None:
    assert broken["cases"][case]["status"] == "failed", broken["cases"][case]
    assert broken["cases"][case]["message"]


def test_every_case_is_tested(broken: Any) -> None:
    assert sorted(broken["cases"]) == sorted(BROKEN)
    assert broken["cases"]["check_raises"]["message"].startswith("RuntimeError: no such operator")


def test_kernel_bound_leaves_room_for_rounding(broken: Any) -> None:
    assert 0 < max(broken["kernel_errors"].values()) < broken["kernel_bound"] / 10


@pytest.mark.parametrize(
    ("case", "status", "text"),
    [
        ("right", "passed", ""),
        ("right_training", "passed", ""),
        ("architecture_not_served", "failed", "not compiled for compute capability 8.0"),
        ("another_capability", "failed", "compute capability 8.6 is not the planned one"),
        ("wrong_result", "failed", "elementwise is off by"),
        ("training_differs", "failed", "differ from the CPU's by 0.5"),
    ],
)
def test_gpu_checks_with_the_cpu_as_a_stand_in(broken: Any, case: str, status: str, text: str) -> None:
    check = broken["on_gpu"][case]
    assert (check["status"], text in check["message"]) == (status, True), check
