"""Packages go alone or not at all: dependencies as dpkg's records have them, and the real apt's word on them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import removal_packages
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import Apt, Rpm, check_taken

Answer = Callable[["list[str]"], "tuple[int, str, str]"]


def stanza(name: str, status: str = "install ok installed", **fields: str) -> str:
    lines = [
        f"Package: {name}",
        f"Status: {status}",
        "Version: 1",
        "Architecture: all",
        "Maintainer: x",
        "Description: x",
    ]
    return "\n".join([*lines, *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items())]) + "\n"


def node(tmp_path: Path, *stanzas: str) -> Path:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("\n".join(stanzas))
    return tmp_path


def real_apt(root: Path) -> Answer:
    """The test host's own apt-get on the records of a made-up node. It only ever simulates."""

    def run(command: list[str]) -> tuple[int, str, str]:
        assert "--simulate" in command
        for folder in ("lists/partial", "cache/archives/partial", "etc"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        places = {
            "Dir::State": root,
            "Dir::State::status": root / "var/lib/dpkg/status",
            "Dir::Etc": root / "etc",
            "Dir::Cache": root / "cache",
            "Debug::NoLocking": "true",
        }
        options = [part for key, value in places.items() for part in ("-o", f"{key}={value}")]
        done = subprocess.run(
            [command[0], *options, *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        return done.returncode, done.stdout, done.stderr

    return run


OURS = (
    stanza("toolkit", Depends="compiler, library (>= 1)"),
    stanza("compiler", Multi_Arch="allowed"),
    stanza("library"),
)
NAMES = ["compiler", "library", "toolkit"]


def test_packages_that_nobody_else_needs_all_go(tmp_path: Path) -> None:
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, *OURS, stanza("base"))))
    assert apt.needed(NAMES) == {}
    assert apt.would_take(NAMES) == set(NAMES)
    check_taken(apt, NAMES)


@pytest.mark.parametrize(
    ("user", "kept"),
    [
        (stanza("user", Depends="compiler"), {"compiler": "user needs it"}),
        (stanza("user", Pre_Depends="compiler (>= 1)"), {"compiler": "user needs it"}),
        (stanza("user", Depends="nothing | compiler:any"), {"compiler": "user needs it"}),
        (stanza("user", Depends="toolkit"), dict.fromkeys(NAMES, "")),
        (stanza("user", Depends="base | compiler"), {}),
        (stanza("user", Recommends="compiler"), {}),
        (stanza("user", "deinstall ok config-files", Depends="compiler"), {}),
    ],
)
def test_what_something_else_needs_stays_and_apt_agrees(tmp_path: Path, user: str, kept: dict[str, str]) -> None:
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, *OURS, stanza("base"), user)))
    needed = apt.needed(NAMES)
    assert set(needed) == set(kept)
    assert all(needed[name] == why for name, why in kept.items() if why)
    rest = [name for name in NAMES if name not in needed]
    assert not rest or apt.would_take(rest) == set(rest)


def test_what_a_package_provides_counts(tmp_path: Path) -> None:
    ours = stanza("compiler", Provides="cc (= 1), c99")
    user = stanza("user", Depends="cc")
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, ours, user)))
    assert apt.needed(["compiler"]) == {"compiler": "user needs it"}
    other = Apt(real_apt(tmp_path), str(node(tmp_path / "b", ours, user, stanza("clang", Provides="cc"))))
    assert other.needed(["compiler"]) == {}


def test_a_held_package_stays_with_what_it_needs(tmp_path: Path) -> None:
    held = stanza("toolkit", "hold ok installed", Depends="compiler")
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, held, stanza("compiler"), stanza("library"))))
    assert apt.needed(NAMES) == {"toolkit": "it is held", "compiler": "toolkit needs it"}


def test_settings_that_a_removed_package_left_count_as_present(tmp_path: Path) -> None:
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, stanza("toolkit", "deinstall ok config-files"), stanza("base"))))
    assert apt.present(["toolkit", "gone"]) == {"toolkit": "1"}
    assert apt.would_take(["toolkit"]) == {"toolkit"}


def test_a_removal_that_would_take_more_stops(tmp_path: Path) -> None:
    """The version tells apt what `needed_by`, which does not compare versions, cannot see."""
    user = stanza("user", Depends="compiler (>= 1) | base (>= 2)")
    apt = Apt(real_apt(tmp_path), str(node(tmp_path, *OURS, stanza("base"), user)))
    assert apt.needed(NAMES) == {}
    with pytest.raises(GpufleetError, match="would also take or bring: user") as caught:
        check_taken(apt, NAMES)
    assert caught.value.code == "GF-REMOVE-WOULD-TAKE"


