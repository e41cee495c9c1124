# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The finer parts of the driver's facts: module file, DKMS, package, Secure Boot, libraries."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver,
    driver_dkms,
    driver_libraries,
    driver_module,
    driver_packages,
    pci,
)

RELEASE = "6.1.0-47-amd64"
KERNEL = {"release": RELEASE, "secure_boot": None, "module_signatures_enforced": None}
SIGNATURE = b"PKCS#7~Module signature appended~\n"


def write(root: Path, path: str, data: str | bytes = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data if isinstance(data, bytes) else data.encode())


def elf(information: bytes, padding: int = 2 * 1024 * 1024) -> bytes:
    """A 64-bit ELF file with a .modinfo section behind so much code that nobody may read it whole."""
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + padding
    table = at + len(information) + len(names)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    )
    rows = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at, len(information), 0, 0, 1, 0)
    rows += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, at + len(information), len(names), 0, 0, 1, 0)
    return header + b"version=999.1" + bytes(padding - 13) + information + names + rows


def facts(root: Path, virtualization: str = "bare", **kernel: Any) -> dict[str, Any]:
    packages = driver_packages.installed(str(root))
    gpu = pci.PciDevice("0000:3b:00.0", 0x20F1, None, None, pci.Pcie(None, None, None, None))
    return driver.facts(driver.Node(str(root), {**KERNEL, **kernel}, virtualization, [gpu], packages), {})


def module(root: Path, data: bytes, name: str = "updates/dkms/nvidia.ko") -> None:
    write(root, f"lib/modules/{RELEASE}/{name}", data)
    write(root, f"lib/modules/{RELEASE}/modules.dep", name + ":\n")


INFORMATION = b"license=Dual MIT/GPL\0version=580.95.05\0srcversion=1.2\0"


@pytest.mark.parametrize("signed", [True, False])
def test_a_module_says_version_licence_and_signature(tmp_path: Path, signed: bool) -> None:
    module(tmp_path, elf(INFORMATION) + (SIGNATURE if signed else b""))
    assert driver_module.of_kernel(str(tmp_path), RELEASE) == ("580.95.05", "open", signed)
    assert facts(tmp_path)["module_signed"] is signed


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01", elf(INFORMATION)[:-100], b"\x7fELF\x02\x01" + b"\xff" * 100])
def test_a_broken_module_says_nothing(tmp_path: Path, data: bytes) -> None:
    module(tmp_path, data)
    assert driver_module.of_kernel(str(tmp_path), RELEASE)[:2] == (None, None)


def test_a_compressed_module_is_not_unpacked(tmp_path: Path) -> None:
    module(tmp_path, b"\xfd7zXZ", "extra/nvidia.ko.xz")
    assert facts(tmp_path)["module_signed"] is None


def dkms(root: Path, version: str, *, built: bool = False, installed: bool = False) -> None:
    base = root / "var/lib/dkms/nvidia-current"
    (base / version / "source").mkdir(parents=True)
    if built:
        (base / version / RELEASE / "x86_64/module").mkdir(parents=True)
    if installed:
        (base / f"kernel-{RELEASE}-x86_64").symlink_to(f"{version}/{RELEASE}/x86_64")


def test_dkms_state_of_the_running_kernel(tmp_path: Path) -> None:
    assert driver_dkms.state(str(tmp_path), RELEASE)["state"] is None
    dkms(tmp_path, "550.54.14")
    assert facts(tmp_path)["dkms"] == {"version": "550.54.14", "state": "added"}
    assert facts(tmp_path)["installed_version"] is None  # a source that was never built drives nothing
    dkms(tmp_path, "535.99.01", built=True)
    assert facts(tmp_path)["dkms"] == {"version": "535.99.01", "state": "built"}
    dkms(tmp_path, "535.100.01", built=True)
    assert facts(tmp_path)["dkms"]["version"] == "535.100.01"  # by number, not by letter
    dkms(tmp_path, "470.256.02", built=True, installed=True)
    assert facts(tmp_path)["dkms"] == {"version": "470.256.02", "state": "installed"}
    assert driver_dkms.state(str(tmp_path), "6.9.9")["state"] == "added"


def status(root: Path, state: str) -> None:
    fields = f"Package: nvidia-kernel-dkms\nStatus: {state}\nMaintainer: Debian <x@debian.org>\nVersion: 535.309.01-1\n"
    other = "Package: bash\nStatus: install ok installed\nVersion: 5.2\nDescription: not nvidia\n"
    write(root, "var/lib/dpkg/status", other + "\n" + fields + "\n" + other.replace("bash", "dash"))


@pytest.mark.parametrize(("state", "held"), [("install ok installed", False), ("hold ok installed", True)])
def test_the_package_of_the_module(tmp_path: Path, state: str, held: bool) -> None:
    status(tmp_path, state)
    found = facts(tmp_path)
    assert found["package"] == {"name": "nvidia-kernel-dkms", "version": "535.309.01-1"}
    assert found["held"] is held
    assert found["dkms"] == {"version": None, "state": "missing"}
    assert found["source"] == "distro"


def test_a_package_of_which_only_the_configuration_is_left_is_none(tmp_path: Path) -> None:
    status(tmp_path, "deinstall ok config-files")
    assert (facts(tmp_path)["package"], facts(tmp_path)["held"]) == (None, None)


@pytest.mark.parametrize(
    ("secure_boot", "enforced", "signed", "loaded", "expected"),
    [
        (None, None, True, False, None),
        (False, None, False, False, True),
        (False, True, False, False, False),
        (True, None, False, False, False),
        (True, None, True, False, None),
        (True, None, True, True, True),
    ],
)
def test_secure_boot(
    tmp_path: Path, secure_boot: bool | None, enforced: bool | None, signed: bool, loaded: bool, expected: bool | None
) -> None:
    module(tmp_path, INFORMATION + (SIGNATURE if signed else b""))
    if loaded:
        write(tmp_path, "sys/module/nvidia/version", "580.95.05\n")
    kernel = {"secure_boot": secure_boot, "module_signatures_enforced": enforced}
    assert facts(tmp_path, **kernel)["loads_under_secure_boot"] is expected
    assert facts(tmp_path, "container", **kernel)["loads_under_secure_boot"] is None


def test_of_two_library_versions_the_linked_one_is_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/x86_64-linux-gnu"
    for version in ("535.99.01", "535.183.01"):
        write(folder, f"libcuda.so.{version}")
    assert driver_libraries.versions(str(tmp_path)) == ["535.99.01", "535.183.01"]
    assert facts(tmp_path)["library_version"] == "535.183.01"
    (folder / "libcuda.so.1").symlink_to("/usr/lib/x86_64-linux-gnu/libcuda.so.535.99.01")
    assert facts(tmp_path)["library_version"] == "535.99.01"


def test_a_gpu_kept_for_a_guest_has_no_competitor(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nouveau/initstate", "live")
    assert facts(tmp_path)["competitor"] == "nouveau"
    gpu = pci.PciDevice("0000:3b:00.0", 0x20F1, "vfio-pci", None, pci.Pcie(None, None, None, None))
    kept = driver.Node(str(tmp_path), KERNEL, "bare", [gpu], {})
    assert driver.facts(kept, {})["competitor"] is None
