"""What is written so that packages stay as they are, and that nobody else's hold is lost by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import package_hold
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

PACKAGES = {
    "nvidia-driver": "install",
    "libnvidia-ml1": "install",
    "curl": "hold",
    "linux-image-6.1.0-9-amd64": "install",
}


def dpkg(root: Path, wants: dict[str, str]) -> None:
    path = root / package_hold.DPKG_STATUS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(
            f"Package: {name}\nStatus: {want} ok installed\nArchitecture: amd64\nVersion: 1:2.0-1\n\n"
            for name, want in wants.items()
        )
    )


def note(root: Path, name: str, ours: list[str], theirs: list[str]) -> None:
    path = root / package_hold.HOLDS / (name + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "state": "held", "ours": ours, "theirs": theirs}))


def rpm(root: Path, locks: str) -> None:
    for name, text in (
        (".gpufleet/rpm.json", '{"cuda": "12.1-1", "nvidia-driver": "3:535.1-1.el9", "kernel-core": "5.14-1"}'),
        ("usr/lib/python3.9/site-packages/dnf-plugins/versionlock.py", ""),
        (package_hold.VERSIONLOCK, locks),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_apt_holds_names_patterns_and_the_kernel(tmp_path: Path) -> None:
    dpkg(tmp_path, PACKAGES)
    plan = package_hold.plan("driver", ["nvidia-driver", "gone"], ["*nvidia*"], kernel=True, root=str(tmp_path))
    assert plan.selections == dict.fromkeys(["nvidia-driver", "libnvidia-ml1", "linux-image-6.1.0-9-amd64"], "hold")
    assert (plan.missing, plan.foreign) == (["gone"], [])
    pins = plan.files["etc/apt/preferences.d/gpufleet-driver"].split("\n\n")
    assert "Package: libnvidia-ml1\nPin: version 1:2.0-1\nPin-Priority: 999" in pins
    assert pins[-1] == "Package: *nvidia*\nPin: release *\nPin-Priority: -1\n"
    assert '    "^.*nvidia.*$";' in plan.files["etc/apt/apt.conf.d/52gpufleet-driver"].splitlines()


def test_what_the_admin_held_before_stays_held(tmp_path: Path) -> None:
    dpkg(tmp_path, PACKAGES)
    plan = package_hold.plan("driver", ["nvidia-driver", "curl"], [], root=str(tmp_path))
    assert (plan.foreign, plan.selections) == (["curl"], {"nvidia-driver": "hold"})
    note(tmp_path, "driver", ["nvidia-driver"], ["curl"])
    dpkg(tmp_path, {**PACKAGES, "nvidia-driver": "hold"})
    for state in ("lifted", "absent"):
        plan = package_hold.plan("driver", [], [], state=state, root=str(tmp_path))
        assert plan.selections == {"nvidia-driver": "install"}
        assert set(plan.files.values()) == {""}
        assert (plan.note is None) == (state == "absent")


def test_a_package_of_two_parts_stays_held_for_the_other(tmp_path: Path) -> None:
    dpkg(tmp_path, {"shared": "hold"})
    note(tmp_path, "driver", ["shared"], [])
    plan = package_hold.plan("cuda", ["shared"], [], root=str(tmp_path))
    assert (plan.foreign, plan.selections) == ([], {})
    note(tmp_path, "cuda", ["shared"], [])
    assert package_hold.plan("driver", [], [], state="absent", root=str(tmp_path)).selections == {}


def test_two_architectures_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / package_hold.DPKG_STATUS
    path.parent.mkdir(parents=True)
    stanza = "Package: libcuda1\nStatus: install ok installed\nArchitecture: {}\nVersion: 1\n"
    path.write_text(stanza.format("amd64") + "\n" + stanza.format("i386"))
    assert sorted(package_hold.dpkg_selections(str(tmp_path))) == ["libcuda1:amd64", "libcuda1:i386"]


def test_dots_and_pluses_are_no_wildcards_of_the_blacklist() -> None:
    assert '"^libstdc[+][+]6[.]1$";' in package_hold.blacklist_text(["libstdc++6.1"], [])


def test_dnf_locks_come_and_go_and_foreign_ones_stay(tmp_path: Path) -> None:
    foreign = "# mine\ncuda-0:12.1-1.*\n"
    rpm(tmp_path, foreign)
    plan = package_hold.plan("driver", ["cuda", "nvidia-driver"], [], kernel=True, root=str(tmp_path))
    assert plan.foreign == ["cuda"]
    text = plan.files[package_hold.VERSIONLOCK]
    ours = "kernel-core-0:5.14-1.*\nnvidia-driver-3:535.1-1.el9.*\n"
    assert text == foreign + "# gpufleet driver: begin\n" + ours + "# gpufleet driver: end\n"
    rpm(tmp_path, text)
    note(tmp_path, "driver", ["kernel-core", "nvidia-driver"], ["cuda"])
    again = package_hold.plan("driver", ["cuda", "nvidia-driver"], [], kernel=True, root=str(tmp_path))
    assert again == plan
    gone = package_hold.plan("driver", [], [], state="absent", root=str(tmp_path))
    assert gone.files == {package_hold.VERSIONLOCK: foreign}


def test_dnf_without_its_plugin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError, match="GF-HOLD-NO-PLUGIN"):
        package_hold.plan("driver", ["cuda"], [], root=str(tmp_path))


@pytest.mark.parametrize(("name", "packages", "patterns"), [("a/b", [], []), ("a", ["x y"], []), ("a", [], ["*"])])
def test_names_that_would_break_the_files_are_refused(name: str, packages: list[str], patterns: list[str]) -> None:
    with pytest.raises(GpufleetError, match="GF-HOLD-NAME"):
        package_hold.plan(name, packages, patterns)


def test_held_reads_the_files_of_dpkg_and_dnf(tmp_path: Path) -> None:
    rpm(tmp_path, "!curl-0:1-1.*\ncuda-0:12.1-1.*\n")
    assert package_hold.held(["cuda", "curl"], str(tmp_path)) == {"cuda": True, "curl": False}
    dpkg(tmp_path, PACKAGES)
    assert package_hold.held(["cuda", "curl", "nvidia-driver"], str(tmp_path)) == {
        "cuda": False, "curl": True, "nvidia-driver": False,
    }  # fmt: skip


def test_dnf_keeps_a_branch_that_is_not_installed_and_that_is_no_hold(tmp_path: Path) -> None:
    rpm(tmp_path, "")
    names = ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]
    plan = package_hold.plan("driver_branch", names, [], branch="580.*", root=str(tmp_path))
    text = plan.files[package_hold.VERSIONLOCK]
    assert text.splitlines()[1:-1] == ["kmod-nvidia-open-dkms-580.*-*", "nvidia-driver-cuda-580.*-*"]
    assert plan.missing == []
    rpm(tmp_path, text)
    assert package_hold.held(names, str(tmp_path)) == dict.fromkeys(names, False)
    note(tmp_path, "driver_branch", sorted(names), [])
    absent = package_hold.plan("driver_branch", [], [], state="absent", root=str(tmp_path))
    assert absent.files[package_hold.VERSIONLOCK] == ""


def test_a_pattern_of_versions_is_one(tmp_path: Path) -> None:
    rpm(tmp_path, "")
    with pytest.raises(GpufleetError) as caught:
        package_hold.plan("driver", ["nvidia-driver"], [], branch="580\n!*", root=str(tmp_path))
    assert caught.value.code == "GF-HOLD-NAME"


def test_a_dpkg_on_a_distribution_of_rpm_holds_nothing(tmp_path: Path) -> None:
    dpkg(tmp_path, PACKAGES)
    assert package_hold.manager_of(str(tmp_path)) == "apt"
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    assert package_hold.manager_of(str(tmp_path)) == "dnf"


def test_locks_of_ours_are_known_after_dnf_wrote_its_list_without_comments(tmp_path: Path) -> None:
    """As `dnf versionlock delete cuda` leaves it."""
    rpm(tmp_path, "curl-0:1-1.*\nnvidia-driver-3:535.1-1.el9.*\n")
    note(tmp_path, "driver", ["cuda", "nvidia-driver"], [])
    absent = package_hold.plan("driver", [], [], state="absent", root=str(tmp_path))
    assert absent.files[package_hold.VERSIONLOCK] == "curl-0:1-1.*\n"
    again = package_hold.plan("driver", ["cuda", "nvidia-driver"], [], root=str(tmp_path))
    assert again.foreign == []
    assert again.files[package_hold.VERSIONLOCK].count("nvidia-driver-") == 1
