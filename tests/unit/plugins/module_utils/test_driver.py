# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Driver, kernel and use of the GPUs, from small trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver, driver_packages, gpu_usage, kernel, pci

RELEASE = "6.1.0-47-amd64"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs@U22)  Tue Sep 23\n"
PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC 12\n"
OPEN_ARM = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.86.15  Release Build  (dvs)  Thu Jan 23\n"
GPU = pci.PciDevice("0000:3b:00.0", 0x20F1, None, None, pci.Pcie(None, None, None, None))
DEBIAN = "Debian NVIDIA Maintainers <pkg-nvidia-devel@lists.alioth.debian.org>"
NVIDIA = "NVIDIA <cudatools@nvidia.com>"


def write(root: Path, path: str, data: str | bytes = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data if isinstance(data, bytes) else data.encode())


def package(root: Path, name: str, version: str, maintainer: str = DEBIAN) -> None:
    status = root / "var/lib/dpkg/status"
    before = status.read_text() + "\n" if status.exists() else ""
    fields = f"Package: {name}\nStatus: install ok installed\nMaintainer: {maintainer}\nVersion: {version}\n"
    write(root, "var/lib/dpkg/status", before + fields)


def node(root: Path, virtualization: str = "bare", gpus: int = 1) -> driver.Node:
    about = {**kernel.facts(str(root)), "release": RELEASE}
    return driver.Node(str(root), about, virtualization, [GPU] * gpus, driver_packages.installed(str(root)))


def facts(root: Path, virtualization: str = "bare", gpus: int = 1, **system: Any) -> dict[str, Any]:
    return driver.facts(node(root, virtualization, gpus), system)


@pytest.mark.parametrize(
    ("text", "version", "flavour"),
    [
        (OPEN, "580.95.05", "open"),
        (PROPRIETARY, "535.183.01", "proprietary"),
        (OPEN_ARM, "570.86.15", "open"),
        ("", None, None),
    ],
)
def test_loaded(tmp_path: Path, text: str, version: str | None, flavour: str | None) -> None:
    write(tmp_path, "proc/driver/nvidia/version", text)
    assert driver.loaded(str(tmp_path)) == (version, flavour)


