"""The parts of the check script that need no torch."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import (
    compilers,
    devices,
    gradients,
    levels,
    libraries,
    link,
    main,
    management,
    network,
    outcomes,
    soak,
    speed,
    training,
    versions,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify.expectations import Expectations


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as the node has it."""
    path = tmp_path_factory.mktemp("script") / "libexec" / "gpufleet_verify.pyz"
    assert script_archive.write(str(path), main)
    return path


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
def test_torch_version(measured: str, expected: str, status: str) -> None:
    torch = SimpleNamespace(__version__=measured)
    found = versions.check_torch_version(torch, Expectations({"torch_version": expected}))
    assert (found["status"], found["measured"], found["expected"]) == (status, measured, expected)


def test_no_cuda_is_an_expectation_and_silence_is_none() -> None:
    torch = SimpleNamespace(version=SimpleNamespace(cuda="11.7"))
    assert versions.check_torch_cuda_version(torch, Expectations({"cuda": None}))["status"] == "failed"
    silent = versions.check_torch_cuda_version(torch, Expectations())
    assert silent["status"] == "skipped" and "nothing expected" in silent["message"] and silent["measured"] == "11.7"


@pytest.mark.parametrize(
    ("number", "text"), [(8500, "8.5.0"), (8902, "8.9.2"), (90100, "9.1.0"), (91002, "9.10.2"), (None, None)]
)
def test_cudnn_numbers(number: int | None, text: str | None) -> None:
    assert versions.cudnn_text(number) == text


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
def test_cudnn_versions(measured: str | None, expected: str, same: bool) -> None:
    assert versions.same_cudnn(measured, expected) is same


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


