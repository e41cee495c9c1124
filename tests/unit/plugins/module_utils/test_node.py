# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node itself: this machine for what only a real one has, small trees for the rest."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import node

ROCKY = 'NAME="Rocky Linux"\nVERSION_ID="9.6"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
DEBIAN = '# comment\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nID=debian\n'
UBUNTU = 'NAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n'


def fields(root: Path, text: str) -> dict[str, str]:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text(text)
    return node.os_release(str(root))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DEBIAN, ("Debian", "12", "bookworm")),
        (UBUNTU, ("Ubuntu", "22.04", "jammy")),
        (ROCKY, ("Rocky", "9.6", None)),
        ("ID=arch\nNAME='Arch Linux'\n", ("Arch Linux", None, None)),
        ('NAME="unbalanced\n', ('"unbalanced', None, None)),
        ("", (None, None, None)),
    ],
)
def test_distribution(tmp_path: Path, text: str, expected: tuple[str | None, str | None, str | None]) -> None:
    assert node.distribution(fields(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "programs", "expected"),
    [
        (DEBIAN, ["apt-get", "dnf"], "apt"),
        (ROCKY, ["apt-get", "dnf"], "dnf"),
        (UBUNTU, ["dnf"], "dnf"),
        ("", [], None),
    ],
)
def test_package_manager_is_that_of_the_family(
    tmp_path: Path, text: str, programs: list[str], expected: str | None
) -> None:
    for program in programs:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    assert node.package_manager(fields(tmp_path, text), str(tmp_path)) == expected


def test_glibc_is_the_one_this_python_runs_on() -> None:
    assert node.glibc() == platform.libc_ver()[1]


def test_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interpreter(name: str, script: str) -> str:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        return str(tmp_path / name)

    candidates = [
        (interpreter("python3.9", "echo never asked"), "distribution"),
        (interpreter("python3.11", "echo Python 3.11.7"), "installed"),
        (interpreter("python3.12", "exit 1"), "installed"),
        (interpreter("python3.13", "echo Python 3.12.1"), "installed"),  # not what its name says
        (interpreter("python3.11-config", "echo Python 3.11.7"), "installed"),
    ]
    monkeypatch.setattr(node, "_interpreters", lambda: candidates)
    monkeypatch.setattr(node, "_apt", lambda: True)
    monkeypatch.setattr(node.packages, "installed_versions", lambda _names: {"python3.9-minimal": "3.9.2-1+deb11u3"})
    assert node.pythons() == [
        {"version": "3.9", "full_version": "3.9.2", "path": candidates[0][0], "provider": "distribution"},
        {"version": "3.11", "full_version": "3.11.7", "path": candidates[1][0], "provider": "installed"},
    ]


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
        "glibc",
        "package_manager",
        "packages_interrupted",
        "pythons",
        "root",
        "prefix",
        "kernel",
        "initramfs",
        "boot_id",
        "errors",
    }
    assert json.loads(json.dumps(found)) == found
    assert found["architecture"] == platform.machine()
    assert found["kernel"]["release"] == platform.release()


def test_no_os_release_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "os_release", dict)
    assert [error["code"] for error in node.collect("/opt/gpufleet")["errors"]] == ["GF-NO-OS-RELEASE"]
