# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML against the stand-in library: what it says, and that neither its hang nor its crash is ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu, nvml

SOURCE = Path(__file__).resolve().parents[3] / "fixtures/nvml/fake_nvml.c"
NODES = SOURCE.parents[1] / "nodes"
H100 = """
driver=535.183.01
cuda=12020
count=2
0.name=NVIDIA H100 80GB HBM3
0.uuid=GPU-0
0.bus=3b
0.id=2330
0.cc=9.0
0.memory_mib=81559
0.mig=1
0.mig_instances=2
0.ecc=1
0.ecc_uncorrected=3
0.ecc_corrected=7
0.remapped=1,2,0,1
0.persistence=1
0.virtualization=0
0.pcie=4,5,8,16
1.name=NVIDIA H100 80GB HBM3
1.bus=5d
1.id=2330
1.cc=9.0
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for NVML with")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, "-o", str(path), str(SOURCE)], check=True)
    return str(path)


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write(text: str) -> None:
        (tmp_path / "nvml.conf").write_text(text)
        monkeypatch.setenv("FAKE_NVML_CONFIG", str(tmp_path / "nvml.conf"))

    return write


def codes(errors: list[dict[str, str]]) -> list[str]:
    return [error["code"] for error in errors]


def test_everything_it_knows(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + f"0.pids=1,{os.getpid()}\n")
    answer = nvml.ask(library)
    assert answer.errors == []
    assert answer.system == {"driver_version": "535.183.01", "cuda_version": "12.2"}
    first, second = answer.devices
    assert first == {
        "index": 0,
        "pci_address": "0000:3b:00.0",
        "pci_device_id": 0x2330,
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-0",
        "compute_capability": "9.0",
        "memory_mib": 81559,
        "mig": {
            "enabled": True,
            "instances": [
                {"uuid": f"MIG-0-{index}", "name": "Stand-in MIG 1g.10gb", "memory_mib": 10240} for index in range(2)
            ],
        },
        "ecc": {
            "enabled": True,
            "uncorrected": 3,
            "corrected": 7,
            "remapped_rows": {"correctable": 1, "uncorrectable": 2, "pending": False, "failure": True},
        },
        "pcie": {"generation": 4, "generation_max": 5, "width": 8, "width_max": 16},
        "persistence": True,
        "virtualization_mode": 0,
        "processes": [{"pid": 1}, {"pid": os.getpid()}],
    }
    assert second["mig"] == {"enabled": False, "instances": []}  # NVML answers: not supported
    nothing = {"enabled": False, "uncorrected": None, "corrected": None, "remapped_rows": None}
    assert second["ecc"] == nothing
    assert (second["persistence"], second["virtualization_mode"]) == (None, None)
    assert second["memory_mib"] is None
    assert second["processes"] == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(18, "GF-NVML-MISMATCH"), (9, "GF-NVML-NO-DRIVER"), (4, "GF-NVML-PERMISSION"), (999, "GF-NVML-ERROR")],
)
def test_it_does_not_start(library: str, scripted: Callable[[str], None], status: int, code: str) -> None:
    scripted(f"init_status={status}\n")
    answer = nvml.ask(library)
    assert codes(answer.errors) == [code]
    assert f"status {status}" in answer.errors[0]["message"]
    assert answer.devices == []


def test_no_library() -> None:
    assert codes(nvml.ask("/nowhere/libnvidia-ml.so.1").errors) == ["GF-NVML-MISSING"]


def test_a_library_that_lacks_the_functions() -> None:
    assert codes(nvml.ask("libc.so.6").errors) == ["GF-NVML-ERROR"]


@pytest.mark.parametrize(("where", "known"), [("init", 0), ("count", 0), ("name:0", 0), ("device:1", 1)])
def test_a_hang_is_abandoned_and_what_was_known_is_kept(
    library: str, scripted: Callable[[str], None], where: str, known: int
) -> None:
    scripted(H100 + f"hang={where}\n")
    started = time.monotonic()
    answer = nvml.ask(library, timeout=0.4)
    assert time.monotonic() - started < 0.6
    assert codes(answer.errors) == ["GF-NVML-TIMEOUT"]
    assert len(answer.devices) == known
    with pytest.raises(ChildProcessError):  # nothing of it is left behind, however long the kernel takes to end it
        for _try in range(200):
            os.waitpid(-1, os.WNOHANG)
            time.sleep(0.01)


@pytest.mark.parametrize(("where", "known"), [("init", 0), ("count", 0), ("name:0", 0), ("device:1", 1)])
def test_a_crash_is_a_finding(library: str, scripted: Callable[[str], None], where: str, known: int) -> None:
    scripted(H100 + f"crash={where}\n")
    answer = nvml.ask(library)
    assert codes(answer.errors) == ["GF-NVML-CRASH"]
    assert "signal 11" in answer.errors[0]["message"]
    assert len(answer.devices) == known


def test_slow_but_in_time(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + "delay_ms=300\n")
    assert nvml.ask(library, timeout=5).errors == []


def test_the_child_holds_nothing_of_our_output(
    library: str, scripted: Callable[[str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    scripted(H100 + "say=chatter\n")
    nvml.ask(library)
    assert capfd.readouterr() == ("", "")


def test_one_lost_gpu_does_not_hide_the_others(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + "0.status=15\n")
    answer = nvml.ask(library)
    assert codes(answer.errors) == ["GF-NVML-GPU-LOST"]
    assert [device["index"] for device in answer.devices] == [1]


def test_many_slow_gpus_share_one_deadline(library: str, scripted: Callable[[str], None]) -> None:
    gpus = "".join(f"{index}.bus={index:02x}\n{index}.id=2330\n" for index in range(16))
    scripted(f"driver=535.183.01\ncount=16\ndevice_delay_ms=100\n{gpus}")
    started = time.monotonic()
    answer = nvml.ask(library, timeout=0.5)
    assert time.monotonic() - started < 0.6
    assert codes(answer.errors) == ["GF-NVML-TIMEOUT"]
    assert 1 <= len(answer.devices) < 16


def test_an_absurd_count_is_cut(library: str, scripted: Callable[[str], None]) -> None:
    gpus = "".join(f"{index}.bus={index:02x}\n" for index in range(64))
    scripted(f"count=4000000000\n{gpus}")
    answer = nvml.ask(library)
    assert codes(answer.errors) == ["GF-NVML-ABSURD"]
    assert len(answer.devices) == 64


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("0.cc=0.0", "compute_capability", None),
        ("0.cc=120.0", "compute_capability", None),
        ("0.memory_mib=5000000000", "memory_mib", None),
    ],
)
def test_an_absurd_value_is_null_and_said(
    library: str, scripted: Callable[[str], None], line: str, key: str, value: object
) -> None:
    scripted(f"count=1\n0.bus=3b\n{line}\n")
    answer = nvml.ask(library)
    assert answer.devices[0][key] == value
    assert codes(answer.errors) == ["GF-NVML-ABSURD"]
    assert key in answer.errors[0]["message"]


def test_a_hostile_name_is_cleaned(library: str, scripted: Callable[[str], None]) -> None:
    scripted(r"count=1" + "\n0.bus=3b\n" + r"0.name=\x1b[31mH\xff100\x0a\x9b" + "\n")
    answer = nvml.ask(library)
    assert answer.devices[0]["name"] == "\ufffd[31mH\ufffd100\ufffd\ufffd"


def test_one_place_and_one_uuid_belong_to_one_gpu(library: str, scripted: Callable[[str], None]) -> None:
    scripted("count=3\n0.bus=3b\n0.uuid=GPU-0\n1.bus=3b\n1.uuid=GPU-1\n2.bus=5d\n2.uuid=GPU-0\n")
    answer = nvml.ask(library)
    assert [(gpu["index"], gpu["uuid"]) for gpu in answer.devices] == [(0, "GPU-0"), (2, None)]
    assert codes(answer.errors) == ["GF-NVML-ABSURD"] * 2


def test_garbage_on_the_pipe_is_left_out(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + 'garbage={"kind": 7} [[[\n')
    answer = nvml.ask(library)
    assert codes(answer.errors) == ["GF-NVML-ABSURD"]
    assert len(answer.devices) == 2


def test_a_flood_is_ended(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + "flood_kib=65536\n")
    started = time.monotonic()
    answer = nvml.ask(library)
    assert codes(answer.errors) == ["GF-NVML-ABSURD"]
    assert "1048576 bytes" in answer.errors[0]["message"]
    assert time.monotonic() - started < 3


def collect(library: str) -> dict[str, Any]:
    return gpu.collect(str(NODES / "h100-x8-nvswitch"), nvml_library=library)


def test_facts_join_nvml_with_the_bus(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100 + "0.pids=2210,77\n")
    facts = collect(library)
    assert facts["count"] == 8
    assert [device["detected_by"] for device in facts["devices"]] == ["nvml"] * 2 + ["pci"] * 6
    assert [device["index"] for device in facts["devices"]] == [0, 1] + [None] * 6
    first = facts["devices"][0]
    assert first["numa_node"] == 0  # from the bus
    assert first["memory_mib"] == 81559  # from NVML
    assert first["processes"] == [{"pid": 77, "name": None}, {"pid": 2210, "name": "nv-fabricmanage"}]
    assert facts["devices"][1]["pcie"]["generation_max"] == 5  # NVML does not say, the bus does
    assert facts["busy"] == [{"pid": 77, "name": None}]  # the driver's own service is nobody's work
    assert facts["driver"]["cuda_version"] == "12.2"


def test_facts_of_a_mismatch(library: str, scripted: Callable[[str], None]) -> None:
    scripted("init_status=18\n")
    facts = collect(library)
    assert facts["driver"]["mismatch"] is True
    assert codes(facts["errors"]) == ["GF-NVML-MISMATCH"]
    assert facts["count"] == 8


def test_windows_has_the_driver_of_wsl(library: str, scripted: Callable[[str], None]) -> None:
    scripted(H100.replace("535.183.01", "552.22").replace("0.id=2330", "0.id=0"))
    facts = gpu.collect(str(NODES / "wsl2"), nvml_library=library)
    driver = facts["driver"]
    assert (driver["source"], driver["loaded_version"], driver["mismatch"]) == ("windows", "552.22", False)
    assert facts["count"] == 2
    assert facts["devices"][0]["architecture"] == "Hopper"  # from the compute capability
    assert facts["reboot_needed"] is False


def test_a_recorded_node_is_not_asked_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> nvml.Answer:
        raise AssertionError("NVML was asked")

    monkeypatch.setattr(nvml, "ask", refuse)
    assert gpu.collect(str(NODES / "h100-x8-nvswitch"))["count"] == 8


def test_a_gpu_that_the_bus_lacks_is_said(library: str, scripted: Callable[[str], None]) -> None:
    scripted("count=2\n0.bus=ee\n0.id=2330\n0.cc=9.0\n1.no_pci=1\n")
    facts = collect(library)
    assert codes(facts["errors"]) == ["GF-NVML-ABSURD"] * 2
    assert "0000:ee:00.0" in facts["errors"][0]["message"]
    assert facts["count"] == 9


@pytest.mark.parametrize(
    ("lines", "vgpu"),
    [
        ("0.virtualization=2", True),
        ("0.virtualization=1", False),
        ("0.name=GRID A100-40C", True),
        ("0.name=NVIDIA A40-48Q", True),
        ("0.name=NVIDIA H100-1-10C", True),
        ("0.name=NVIDIA A100-SXM4-40GB", None),
    ],
)
def test_vgpu(library: str, scripted: Callable[[str], None], lines: str, vgpu: bool | None) -> None:
    scripted(f"count=1\n0.bus=19\n0.id=2330\n{lines}\n")
    assert collect(library)["devices"][0]["vgpu"] is vgpu


def test_what_nvml_answered_can_be_recorded_and_replayed(
    library: str, scripted: Callable[[str], None], tmp_path: Path
) -> None:
    scripted(H100)
    answer = nvml.ask(library)
    (tmp_path / ".gpufleet").mkdir()
    (tmp_path / nvml.RECORD).write_text(json.dumps(answer._asdict()))
    assert nvml.recorded(str(tmp_path)) == answer
    facts = gpu.collect(str(tmp_path))
    assert [device["name"] for device in facts["devices"]] == ["NVIDIA H100 80GB HBM3"] * 2
    assert facts["devices"][0]["mig"]["enabled"] is True
    assert facts["driver"]["cuda_version"] == "12.2"


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100000])
def test_a_broken_record_is_a_finding(tmp_path: Path, text: str) -> None:
    (tmp_path / ".gpufleet").mkdir()
    (tmp_path / nvml.RECORD).write_text(text)
    assert codes(gpu.collect(str(tmp_path))["errors"]) == ["GF-NVML-ERROR"]


def test_a_record_of_wrong_types_is_not_believed(tmp_path: Path) -> None:
    device = {"index": 0, "pci_address": ["x"], "name": 7, "memory_mib": True, "mig": [], "ecc": {"enabled": 1}}
    device.update(processes=[{"pid": "1"}, {"pid": 5}, 3], pcie="no", uuid={}, compute_capability=9.0)
    record = {"system": {"driver_version": "\x1b", "cuda_version": 12}, "devices": [device, 7], "errors": ["x", {}]}
    (tmp_path / ".gpufleet").mkdir()
    (tmp_path / nvml.RECORD).write_text(json.dumps(record))
    facts = gpu.collect(str(tmp_path))
    found = facts["devices"][0]
    assert (found["pci_address"], found["name"], found["memory_mib"], found["uuid"]) == (None, None, None, None)
    assert found["compute_capability"] is None
    assert found["processes"] == [{"pid": 5, "name": None}]
    assert facts["driver"]["cuda_version"] is None
    assert {"GF-NVML-ERROR", "GF-NVML-ABSURD"} == set(codes(facts["errors"]))


def test_wsl_without_the_windows_library(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    facts = gpu.collect(str(tmp_path))
    assert (facts["virtualization"], facts["present"]) == ("wsl", False)
    assert codes(facts["errors"]) == ["GF-WSL-NO-LIBRARY"]
    assert "wsl --shutdown" in facts["errors"][0]["message"]
    (tmp_path / "usr/lib/wsl/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/wsl/lib/libnvidia-ml.so.1").touch()
    assert gpu.collect(str(tmp_path))["errors"] == []