def test_loaded_by_the_modules_own_version(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nvidia/version", "550.163.01\n")
    assert driver.loaded(str(tmp_path)) == ("550.163.01", None)


def test_nothing_is_installed(tmp_path: Path) -> None:
    found = facts(tmp_path)
    dkms = {"version": None, "state": None}
    assert {key: value for key, value in found.items() if value is not None} == {"mismatch": False, "dkms": dkms}


@pytest.mark.parametrize(("licence", "flavour"), [("NVIDIA", "proprietary"), ("Dual MIT/GPL", "open")])
@pytest.mark.parametrize("name", ["updates/dkms/nvidia-current.ko", "extra/nvidia.ko", "kernel/nvidia-580/nvidia.ko"])
def test_the_module_of_the_running_kernel_is_what_is_installed(
    tmp_path: Path, licence: str, flavour: str, name: str
) -> None:
    text = f"\x7fELF\0srcversion=535.1.1\0license={licence}\0version=535.309.01\0depends=\0"
    write(tmp_path, f"lib/modules/{RELEASE}/{name}", text)
    dep = f"kernel/nvidia-net.ko:\n{name.replace('.ko', '-drm.ko')}: {name}\n{name}:\n"
    write(tmp_path, f"lib/modules/{RELEASE}/modules.dep", dep)
    package(tmp_path, "nvidia-kernel-dkms", "535.400.01-1")  # on disk, not built for this kernel
    found = facts(tmp_path)
    assert (found["installed_version"], found["flavour"]) == ("535.309.01", flavour)
    assert (found["branch"], found["cuda_version"], found["source"]) == ("535", "12.2", "distro")


def test_dkms_tells_where_the_module_is_compressed(tmp_path: Path) -> None:
    write(tmp_path, f"lib/modules/{RELEASE}/modules.dep", "updates/dkms/nvidia-current-open.ko.xz:\n")
    write(tmp_path, f"var/lib/dkms/nvidia-current-open/550.163.01/{RELEASE}/x86_64/log/make.log")
    write(tmp_path, "var/lib/dkms/nvidia-current-open/560.28.03/6.1.0-99-amd64/x86_64/log/make.log")
    assert (facts(tmp_path)["installed_version"], facts(tmp_path)["flavour"]) == ("550.163.01", "open")


@pytest.mark.parametrize(
    ("name", "version", "maintainer", "expected"),
    [
        ("nvidia-kernel-dkms", "535.309.01-0+deb12u1", DEBIAN, ("535.309.01", "proprietary", "distro")),
        ("nvidia-open-kernel-dkms", "550.163.01-2", DEBIAN, ("550.163.01", "open", "distro")),
        ("nvidia-dkms-580-server-open", "580.95.05-0ubuntu1", NVIDIA, ("580.95.05", "open", "nvidia")),
        ("nvidia-kernel-open-dkms", "1:580.95.05-1", NVIDIA, ("580.95.05", "open", "nvidia")),
    ],
)
def test_packages_tell_where_nothing_is_built(
    tmp_path: Path, name: str, version: str, maintainer: str, expected: tuple[str, str, str]
) -> None:
    package(tmp_path, name, version, maintainer)
    found = facts(tmp_path)
    assert (found["installed_version"], found["flavour"], found["source"]) == expected


def test_libcuda_alone_is_no_driver(tmp_path: Path) -> None:
    package(tmp_path, "libcuda1", "535.309.01-1")
    write(tmp_path, "usr/lib/x86_64-linux-gnu/libcuda.so.535.309.01")
    assert facts(tmp_path)["installed_version"] is None


def test_a_runfile_leaves_no_package(tmp_path: Path) -> None:
    write(tmp_path, f"var/lib/dkms/nvidia/570.86.15/{RELEASE}/x86_64/log/make.log")
    assert facts(tmp_path)["source"] is None
    write(tmp_path, "usr/bin/nvidia-uninstall")
    assert facts(tmp_path)["source"] == "runfile"


def test_libraries_of_another_version_are_a_mismatch(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/version", PROPRIETARY)
    assert facts(tmp_path)["mismatch"] is False  # no library, no statement
    write(tmp_path, "usr/lib64/libnvidia-ml.so.535.309.01")
    assert facts(tmp_path)["mismatch"] is True
    write(tmp_path, "usr/lib64/libnvidia-ml.so.535.183.01")
    assert facts(tmp_path)["mismatch"] is False


def test_a_container_has_the_hosts_driver(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/version", PROPRIETARY)
    write(tmp_path, "usr/lib/x86_64-linux-gnu/libcuda.so.535.183.01")
    found = facts(tmp_path, "container")
    assert (found["installed_version"], found["loaded_version"]) == ("535.183.01", "535.183.01")
    assert facts(tmp_path, "bare")["installed_version"] is None


def test_nvml_knows_the_cuda_version_best(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/version", PROPRIETARY)
    assert facts(tmp_path)["cuda_version"] == "12.2"
    assert facts(tmp_path, cuda_version="12.4")["cuda_version"] == "12.4"
    write(tmp_path, "proc/driver/nvidia/version", PROPRIETARY.replace("535.183.01", "999.1"))
    assert facts(tmp_path)["cuda_version"] is None


@pytest.mark.parametrize(
    ("bound", "competitor"), [("nouveau", "nouveau"), ("NovaCore", "nova_core"), ("nvidia", None), ("vfio-pci", None)]
)
def test_competitor_that_is_bound(tmp_path: Path, bound: str, competitor: str | None) -> None:
    found = driver.facts(node(tmp_path)._replace(gpus=[GPU._replace(driver=bound)]), {})
    assert found["competitor"] == competitor


def test_competitor_that_is_loaded_counts_only_beside_a_gpu_and_without_nvidia(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nouveau/initstate", "live")
    assert facts(tmp_path)["competitor"] == "nouveau"
    assert facts(tmp_path, gpus=0)["competitor"] is None
    write(tmp_path, "proc/driver/nvidia/version", PROPRIETARY)
    assert facts(tmp_path)["competitor"] is None


@pytest.mark.parametrize(
    ("installed", "loaded", "gpus", "virtualization", "needed"),
    [
        (None, None, 1, "bare", False),
        ("535.309.01", None, 1, "bare", True),
        ("535.309.01", None, 0, "bare", False),
        ("535.309.01", "535.183.01", 1, "bare", True),
        ("535.309.01", "535.309.01", 1, "bare", False),
        (None, "535.183.01", 1, "bare", False),
        ("535.309.01", "535.183.01", 1, "container", False),
    ],
)
def test_reboot_needed(installed: str | None, loaded: str | None, gpus: int, virtualization: str, needed: bool) -> None:
    versions = {"installed_version": installed, "loaded_version": loaded}
    assert driver.reboot_needed(versions, gpus, virtualization) is needed


def process(root: Path, pid: int, name: str, device: str | None = None) -> None:
    write(root, f"proc/{pid}/comm", name + "\n")
    (root / f"proc/{pid}/fd").mkdir()
    (root / f"proc/{pid}/fd/0").symlink_to("/dev/null")
    if device:
        (root / f"proc/{pid}/fd/3").symlink_to(device)


def test_busy_is_who_holds_a_device_and_is_no_service(tmp_path: Path) -> None:
    process(tmp_path, 7, "pyth\x1b[31mon", "/dev/nvidia0")
    process(tmp_path, 8, "bash")
    process(tmp_path, 9, "nvidia-persiste", "/dev/nvidiactl")
    write(tmp_path, "proc/10/comm", "nv-fabricmanage\n")  # of another user: its files can't be seen
    seen = gpu_usage.look(str(tmp_path), True)
    assert seen == ([7, 9], {"nvidia-persiste", "nv-fabricmanage"})
    assert gpu_usage.busy(str(tmp_path), seen.holders, []) == [{"pid": 7, "name": "pyth\ufffd[31mon"}]
    assert gpu_usage.look(str(tmp_path), False) == ([], frozenset())
    assert gpu_usage.busy(str(tmp_path), [], [8]) == [{"pid": 8, "name": "bash"}]
    assert gpu_usage.look(str(tmp_path / "nowhere"), True).services is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "bare"),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor tsc\n"}, "vm"),
        ({"proc/cpuinfo": "flags\t\t: fpu tsc\n"}, "bare"),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "vm"),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/product_name": "p5.metal\n"}, "bare"),
        ({"sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"}, "bare"),
        ({"run/.containerenv": "", "proc/cpuinfo": "flags\t: hypervisor\n"}, "container"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, "container"),
        ({"proc/sys/kernel/osrelease": "5.15-microsoft-standard-WSL2\n", ".dockerenv": ""}, "wsl"),
    ],
)
def test_virtualization(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for path, text in files.items():
        write(tmp_path, path, text)
    assert kernel.virtualization(str(tmp_path)) == expected


@pytest.mark.parametrize(("data", "on"), [(b"\6\0\0\0\1", True), (b"\6\0\0\0\0", False), (b"\6", None), (None, None)])
def test_secure_boot(tmp_path: Path, data: bytes | None, on: bool | None) -> None:
    if data is not None:
        write(tmp_path, "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", data)
    assert kernel.facts(str(tmp_path))["secure_boot"] is on


def test_headers(tmp_path: Path) -> None:
    write(tmp_path, "proc/sys/kernel/osrelease", RELEASE + "\n")
    write(tmp_path, "lib/modules/6.1.0-99-amd64/build/Makefile")
    write(tmp_path, f"lib/modules/{RELEASE}/modules.dep")
    assert (kernel.facts(str(tmp_path))["release"], kernel.facts(str(tmp_path))["headers"]) == (RELEASE, False)
    write(tmp_path, f"lib/modules/{RELEASE}/build/Makefile")
    assert kernel.facts(str(tmp_path))["headers"] is True