# What apt said when a package went in whose place it would have put another.
SIMULATION = """\
Reading package lists...
The following NEW packages will be installed:
  usr-is-merged
Inst usr-is-merged (37~deb12u1 Debian:12.15/oldstable [all])
Conf usr-is-merged (37~deb12u1 Debian:12.15/oldstable [all])
Purg usrmerge [37~deb12u1]
Remv libc6:i386 [2.36-9+deb12u14]
Purg perl-base [5.36.0-7+deb12u4]
"""


def test_reading_what_apt_would_do() -> None:
    assert removal_packages.parse_apt_simulation(SIMULATION) == {"usr-is-merged", "usrmerge", "libc6", "perl-base"}


def test_a_package_manager_that_fails_is_quoted() -> None:
    apt = Apt(lambda command: (100, "", "E: Could not get lock /var/lib/dpkg/lock-frontend\n"))
    with pytest.raises(GpufleetError, match="status 100: E: Could not get lock") as caught:
        apt.purge(["toolkit"])
    assert caught.value.code == "GF-REMOVE-FAILED"


def test_apt_is_told_to_take_nothing_of_its_own_accord() -> None:
    commands: list[list[str]] = []
    apt = Apt(lambda command: (commands.append(command), (0, "", ""))[1])
    apt.purge(["toolkit"])
    apt.mark_automatic(["base"])
    assert "APT::Get::AutomaticRemove=false" in commands[0]
    assert commands[0][-2:] == ["purge", "toolkit"]
    assert not [option for option in commands[0] if "force" in option or "allow" in option]
    assert commands[1] == ["apt-mark", "auto", "base"]


def test_what_a_dpkg_that_was_cut_off_left_goes_too(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/updates").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/updates/0003").touch()
    commands: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        commands.append(command)
        return 0, "", ""

    Apt(run, str(tmp_path)).purge(["headers"])
    assert "DPkg::Options::=--force-remove-reinstreq" in commands[0]


# rpm 4.18, word for word; Debian's own adds the first two lines.
RPM_REFUSAL = """\
rpm: RPM should not be used directly install RPM packages, use Alien instead!
rpm: However assuming you know what you are doing...
error: Failed dependencies:
\tlibtool.so.1()(64bit) is needed by (installed) user-1.0-1.noarch
\ttool >= 1.0 is needed by (installed) user-1.0-1.noarch
"""


class FakeRpm:
    """Answers as rpm did for the packages tool, tool-libs and extra, of which others need the first two."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        if command[:3] == ["rpm", "-e", "--test"]:
            refused = {"tool", "tool-libs"} & set(command[3:])
            return (1, "", RPM_REFUSAL) if refused else (0, "", "")
        if command[:3] == ["rpm", "-q", "--whatprovides"]:
            found = {"libtool.so.1()(64bit)": "tool-libs\n", "tool": "tool\n"}.get(command[-1])
            return (0, found, "") if found else (1, f"no package provides {command[-1]}\n", "")
        return 0, "", ""


def test_rpm_says_what_others_need_and_dnf_takes_the_rest() -> None:
    fake = FakeRpm()
    rpm = Rpm(fake)
    assert rpm.needed(["tool", "tool-libs", "extra"]) == {
        "tool-libs": "user-1.0-1.noarch needs it",
        "tool": "user-1.0-1.noarch needs it",
    }
    check_taken(rpm, ["extra"])
    rpm.purge(["extra"])
    assert fake.commands[-1] == ["dnf", "--assumeyes", "remove", "--noautoremove", "extra"]


def test_rpm_that_refuses_stops_the_removal() -> None:
    with pytest.raises(GpufleetError, match="Failed dependencies"):
        check_taken(Rpm(FakeRpm()), ["tool"])


def test_the_node_decides_on_the_manager(tmp_path: Path) -> None:
    assert isinstance(removal_packages.manager_of(FakeRpm(), str(tmp_path)), Rpm)
    assert isinstance(removal_packages.manager_of(FakeRpm(), str(node(tmp_path, stanza("base")))), Apt)


def test_rpm_forgets_the_keys_of_a_repository_and_no_other() -> None:
    said: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(command)
        return 0, "gpg-pubkey-d42d0685-62589a51\ngpg-pubkey-486f8221-6b06b0e9\n", ""

    Rpm(run).distrust(["610C7B14E068A878070DA4E99CD0A493D42D0685"])
    assert said[1:] == [["rpm", "-e", "gpg-pubkey-d42d0685-62589a51"]]
    said.clear()
    Rpm(run).distrust([])
    assert said[1:] == []
