# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installed packages out of dpkg's and rpm's own records."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import packages

STATUS = """\
Package: held
Status: hold ok installed
Maintainer: NVIDIA <cudatools@nvidia.com>
Version: 2:535.183.01-1
Description: kept back
 Version: not this one
 .
 Package: nor this

Package: removed
Status: deinstall ok config-files
Version: 1.0

Package: whole
Status: install ok installed
Version: 3.11.2-1+b1
"""


def dpkg(root: Path, text: str = STATUS) -> str:
    (root / "var/lib/dpkg/updates").mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").write_text(text)
    return str(root)


def test_installed_and_held_packages_count(tmp_path: Path) -> None:
    assert packages.installed_versions(None, dpkg(tmp_path)) == {"held": "2:535.183.01-1", "whole": "3.11.2-1+b1"}


def test_only_the_names_asked_for(tmp_path: Path) -> None:
    assert packages.installed_versions(["whole", "removed", "absent"], dpkg(tmp_path)) == {"whole": "3.11.2-1+b1"}


def test_the_records_are_read_once_until_they_change(tmp_path: Path) -> None:
    root = dpkg(tmp_path)
    assert packages.dpkg_entries(root) is packages.dpkg_entries(root)
    dpkg(tmp_path, STATUS.replace("1+b1", "1+b12"))
    assert packages.installed_versions(["whole"], root) == {"whole": "3.11.2-1+b12"}


def test_what_a_file_tells_is_had_without_rpm(rpm: Path) -> None:
    assert packages.versions_on_file(dpkg(rpm)) == {"held": "2:535.183.01-1", "whole": "3.11.2-1+b1"}
    assert not (rpm / "calls").exists()


def test_a_recorded_list_of_rpm_stands_for_rpm(rpm: Path) -> None:
    (rpm / ".gpufleet").mkdir()
    (rpm / ".gpufleet/rpm.json").write_text('{"cuda-nvcc-12-4": "12.4.131-1"}')
    assert packages.installed_versions(None, str(rpm)) == {"cuda-nvcc-12-4": "12.4.131-1"}
    assert packages.versions_on_file(str(rpm)) == {"cuda-nvcc-12-4": "12.4.131-1"}
    assert not (rpm / "calls").exists()
    (rpm / ".gpufleet/rpm.json").write_text("[")
    assert "kernel" in packages.installed_versions(None, str(rpm))


def test_no_package_manager(tmp_path: Path) -> None:
    assert packages.installed_versions(None, str(tmp_path)) == {}
    assert packages.dpkg_interrupted(str(tmp_path)) is False


@pytest.mark.parametrize("state", packages.UNFINISHED_STATES)
def test_a_half_done_package_is_not_installed_and_interrupts(tmp_path: Path, state: str) -> None:
    root = dpkg(tmp_path, STATUS.replace("install ok installed", f"install ok {state}"))
    assert packages.installed_versions(["whole"], root) == {}
    assert packages.dpkg_interrupted(root) is True


def test_a_journal_that_was_not_merged_interrupts(tmp_path: Path) -> None:
    root = dpkg(tmp_path)
    assert packages.dpkg_interrupted(root) is False
    (tmp_path / "var/lib/dpkg/updates/tmp.i").touch()
    assert packages.dpkg_interrupted(root) is False
    (tmp_path / "var/lib/dpkg/updates/0003").touch()
    assert packages.dpkg_interrupted(root) is True


@pytest.fixture
def rpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for rpm that prints recorded rows and counts how often it is started."""
    program = tmp_path / "bin/rpm"
    program.parent.mkdir()
    rows = [r"999999999\tkernel\t5.14.0-284", r"1750000000\tkernel\t5.14.0-570", r"1700000000\tgpg-pubkey\tabc"]
    text = r"\n".join([*rows, r"9\twhole\t1:2-3\n"])
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\nprintf '{text}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    (tmp_path / "var/lib/rpm/rpmdb.sqlite").touch()
    return tmp_path


def test_rpm_is_asked_once_and_the_last_installed_kernel_counts(rpm: Path) -> None:
    expected = {"kernel": "5.14.0-570", "whole": "1:2-3"}
    assert packages.installed_versions(None, str(rpm)) == expected
    assert packages.installed_versions(["kernel"], str(rpm)) == {"kernel": "5.14.0-570"}
    assert (rpm / "calls").read_text().count("-qa") == 1
    assert f"--root {rpm} -qa" in (rpm / "calls").read_text()


def test_rpm_is_not_started_where_dpkg_knows_all(rpm: Path) -> None:
    assert packages.installed_versions(["whole"], dpkg(rpm)) == {"whole": "3.11.2-1+b1"}
    assert not (rpm / "calls").exists()


def test_rpm_is_not_started_without_a_database(rpm: Path) -> None:
    (rpm / "var/lib/rpm/rpmdb.sqlite").unlink()
    assert packages.installed_versions(None, str(rpm)) == {}
    assert not (rpm / "calls").exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', True),
        ("ID=fedora\n", True),
        ('ID="amzn"\nID_LIKE="fedora"\n', True),
        ('ID="sles"\nID_LIKE="suse"\n', True),
        ('ID=ubuntu\nID_LIKE=debian\nNAME="not rhel"\n', False),
        (None, False),
    ],
)
def test_a_dpkg_counts_only_where_it_is_the_distributions_own(
    tmp_path: Path, fields: str | None, expected: bool
) -> None:
    root = dpkg(tmp_path)
    if fields:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/os-release").write_text(fields)
    assert packages.of_rpm(root) is expected
    assert bool(packages.dpkg_entries(root)) is not expected