def test_libraries_from_elsewhere() -> None:
    loaded = libraries.cuda_libraries(libraries.mapped_files(MAPS))
    assert len(loaded) == 6
    assert libraries.foreign(loaded, ["/env"]) == [
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
def test_architectures(capability: str, architectures: list[str], served: bool) -> None:
    assert devices.served_by(capability, architectures) is served


@pytest.mark.parametrize("sigmoid_output", [False, True])
def test_chain_rule_against_differences(sigmoid_output: bool) -> None:
    """The formula by hand, against the loss itself."""
    parameters: dict[str, Any] = {
        "W1": [[0.1, -0.2], [0.3, 0.4], [-0.5, 0.6], [0.7, -0.1], [0.2, 0.2]],
        "b1": [0.1, 0.2, -0.3, 0.4, 0.0],
        "W2": [[0.5, -0.6, 0.7, 0.8, -0.9]],
        "b2": [0.25],
    }

    def loss() -> float:
        total = 0.0
        for x, y in zip(network.X, network.Y):
            a1 = [
                gradients.sigmoid(sum(w * v for w, v in zip(row, x)) + b)
                for row, b in zip(parameters["W1"], parameters["b1"])
            ]
            z2 = sum(w * a for w, a in zip(parameters["W2"][0], a1)) + parameters["b2"][0]
            total += 0.5 * (y[0] - (gradients.sigmoid(z2) if sigmoid_output else z2)) ** 2
        return total

    exact = gradients.analytic_gradients(parameters, sigmoid_output)
    step = 1e-6
    for name, values in parameters.items():
        rows = values if isinstance(values[0], list) else [values]
        slopes = exact[name] if isinstance(values[0], list) else [exact[name]]
        for row, gradient in zip(rows, slopes):
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
def test_relative_error(found: list[float], exact: list[float], error: float) -> None:
    assert gradients.relative_error(found, exact) == pytest.approx(error)


@pytest.mark.parametrize("result", [(40.0, math.nan), (math.nan, 0.0), (40.0, 0.5), (0.0, 0.0)])
def test_losses_that_prove_nothing(result: tuple[float, float]) -> None:
    assert training.training_problems({"loss_start": result[0], "loss_end": result[1], "steps": 5}, 1e-3)


def test_values_that_json_lacks() -> None:
    assert outcomes.plain({"a": [math.nan, math.inf, 1.5], "b": (None, True)}) == {
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
def test_cuda_available(available: bool, count: int, expected: dict[str, Any], status: str) -> None:
    found = devices.check_cuda_available(_torch(available, count), Expectations(expected))
    assert found["status"] == status


@pytest.mark.parametrize(
    ("count", "expected", "statuses"),
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
def test_one_check_for_each_gpu(count: int, expected: dict[str, Any], statuses: list[tuple[str, str]]) -> None:
    def compute(index: int) -> dict[str, Any]:
        return dict(outcomes.outcome(True, index, index, ""))

    checks = devices.gpu_checks(_torch(count > 0, count), Expectations(expected), "k", compute)
    results = [(name, function()) for name, function in checks]
    assert [(name, result["status"]) for name, result in results] == statuses
    for index, (_name, result) in enumerate(results):
        assert result["status"] != "passed" or result["measured"] == index


@pytest.mark.parametrize("content", ["[]", "{", '{"gpus": "two"}', '{"gpus": true}', '{"driver_pending": 1}'])
def test_bad_expectations_can_not_run(script: Path, content: str, tmp_path: Path) -> None:
    path = tmp_path / "expect.json"
    path.write_text(content, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script), "--expect", str(path)], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("gpufleet_verify: ")


def test_without_torch_it_can_not_run(script: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('half of it is gone')\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "half of it is gone" in ended.stderr


def test_a_check_that_raises_has_failed() -> None:
    def broken() -> dict[str, Any]:
        raise OSError("gone")

    found = outcomes.run_check("x", broken)
    assert found["status"] == "failed" and found["message"].startswith("OSError: gone (")
    json.dumps(found)


def test_the_file_is_whole_always_the_same_and_written_once(script: Path) -> None:
    names = zipfile.ZipFile(io.BytesIO(script_archive.archive(main))).namelist()
    here = Path(script_archive.__file__).parent / "torch_verify"
    assert names == ["__main__.py", *sorted(f"gpufleet_verify/{path.name}" for path in here.glob("*.py"))]
    assert script.read_bytes() == script_archive.archive(main)
    assert not script_archive.write(str(script), main)
    script.write_bytes(b"cut off")
    assert script_archive.write(str(script), main)
    assert script.stat().st_mode & 0o777 == 0o755


def test_each_level_has_what_the_one_before_has() -> None:
    wanted = Expectations({"gpus": 0, "gpu_checks": "skip", "gpu_skip_reason": "none"})
    torch = SimpleNamespace(bfloat16=None, float16=None)
    names = {level: [name for name, _check in levels.all_checks(torch, wanted, level)] for level in levels.LEVELS}
    assert names["quick"][0] == "torch_version"
    for lower, higher in (("quick", "standard"), ("standard", "health")):
        assert set(names[lower]) < set(names[higher])
    assert all(found[-1] == "libraries" and len(set(found)) == len(found) for found in names.values())


DEVICES = [{"name": "NVIDIA A100", "memory_mib": 40960}, {"name": "NVIDIA A100", "memory_mib": 81920}]


@pytest.mark.parametrize(
    ("name", "mib", "planned", "status"),
    [
        ("NVIDIA A100", 40326, DEVICES, "passed"),
        ("NVIDIA A100", 20000, DEVICES, "failed"),
        ("Tesla T4", 40326, DEVICES, "failed"),
        ("NVIDIA A100", 5000, [{"name": "NVIDIA A100", "memory_mib": None}], "passed"),
        ("NVIDIA A100", 5000, [{"name": None, "memory_mib": 81920}], "skipped"),
        ("NVIDIA A100", 5000, None, "skipped"),
    ],
)
def test_devices_are_those_of_the_facts(name: str, mib: int, planned: Any, status: str) -> None:
    properties = SimpleNamespace(name=name, total_memory=mib * 2**20 + 5)
    torch = SimpleNamespace(cuda=SimpleNamespace(get_device_properties=lambda index: properties))
    found = devices.check_gpu_device(torch, Expectations({"devices": planned}), 0)
    assert (found["status"], found["measured"]) == (status, {"name": name, "memory_mib": mib})


@pytest.mark.parametrize(
    ("current", "own", "slot", "status"),
    [(16, "16", "16", "passed"), (8, "16", "8", "passed"), (8, "16", "16", "failed"), (8, None, None, "skipped")],
)
def test_a_link_with_fewer_lanes_than_it_could_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, current: int, own: str | None, slot: str | None, status: str
) -> None:
    gpu = tmp_path / "bus" / "gpu"
    gpu.mkdir(parents=True)
    (tmp_path / "0000:3b:00.0").symlink_to(gpu)
    if slot:
        (gpu.parent / "max_link_width").write_text(f"{slot}\n", encoding="ascii")
    load = {"current_link_speed": 2.5, "current_link_width": current, "max_link_speed": 16.0}
    monkeypatch.setattr(link, "PCI", str(tmp_path))
    monkeypatch.setattr(link, "pci_address", lambda index: "0000:3b:00.0")
    width = float(own) if own else None
    monkeypatch.setattr(link, "under_load", lambda *given: {**load, "max_link_width": width})
    torch = SimpleNamespace(device=lambda *given: given)
    assert link.check_gpu_link(torch, Expectations(), 0)["status"] == status


def test_the_kernels_files_of_a_link_are_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(link, "PCI", str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "current_link_speed").write_text("16.0 GT/s PCIe\n", encoding="ascii")
    (tmp_path / "a" / "max_link_speed").write_text("Unknown\n", encoding="ascii")
    assert link.read("a", "current_link_speed") == 16.0
    assert link.read("a", "max_link_speed") is None
    assert link.read("a", "current_link_width") is None


def test_figures_are_rates_of_the_work_that_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(speed, "SECONDS", 5 * speed.ROUNDS)
    done: list[int] = []
    torch = SimpleNamespace(device=lambda name: SimpleNamespace(type="cpu"))
    found = speed.rates(torch, "cpu", lambda: done.append(1), 7.0)
    # The clock moves by one at each look: a round of 5 has four pieces of work and ends 6 after it began.
    assert found == [4 * 7.0 / 6] * speed.ROUNDS
    assert len(done) == 1 + 4 * speed.ROUNDS
    assert speed.row("m", "u", 123456.7) == {
        "metric": "m",
        "unit": "u",
        "better": "higher",
        "device": None,
        "value": 123460.0,
    }


def test_nothing_is_compiled_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
    found = compilers.check_compile(SimpleNamespace(compile=None), Expectations())
    assert found["status"] == "skipped" and "C++ compiler" in found["message"]
    assert "PyTorch 2.0" in compilers.check_compile(SimpleNamespace(), Expectations())["message"]


@pytest.mark.parametrize(
    ("toolkit", "cuda", "text"), [(None, "11.7", "no CUDA toolkit"), ("/usr/local/cuda", None, "without CUDA")]
)
def test_no_extension_without_a_toolkit_or_cuda(toolkit: str | None, cuda: str | None, text: str) -> None:
    torch = SimpleNamespace(version=SimpleNamespace(cuda=cuda))
    found = compilers.check_extension(torch, Expectations({"toolkit": toolkit}))
    assert found["status"] == "skipped" and text in found["message"]


def nvml(reasons: int = 0, links: str = "", known: bool = True) -> Any:
    """The management library, as far as a GPU that works is asked; each function answers as NVML does: 0 is success."""

    def put(value: Any, number: int) -> int:
        value._obj.value = number
        return 0

    def state(handle: Any, link: Any, value: Any) -> int:
        return put(value, int(links[link.value])) if link.value < len(links) else 3

    return SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlDeviceGetHandleByPciBusId_v2=lambda name, handle: 0 if known else 6,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle, value: put(value, reasons),
        nvmlDeviceGetClockInfo=lambda handle, kind, value: put(value, 1410),
        nvmlDeviceGetNvLinkState=state,
    )


@pytest.mark.parametrize(
    ("reasons", "faults"),
    [
        (0x0, []),
        (0x1, []),
        (0x4, []),
        (0x40, ["hardware thermal slowdown"]),
        (0x88, ["hardware slowdown", "hardware power brake"]),
    ],
)
def test_only_heat_and_power_are_faults_of_a_clock(reasons: int, faults: list[str]) -> None:
    gpu = management.Management("0000:3b:00.0", nvml(reasons))
    with management.watched(gpu, seconds=0.001) as samples:
        while not samples.clocks:
            pass
    assert (sorted(samples.faults), samples.clocks[0]) == (sorted(faults), 1410)
    assert gpu.highest_clock() is None
    passed = outcomes.outcome(True, {"products": 3}, {}, "")
    found = soak.slowed(passed, faults, samples.clocks, None)
    assert found["status"] == ("failed" if faults else "passed")
    assert found["measured"]["clock_mhz"] == 1410


@pytest.mark.parametrize(("links", "good"), [("", True), ("000000", True), ("111111", True), ("110111", False)])
def test_links_are_all_up_or_none(links: str, good: bool) -> None:
    found = management.Management("0000:3b:00.0", nvml(links=links)).links()
    assert found == [state == "1" for state in links]
    assert management.links_outcome(found)[0] is good


def test_a_gpu_that_the_library_does_not_know_is_said_so() -> None:
    with pytest.raises(OSError, match="does not know the GPU"):
        management.Management("0000:3b:00.0", nvml(known=False))
