# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node itself: this machine for what only a real one has, small trees for the rest."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    node,
    node_distribution,
    node_pythons,
    node_system,
    record_elf,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

ROCKY = 'NAME="Rocky Linux"\nVERSION_ID="9.6"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
DEBIAN = '# comment\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
UBUNTU = 'NAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n'
AMAZON = 'NAME="Amazon Linux"\nVERSION="2023"\nID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n'
SLES = 'NAME="SLES"\nVERSION_ID="15.6"\nID="sles"\nID_LIKE="suse"\n'
LEAP = 'NAME="openSUSE Leap"\nVERSION_ID="15.6"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n'
ORACLE = 'NAME="Oracle Linux Server"\nVERSION_ID="8.10"\nID="ol"\nID_LIKE="fedora"\n'


def write(root: Path, path: str, content: str | bytes = "") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return target


def fields(root: Path, text: str) -> dict[str, str]:
    write(root, "etc/os-release", text)
    return node_distribution.os_release(Sysroot(str(root)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, ("Debian", "12", "bookworm")),
        (UBUNTU, ("Ubuntu", "22.04", "jammy")),
        (ROCKY, ("Rocky", "9.6", None)),
        (AMAZON, ("Amazon", "2023", None)),
        (SLES, ("SLES", "15.6", None)),
        (LEAP, ("openSUSE Leap", "15.6", None)),
        (ORACLE, ("OracleLinux", "8.10", None)),
        ("ID=arch\nNAME='Arch Linux'\n", ("Arch Linux", None, None)),
        ('NAME="unbalanced\n', ('"unbalanced', None, None)),
        ("", (None, None, None)),
    ],
)
def test_distribution(tmp_path: Path, text: str, expected: tuple[str | None, str | None, str | None]) -> None:
    assert node_distribution.distribution(fields(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "programs", "expected"),
    [
        (DEBIAN, ["apt-get", "dnf"], "apt"),
        (ROCKY, ["apt-get", "dnf"], "dnf"),
        (AMAZON, ["dnf"], "dnf"),
        (ORACLE, ["dnf"], "dnf"),
        (SLES, ["zypper", "dnf"], "zypper"),
        (LEAP, ["zypper"], "zypper"),
        (UBUNTU, ["dnf"], "dnf"),
        ("", [], None),
    ],
)
def test_package_manager_is_that_of_the_family(
    tmp_path: Path, text: str, programs: list[str], expected: str | None
) -> None:
    for program in programs:
        write(tmp_path, "usr/bin/" + program)
    assert node_distribution.package_manager(Sysroot(str(tmp_path)), fields(tmp_path, text)) == expected


def test_glibc_is_the_one_this_python_runs_on() -> None:
    assert node_system.running_glibc() == platform.libc_ver()[1]


def test_glibc_on_disk_is_the_running_one_too() -> None:
    assert node_system.glibc_on_disk(Sysroot("/")) == platform.libc_ver()[1]


def test_glibc_of_another_root(tmp_path: Path) -> None:
    assert node_system.glibc_on_disk(Sysroot(str(tmp_path))) is None
    write(tmp_path, "lib64/libc-2.28.so")
    (tmp_path / "lib64/libc.so.6").symlink_to("libc-2.28.so")
    assert node_system.glibc_on_disk(Sysroot(str(tmp_path))) == "2.28"
    said = b"\0GNU C Library (GNU libc) stable release version 2.34.\n\0"
    (tmp_path / "lib64/libc.so.6").unlink()
    write(tmp_path, "lib64/libc.so.6", record_elf.build(".rodata", said))
    assert node_system.glibc_on_disk(Sysroot(str(tmp_path))) == "2.34"


