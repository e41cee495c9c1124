# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a GPU, and the wait until nobody does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_holders
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_holders import Look

FAKE_NVML = Path(__file__).resolve().parents[3] / "fixtures/nvml/fake_nvml.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["cc", *options, "-o", str(path), str(FAKE_NVML)], check=True)
    return str(path)


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def process(root: Path, pid: int, name: str, uid: int, *devices: str) -> None:
    write(root, f"proc/{pid}/comm", name + "\n")
    write(root, f"proc/{pid}/status", f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    folder = root / f"proc/{pid}/fd"
    folder.mkdir()
    (folder / "0").symlink_to("/dev/null")
    for number, device in enumerate(devices, 3):
        (folder / str(number)).symlink_to(device)


def user(pid: int) -> dict[str, object]:
    return {"pid": pid, "name": "python", "user": "alice", "devices": ["/dev/nvidia0"]}


def test_users_are_named_with_user_and_devices_and_services_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n")
    process(tmp_path, 4711, "python", 1001, "/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia0")
    process(tmp_path, 812, "nvidia-persiste", 101, "/dev/nvidiactl")
    process(tmp_path, 900, "bash", 1001)
    seen = gpu_holders.look(str(tmp_path))
    assert seen.users == [
        {"pid": 4711, "name": "python", "user": "alice", "devices": ["/dev/nvidia0", "/dev/nvidiactl"]}
    ]
    assert [(row["pid"], row["user"], row["reason"]) for row in seen.services] == [
        (812, "101", "keeps the driver initialised")
    ]
    assert (seen.unseen, seen.errors) == (0, [])


@pytest.mark.parametrize(("uid", "works"), [(0, False), (999, False), (1000, True)])
def test_a_job_is_no_service_by_its_name(tmp_path: Path, uid: int, works: bool) -> None:
    process(tmp_path, 5, "nv-hostengine", uid, "/dev/nvidia0")
    assert bool(gpu_holders.look(str(tmp_path)).users) is works


@pytest.mark.parametrize(("vendor", "works"), [("0x10de", True), ("0x8086", False)])
def test_a_desktop_uses_the_gpu_through_its_display_device(tmp_path: Path, vendor: str, works: bool) -> None:
    write(tmp_path, "sys/class/drm/card1/device/vendor", vendor + "\n")
    process(tmp_path, 6, "Xorg", 0, "/dev/dri/card1")
    assert [row["name"] for row in gpu_holders.look(str(tmp_path)).users] == (["Xorg"] if works else [])


def test_nvml_names_whom_the_open_files_do_not(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process(tmp_path, 77, "python", 1001)
    # 78 has ended meanwhile; the driver's list lags behind.
    write(tmp_path, "nvml.conf", "driver=535.183.01\ncount=1\n0.bus=3b\n0.id=2330\n0.pids=77,78\n")
    monkeypatch.setenv("FAKE_NVML_CONFIG", str(tmp_path / "nvml.conf"))
    assert [row["pid"] for row in gpu_holders.look(str(tmp_path), library).users] == [77]
    write(tmp_path, "run/systemd/container", "podman\n")
    assert [row["pid"] for row in gpu_holders.look(str(tmp_path), library).users] == [77, 78]


def test_a_process_that_hides_its_files_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process(tmp_path, 5, "python", 1001, "/dev/nvidia0")
    real = os.listdir

    def listdir(path: str) -> list[str]:
        # The tests run as root, from whom nothing can be hidden.
        if path.endswith("proc/5/fd"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert gpu_holders.look(str(tmp_path))[0::2] == ([], 1)


def test_a_real_process_is_seen_in_the_real_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = tmp_path / "device"
    held.write_text("")
    monkeypatch.setattr(gpu_holders, "_is_gpu", lambda _root, target: target == str(held))
    with subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(held)!r}); print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        found = gpu_holders.look("/").users
        holder.communicate(b"\n")
    assert [row["pid"] for row in found] == [holder.pid]
    assert found[0]["devices"] == [str(held)]
    assert gpu_holders.look("/").users == []


def test_it_waits_until_they_are_gone_and_no_longer() -> None:
    busy, idle = Look([user(1)], [], 0, []), Look([], [], 0, [])
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    looks = iter([busy, busy, idle])
    assert gpu_holders.wait(1, lambda: next(looks), lambda: now[0], sleep) == (idle, 10.0)
    assert slept == [5.0, 5.0]
    now[0] = 0.0
    slept.clear()
    assert gpu_holders.wait(0.1, lambda: busy, lambda: now[0], sleep) == (busy, 6.0)
    assert slept == [5.0, 1.0]
    slept.clear()
    assert gpu_holders.wait(0, lambda: busy, lambda: 0.0, sleep) == (busy, 0.0)
    assert slept == []


def test_busy_says_who() -> None:
    with pytest.raises(GpufleetError) as caught:
        gpu_holders.require_idle(Look([user(pid) for pid in range(1, 11)], [], 3, []), 600)
    assert caught.value.code == "GF-GPU-BUSY"
    assert "after 10 minutes" in caught.value.message
    assert "python (1) of alice on /dev/nvidia0; python (2)" in caught.value.message
    assert caught.value.message.endswith("and 2 more")


def test_what_can_not_be_seen_is_not_called_idle() -> None:
    with pytest.raises(GpufleetError) as caught:
        gpu_holders.require_idle(Look([], [], 3, []))
    assert caught.value.code == "GF-GPU-UNSEEN"
    gpu_holders.require_idle(Look([], [{"pid": 1}], 0, []))
