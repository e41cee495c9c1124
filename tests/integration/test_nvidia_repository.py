"""NVIDIA's repository with apt, on a real Debian 12; the repository is a stand-in (tests/tools/vendor_repository)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .vendor import Vendor, modules, packages, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

LIST = "/etc/apt/sources.list.d/cuda-debian12-x86_64.list"
SOURCES = "find /etc/apt -type f | sort | xargs sha256sum"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("vendor", tmp_path_factory) as this:
        yield this


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("--wrong-key", "GF-REPOSITORY-UNTRUSTED"),
        ("--unsigned", "GF-REPOSITORY-UNTRUSTED"),
        ("", "GF-REPOSITORY-UNREACHABLE"),
    ],
)
def test_a_repository_at_fault_leaves_the_node_as_it_was(vendor: Vendor, fault: str, code: str) -> None:
    before = vendor.sh(SOURCES)
    try:
        if fault:
            vendor.build(fault)
            run = vendor.play(nvidia_driver_version="570")
        else:
            run = vendor.play(nvidia_driver_version="570", nvidia_repository_url=vendor.base + "/nowhere")
    finally:
        vendor.build()
    assert run.rc != 0
    assert code in run.stdout, run.stdout
    assert vendor.sh(SOURCES) == before
    assert vendor.sh("dpkg-query -W | grep -c '^nvidia' || true") == "0"


def fails_to_compile(vendor: Vendor, branch: str) -> None:
    vendor.build("--no-compile", branch)
    try:
        run = vendor.play(nvidia_driver_version=branch)
    finally:
        vendor.build()
    assert run.rc != 0
    assert "GF-DKMS-FAILED" in run.stdout, run.stdout
    assert "not for this kernel" in run.stdout, run.stdout
    assert vendor.sh("dpkg --audit") == "", run.stdout


def test_a_node_without_a_driver_is_as_before_where_the_module_does_not_compile(vendor: Vendor) -> None:
    before = packages(vendor), vendor.sh(SOURCES)
    fails_to_compile(vendor, "580")
    assert packages(vendor) == before[0]
    assert vendor.sh(SOURCES) == before[1]


def test_a_branch_is_installed_and_the_former_entry_makes_way(vendor: Vendor) -> None:
    vendor.sh(
        f"echo 'deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {vendor.base}/debian12/x86_64/ /' > {LIST}"
    )
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]
    assert vendor.sh(f"test ! -e {LIST}; apt-get update -q 2>&1 | grep -c Conflicting || true") == "0"
    assert vendor.play(nvidia_driver_version="570").changed("node") == 0


def test_the_driver_before_comes_back_where_the_new_one_does_not_compile(vendor: Vendor) -> None:
    assert vendor.play(nvidia_driver_version="570", gpufleet_hold=True).rc == 0
    before, held = packages(vendor), vendor.sh("apt-mark showhold")
    assert "nvidia-open-570" in held
    fails_to_compile(vendor, "580")
    assert packages(vendor) == before
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]
    assert vendor.sh("apt-mark showhold") == held
    assert vendor.play(nvidia_driver_version="570", gpufleet_hold=True).changed("node") == 0
    assert vendor.play(nvidia_driver_version="570").rc == 0


def test_flavour_and_branch_change_and_one_driver_is_left(vendor: Vendor) -> None:
    for branch, flavour, expected in (
        ("570", "proprietary", ["570.211.01", "NVIDIA"]),
        ("580", "open", ["580.178.04", "Dual MIT/GPL"]),
        ("590", "open", ["590.48.01", "Dual MIT/GPL"]),
    ):
        run = vendor.play(nvidia_driver_version=branch, nvidia_driver_flavour=flavour)
        assert run.rc == 0, run.stdout
        assert modules(vendor) == expected
    # 595 is in the repository too: the pin keeps the branch in everybody's upgrade.
    assert "590.48.01-1" in vendor.sh(
        "apt-get update -q >/dev/null; apt-get upgrade -y -q >/dev/null; dpkg-query -W nvidia-open"
    )


def test_going_back_and_forth_downloads_nothing(vendor: Vendor) -> None:
    """From 590 to 580 and back: other names of packages, and the pin goes and comes."""
    offline = "/etc/apt/apt.conf.d/99offline"
    vendor.sh(f"echo 'Acquire::http::Proxy \"http://127.0.0.1:9\";' > {offline}")
    try:
        for version, pin in (("580.178.04", ""), ("590.48.01", "nvidia-driver-pinning-590")):
            run = vendor.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
            assert run.rc == 0, run.stdout
            assert modules(vendor) == [version, "Dual MIT/GPL"]
            names = vendor.sh("dpkg-query -W -f '${Package}\\n' | grep -E 'nvidia|cuda'").split()
            assert [name for name in names if "pinning" in name] == [pin] * bool(pin)
            assert vendor.sh("dpkg --audit; find / -xdev -name '*rollback*' -path '*gpufleet*'") == ""
    finally:
        vendor.sh(f"rm {offline}")
    assert vendor.play(nvidia_driver_version="590", nvidia_driver_flavour="open").changed("node") == 0


def test_a_toolkit_stands_in_its_own_place_and_brings_no_driver(vendor: Vendor) -> None:
    before = modules(vendor)
    run = vendor.play(
        "nvidia_driver,cuda_toolkit",
        nvidia_driver_version="590",
        cuda_toolkit_version="12.6",
        cuda_toolkit_source="nvidia",
    )
    assert run.rc == 0, run.stdout
    assert modules(vendor) == before
    assert vendor.sh("readlink -f /usr/local/cuda") == "/usr/local/cuda-12.6"
    assert "release 12.6" in vendor.sh("bash -lc 'nvcc --version'")
    assert "no packages found" in vendor.sh("dpkg-query -W cuda 2>&1 || true")


def test_removal_brings_the_former_entry_back(vendor: Vendor) -> None:
    run = vendor.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert vendor.base in vendor.sh(f"cat {LIST}")
    left = vendor.sh(
        "ls /etc/apt/keyrings /etc/apt/sources.list.d | grep gpufleet; find /lib/modules -name 'nvidia.ko*'",
        check=False,
    )
    assert left == ""