def test_gcc(tmp_path: Path) -> None:
    assert node_system.gcc(Sysroot(str(tmp_path))) is None
    write(tmp_path, "usr/lib/gcc/x86_64-redhat-linux/11/cc1")
    assert node_system.gcc(Sysroot(str(tmp_path))) is None  # parts of it without the program
    write(tmp_path, "usr/bin/gcc")
    assert node_system.gcc(Sysroot(str(tmp_path))) == 11
    write(tmp_path, "usr/lib/gcc/x86_64-redhat-linux/13/crtbegin.o")
    assert node_system.gcc(Sysroot(str(tmp_path))) == 11  # the other one compiles no C
    (tmp_path / "usr/bin/gcc").unlink()
    write(tmp_path, "usr/bin/x86_64-linux-gnu-gcc-12")
    (tmp_path / "usr/bin/gcc").symlink_to("gcc-12")
    (tmp_path / "usr/bin/gcc-12").symlink_to("x86_64-linux-gnu-gcc-12")
    assert node_system.gcc(Sysroot(str(tmp_path))) == 12


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A tree with one Python for each way in which its version can be told."""
    write(
        tmp_path,
        "var/lib/dpkg/status",
        "Package: python3.9-minimal\nStatus: install ok installed\nVersion: 3.9.2-1+deb11u3\n",
    )
    for name in (
        "usr/bin/python3.9",
        "usr/bin/python3.9-config",
        "usr/local/bin/python3.12",
        "opt/conda/bin/python3.13",
    ):
        write(tmp_path, name, f"#!/bin/sh\ntouch {tmp_path}/asked\necho Python 3.9.0\n").chmod(0o755)
    write(tmp_path, "usr/local/include/python3.12/patchlevel.h", '#define PY_VERSION              "3.12.1+"\n')
    write(tmp_path, "usr/lib64/libpython3.10.so.1.0", record_elf.build(".rodata", b"x\0003.10.13\0003.1.2\0"))
    write(tmp_path, "usr/bin/python3.10").chmod(0o755)
    return tmp_path


def test_pythons_are_told_without_starting_one(pythons: Path) -> None:
    found = node_pythons.find(Sysroot(str(pythons)), live=False)
    assert [(each["full_version"], each["path"], each["provider"]) for each in found] == [
        ("3.10.13", "/usr/bin/python3.10", "distribution"),
        ("3.9.2", "/usr/bin/python3.9", "distribution"),
        ("3.12.1", "/usr/local/bin/python3.12", "installed"),
    ]
    assert found[0]["version"] == "3.10"
    assert not (pythons / "asked").exists()


def test_only_one_of_which_no_file_tells_is_asked(pythons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_pythons.os, "access", lambda *_arguments: True)  # the paths are those of the node
    found = node_pythons.find(Sysroot(str(pythons)), live=True)
    assert (pythons / "asked").exists()
    assert len(found) == 3  # it said 3.9, which is not what its name says


def test_pythons_of_a_recorded_rpm_node(tmp_path: Path) -> None:
    versions = {"python3": "3.9.21-2.el9", "python3.12": "3.12.9-1.el9", "python311": "3.11.10-1"}
    write(tmp_path, ".gpufleet/rpm.json", json.dumps(versions))
    for minor in (9, 11, 12, 13):
        write(tmp_path, f"usr/bin/python3.{minor}")
    found = node_pythons.find(Sysroot(str(tmp_path)), live=False)
    assert [each["full_version"] for each in found] == ["3.11.10", "3.12.9", "3.9.21"]


def test_prefix_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    prefix = str(tmp_path / "opt/gpufleet")
    found = node.prefix_facts(prefix)
    assert (found["path"], found["writable"]) == (prefix, True)
    space = os.statvfs(tmp_path)
    assert abs(found["free_mib"] - space.f_bavail * space.f_frsize // 2**20) < 1024


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_prefix_without_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert node.prefix_facts(str(tmp_path / "gpufleet"))["writable"] is False


def test_this_machine_gives_every_key_in_no_time() -> None:
    started = time.monotonic()
    found = node.collect("/opt/gpufleet")
    assert time.monotonic() - started < 1  # 20 ms on an idle machine; tests may share theirs
    assert set(found) == {
        "distribution",
        "version",
        "codename",
        "architecture",
        "cpu",
        "glibc",
        "gcc",
        "package_manager",
        "packages_interrupted",
        "pythons",
        "root",
        "prefix",
        "kernel",
        "kernels",
        "initramfs",
        "boot_id",
        "errors",
    }
    assert json.loads(json.dumps(found)) == found
    assert found["architecture"] == platform.machine()
    assert found["kernel"]["release"] == platform.release()


def test_this_python_is_found_with_its_version() -> None:
    own = {each["path"]: each for each in node.collect()["pythons"]}
    assert all(re.fullmatch(r"3\.\d+\.\d+", each["full_version"]) for each in own.values())
    mine = os.path.realpath(sys.executable)
    if mine in own:
        assert own[mine]["full_version"] == platform.python_version()


def test_no_os_release_is_a_finding(tmp_path: Path) -> None:
    assert [error["code"] for error in node.collect(sysroot=str(tmp_path))["errors"]] == ["GF-NO-OS-RELEASE"]


def test_what_no_file_tells_comes_from_the_record(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", DEBIAN)
    prefix = {"path": "/elsewhere", "writable": False, "free_mib": 7}
    record = {"architecture": "aarch64", "glibc": "2.36", "root": False, "prefix": prefix}
    write(tmp_path, ".gpufleet/node.json", json.dumps(record))
    found = node.collect("/opt/gpufleet", str(tmp_path))
    assert (found["architecture"], found["glibc"], found["root"]) == ("aarch64", "2.36", False)
    assert found["prefix"] == {"path": "/opt/gpufleet", "writable": False, "free_mib": 7}
    assert (found["boot_id"], found["kernel"]["release"]) == (None, None)


@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, ".gpufleet/node.json", text)
    write(tmp_path, "usr/lib/aarch64-linux-gnu/libc.so.6")
    assert node.collect(sysroot=str(tmp_path))["architecture"] == "aarch64"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD  EPYC 7763\n\nprocessor\t: 1\nmodel name\t: AMD  EPYC 7763\n", ("AMD EPYC 7763", 2)),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\nFeatures\t: fp\n", ("Arm 0x41 0xd4f", 1)),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", (None, 1)),
        ("flags : fpu\n", (None, None)),
        (None, (None, None)),
    ],
)  # fmt: skip
def test_the_processor(tmp_path: Path, text: str | None, expected: tuple[str | None, int | None]) -> None:
    if text is not None:
        write(tmp_path, "proc/cpuinfo", text)
    found = node_system.cpu(Sysroot(str(tmp_path)))
    assert (found["model"], found["threads"]) == expected
