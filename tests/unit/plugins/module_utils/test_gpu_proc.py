# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the driver shows in /proc where NVML does not speak."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu, gpu_proc

ADDRESS = "0000:3b:00.0"
INFORMATION = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 18\nGPU UUID: \t {}\nDevice Minor: \t 0\n"


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(("uuid", "known"), [("GPU-0a1b", "GPU-0a1b"), ("GPU-????????-????", None)])
def test_name_and_uuid(tmp_path: Path, uuid: str, known: str | None) -> None:
    assert gpu_proc.about(str(tmp_path), ADDRESS) == {"name": None, "uuid": None, "mig": None}
    write(tmp_path, f"proc/driver/nvidia/gpus/{ADDRESS}/information", INFORMATION.format(uuid))
    assert gpu_proc.about(str(tmp_path), ADDRESS) == {"name": "NVIDIA A100-SXM4-40GB", "uuid": known, "mig": None}


def test_mig_instances_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/pci/devices" / ADDRESS
    for name, text in {"vendor": "0x10de", "device": "0x20f1", "class": "0x030200"}.items():
        write(folder, name, text)
    write(tmp_path, f"proc/driver/nvidia/gpus/{ADDRESS}/information", INFORMATION.format("GPU-0a1b"))
    for part in ("gi1/ci0", "gi2/ci0", "gi2/ci1"):
        write(tmp_path, f"proc/driver/nvidia/capabilities/gpu0/mig/{part}/access")
    device = gpu.collect(str(tmp_path))["devices"][0]
    assert device["mig"]["enabled"] is True
    assert device["mig"]["instances"] == [{"uuid": None, "name": None, "memory_mib": None}] * 3
    assert (device["name"], device["uuid"]) == ("NVIDIA A100-SXM4-40GB", "GPU-0a1b")
