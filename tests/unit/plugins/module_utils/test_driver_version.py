"""One version for all packages of the driver; what apt says is recorded from Debian 12."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_version
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_version import Known
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SAID = """\
nvidia-open-580:
  Installed: 580.95.05-1
  Candidate: 580.178.04-1
  Version table:
     580.178.04-1 500
        500 http://vendor.example/debian12/x86_64  Packages
 *** 580.95.05-1 500
        500 http://vendor.example/debian12/x86_64  Packages
        100 /var/lib/dpkg/status
nvidia-fabricmanager:
  Installed: (none)
  Candidate: 595.91.07-1
  Version table:
     595.91.07-1 500
        500 http://vendor.example/debian12/x86_64  Packages
     580.178.04-1 1001
        500 http://vendor.example/debian12/x86_64  Packages
     580.95.05-1 -1
        500 http://vendor.example/debian12/x86_64  Packages
"""
LEAD, MANAGER = "nvidia-open-580", "nvidia-fabricmanager"


def known() -> dict[str, Known]:
    return driver_version.policies(lambda _command: (0, SAID, ""), [LEAD, MANAGER])


def test_what_apt_says_is_read() -> None:
    found = known()
    assert found[LEAD] == Known("580.95.05-1", "580.178.04-1", ["580.178.04-1", "580.95.05-1"])
    assert found[MANAGER] == Known(None, "595.91.07-1", ["595.91.07-1", "580.178.04-1", "580.95.05-1"])
    assert driver_version.policies(lambda _command: (100, "", "E: no"), [LEAD]) == {}


def test_the_file_of_ours_is_left_out_of_account() -> None:
    asked: list[str] = []
    driver_version.policies(lambda command: (asked.extend(command), (0, "", ""))[1], [LEAD], "/etc/apt/x/ours")
    assert asked[2].startswith("Dir::Etc::PreferencesParts=")


@pytest.mark.parametrize(
    ("series", "version"), [("580", "580.95.05-1"), ("580.178.04", "580.178.04-1"), ("580.95.05", "580.95.05-1")]
)
def test_the_installed_driver_counts_first_then_what_was_asked_for(series: str, version: str) -> None:
    assert driver_version.choose(known(), LEAD, series) == {LEAD: version, MANAGER: version}


def test_a_driver_whose_fabric_manager_is_not_there_yet_is_not_taken() -> None:
    rows = {
        LEAD: Known(None, "580.178.04-1", ["580.178.04-1", "580.95.05-1"]),
        MANAGER: Known(None, None, ["580.95.05-2"]),
    }
    assert driver_version.choose(rows, LEAD, "580") == {LEAD: "580.95.05-1", MANAGER: "580.95.05-2"}


@pytest.mark.parametrize("series", ["580.1", "58", "570"])
def test_what_is_not_there_is_named_with_what_is(series: str) -> None:
    with pytest.raises(GpufleetError, match=r"580\.178\.04-1, 580\.95\.05-1") as caught:
        driver_version.choose(known(), LEAD, series)
    assert caught.value.code == "GF-DRIVER-VERSION-ABSENT"
    with pytest.raises(GpufleetError, match="no nvidia-open-580"):
        driver_version.choose({}, LEAD, series)


def test_packages_get_their_versions_and_keep_those_they_have() -> None:
    names = ["linux-headers-amd64", LEAD, f"{MANAGER}=1"]
    assert driver_version.named(names, {LEAD: "580.95.05-1"}) == [
        "linux-headers-amd64",
        f"{LEAD}=580.95.05-1",
        f"{MANAGER}=1",
    ]
    assert driver_version.given([f"{LEAD}=580.95.05-1"], LEAD) == "580.95.05"
    assert driver_version.given([LEAD], LEAD) is None


def test_the_pin_names_the_version() -> None:
    assert "Pin: version 580.95.05-*\nPin-Priority: 1001\n" in driver_version.text("580.95.05")


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="apt is not installed")
def test_apt_takes_the_pin_and_tells_of_a_tree_without_it(tmp_path: Path) -> None:
    """The real apt, in a tree of its own."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "repo"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "repo/Packages").write_text(
        "".join(
            f"Package: {name}\nVersion: {version}-1\nArchitecture: all\nMaintainer: n\nFilename: ./x.deb\nSize: 1\n"
            f"SHA256: {'0' * 64}\nDescription: x\n\n"
            for name in (LEAD, MANAGER, "other")
            for version in ("580.178.04", "580.95.05")
        )
    )
    # Made above out of text: there is nobody who could sign it, and nothing is installed from it.
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path}/repo ./\n")
    (tmp_path / "status").write_text("")
    (tmp_path / "apt.conf").write_text(
        f'Dir "{tmp_path}";\nDir::State "state";\nDir::State::status "{tmp_path}/status";\nDir::Cache "cache";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::parts "-";\n'
        f'Dir::Etc::preferencesparts "{tmp_path}/etc/preferences.d";\nAPT::Architecture "amd64";\nAPT::Sandbox::User "root";\n'
    )

    def run(command: list[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "APT_CONFIG": str(tmp_path / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.returncode, done.stdout, done.stderr

    assert run(["apt-get", "update"])[0] == 0
    file = tmp_path / "etc/preferences.d/gpufleet-driver-version"
    file.write_text(driver_version.text("580.95.05"))
    pinned = driver_version.policies(run, [LEAD, MANAGER, "other"])
    assert [pinned[name].candidate for name in (LEAD, MANAGER, "other")] == [
        "580.95.05-1",
        "580.95.05-1",
        "580.178.04-1",
    ]
    free = driver_version.policies(run, [LEAD], str(file))
    assert free[LEAD] == Known(None, "580.178.04-1", ["580.178.04-1", "580.95.05-1"])
