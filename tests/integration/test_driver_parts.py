"""Fabric manager, IMEX, DCGM and container toolkit, and exact versions, on a real Debian 12 with apt, dpkg, DKMS and systemd.

The repository is a stand-in, whose services end with an error where no driver is loaded; the GPUs and NVSwitches are a recording.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from .vendor import Vendor, modules, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run

pytestmark = pytest.mark.slow

SWITCHES = {"node_recording": "a100-x16-nvswitch", "gpufleet_gpu_sysroot": "/opt/recorded/a100-x16"}
UNITS = ("nvidia-persistenced", "nvidia-fabricmanager", "nvidia-imex", "nvidia-dcgm", "nvidia-cdi-refresh")
EVERYTHING: dict[str, Any] = {
    "nvidia_driver_dcgm": True,
    "nvidia_driver_container_toolkit": True,
    "nvidia_driver_imex": True,
    "gpufleet_hold": True,
}
OLDER, NEWER = "580.95.05", "580.178.04"
PIN = "/etc/apt/preferences.d/gpufleet-driver-version"
OF_THE_DRIVER = ("nvidia-open-580", "nvidia-fabricmanager", "nvidia-imex")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("parts", tmp_path_factory, **SWITCHES) as this:
        this.sh("/root/snapshot.sh > /root/bare.txt")
        yield this


def wish(node: Vendor, version: str, **more: Any) -> Run:
    return node.play(nvidia_driver_version=version, **{**EVERYTHING, **more})


def versions(node: Vendor, *names: str) -> set[str]:
    return set(node.sh(f"dpkg-query -W -f '${{Version}}\\n' {' '.join(names)}").split())


def one_line(run: Run) -> str:
    """What the run said, without colours and the breaks of lines."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", " ", run.stdout).split())


def unit(node: Vendor, name: str) -> dict[str, str]:
    """What systemd says of a unit."""
    said = node.sh(f"systemctl show {name} -p ActiveState,ConditionResult,UnitFileState")
    return dict(line.split("=", 1) for line in said.splitlines())


def test_a_version_that_is_not_there_leaves_a_bare_node_bare(node: Vendor) -> None:
    run = wish(node, "580.1.1")
    assert run.rc != 0
    assert "GF-DRIVER-VERSION-ABSENT" in run.stdout, run.stdout
    assert f"{NEWER}-1, {OLDER}-1" in run.stdout
    node.sh("/root/snapshot.sh > /root/now.txt")
    assert node.sh("diff /root/bare.txt /root/now.txt", check=False) == ""


def test_an_exact_version_comes_with_everything_of_its_version(node: Vendor) -> None:
    run = wish(node, OLDER)
    assert run.rc == 0, run.stdout
    assert modules(node) == [OLDER, "Dual MIT/GPL"]
    assert versions(node, *OF_THE_DRIVER) == {f"{OLDER}-1"}
    held = node.sh("apt-mark showhold").split()
    assert set(OF_THE_DRIVER) <= set(held)
    assert "datacenter-gpu-manager-4-cuda13" not in held
    assert wish(node, OLDER).changed("node") == 0


def test_the_image_boots_clean_without_a_gpu(node: Vendor) -> None:
    """Every service is enabled, and skipped where no driver is loaded."""
    node.world.tool("restart")
    assert node.sh("systemctl is-system-running --wait", check=False) == "running"
    for name in UNITS:
        said = unit(node, f"{name}.service")
        assert said == {"ActiveState": "inactive", "ConditionResult": "no", "UnitFileState": "enabled"}, name
    assert node.sh("systemctl --failed --no-legend") == ""


def test_without_our_additions_it_would_not(node: Vendor) -> None:
    """The stand-in's services fail on such a node: what the test before found was the additions' doing."""
    additions = "/etc/systemd/system/nvidia-*.d"
    node.sh(f"tar -cf /root/additions.tar {additions} && rm -r {additions}")
    node.world.tool("restart")
    try:
        assert "nvidia-fabricmanager" in node.sh("sleep 2; systemctl --failed --no-legend")
    finally:
        node.sh("tar -xf /root/additions.tar -C / && systemctl daemon-reload && systemctl reset-failed")
    assert wish(node, OLDER).changed("node") == 0


def test_nobodys_upgrade_moves_it_and_ours_does_in_both_directions(node: Vendor) -> None:
    # Without the hold: the pin alone has to do it.
    assert wish(node, OLDER, gpufleet_hold=False).rc == 0
    node.sh("apt-get update -q >/dev/null; DEBIAN_FRONTEND=noninteractive apt-get dist-upgrade -y -q >/dev/null")
    assert versions(node, *OF_THE_DRIVER) == {f"{OLDER}-1"}
    for version in (NEWER, OLDER):
        run = wish(node, version)
        assert run.rc == 0, run.stdout
        assert modules(node) == [version, "Dual MIT/GPL"]
        assert versions(node, *OF_THE_DRIVER) == {f"{version}-1"}
        assert f"Pin: version {version}-*" in node.sh(f"cat {PIN}")


def test_what_somebody_moved_comes_back(node: Vendor) -> None:
    node.sh(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --allow-change-held-packages "
        f"nvidia-fabricmanager={NEWER}-1; systemctl disable nvidia-imex"
    )
    run = wish(node, OLDER)
    assert run.rc == 0, run.stdout
    assert f"package nvidia-fabricmanager was {OLDER}-1, is {NEWER}-1" in one_line(run)
    assert versions(node, *OF_THE_DRIVER) == {f"{OLDER}-1"}
    assert unit(node, "nvidia-imex.service")["UnitFileState"] == "enabled"


def test_a_version_that_is_not_there_leaves_the_driver_alone(node: Vendor) -> None:
    run = wish(node, "580.1.1")
    assert run.rc != 0
    assert "GF-DRIVER-VERSION-ABSENT" in run.stdout, run.stdout
    assert versions(node, *OF_THE_DRIVER) == {f"{OLDER}-1"}
    assert f"Pin: version {OLDER}-*" in node.sh(f"cat {PIN}")
    assert "nvidia-fabricmanager" in node.sh("apt-mark showhold")
    assert wish(node, OLDER).changed("node") == 0


def test_another_branch_whose_packages_have_the_same_names(node: Vendor) -> None:
    for branch, version in (("590", "590.48.01"), ("595", "595.91.07")):
        run = wish(node, branch)
        assert run.rc == 0, run.stdout
        assert modules(node) == [version, "Dual MIT/GPL"]
        assert versions(node, "nvidia-open", "nvidia-fabricmanager", "nvidia-imex") == {f"{version}-1"}
        assert wish(node, branch).changed("node") == 0


def test_going_back_takes_the_fabric_manager_along(node: Vendor) -> None:
    run = node.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
    assert run.rc == 0, run.stdout
    assert versions(node, "nvidia-open", "nvidia-fabricmanager", "nvidia-imex") == {"590.48.01-1"}
    assert "Pin: version 590.48.01-*" in node.sh(f"cat {PIN}")
    assert wish(node, "590").changed("node") == 0


def test_removal_leaves_nothing_of_it(node: Vendor) -> None:
    run = node.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    node.sh("/root/snapshot.sh > /root/now.txt")
    assert node.sh("diff /root/bare.txt /root/now.txt", check=False) == ""
    assert node.sh("systemctl is-system-running", check=False) == "running"
