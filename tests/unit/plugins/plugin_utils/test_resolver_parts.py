"""What belongs to the driver on some nodes: fabric manager, IMEX, DCGM, container toolkit, and versions that have to match."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, offered
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import GPUS, facts

NVIDIA = {"nvidia_driver_source": "nvidia", "pytorch_version": "auto"}
LOADED = "/proc/driver/nvidia/version"


def plan(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    return resolve(node, {**NVIDIA, **wanted}, catalog.load())


def stage(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    found = plan(node, **wanted)
    assert found["ok"], found["conflicts"]
    offered.check(found, node, wanted)
    assert found["ok"], found["conflicts"]
    return dict(found["stages"]["nvidia_driver"])


def parts(driver: dict[str, Any]) -> dict[str, list[str]]:
    return {part["name"]: part["packages"] for part in driver["parts"]}


@pytest.mark.parametrize(
    ("branch", "manager"),
    [
        ("570", "nvidia-fabricmanager-570"),
        ("580", "nvidia-fabricmanager"),
        ("590", "nvidia-fabricmanager"),
    ],
)
def test_switches_bring_the_fabric_manager_under_the_name_of_its_branch(branch: str, manager: str) -> None:
    driver = stage(facts("h100", nvswitches=4), nvidia_driver_version=branch, gpufleet_hold=True)
    assert parts(driver) == {"persistence": [], "fabric_manager": [manager]}
    assert manager in driver["packages"]
    assert manager in driver["hold"]
    assert any("NVSwitches" in sentence for sentence in driver["why"])
    unit = driver["parts"][1]["units"][0]
    assert unit["name"] == "nvidia-fabricmanager.service"
    assert unit["paths"] == ["/proc/driver/nvidia-nvswitch/devices/*"]
    assert driver["match"]["pin"]
    assert manager in driver["match"]["packages"]


@pytest.mark.parametrize(("branch", "manager"), [("570", "nvidia-fabric-manager"), ("580", "nvidia-fabricmanager")])
def test_rpm_has_names_of_its_own(branch: str, manager: str) -> None:
    node = facts("h100", distribution="Rocky", version="9.4", nvswitches=4)
    driver = plan(node, nvidia_driver_version=branch)["stages"]["nvidia_driver"]
    assert parts(driver)["fabric_manager"] == [manager]
    assert driver["match"] is None


def test_without_switches_there_is_none_and_apt_finds_the_version_itself() -> None:
    driver = stage(facts("h100"), nvidia_driver_version="570")
    assert parts(driver) == {"persistence": []}
    assert driver["match"] is None


@pytest.mark.parametrize(
    ("branch", "tied"), [("570", "libnvsdm-570"), ("580", "libnvsdm"), ("595", "libnvsdm")]
)  # fmt: skip
def test_switches_behind_infiniband_need_more_packages(branch: str, tied: str) -> None:
    node = facts("b200")
    node["gpu"]["fabric"] = {"nvswitches": 0, "needed": True}
    driver = stage(node, nvidia_driver_version=branch)
    part = driver["parts"][1]
    assert part["name"] == "fabric_manager"
    assert tied in part["tied"]
    assert "nvlsm" in part["packages"]
    assert "nvlsm" not in part["tied"]
    assert LOADED in part["units"][0]["paths"]
    assert "nvlsm" not in driver["hold"]


def gb200() -> dict[str, Any]:
    node = facts("b200", distribution="Ubuntu", version="24.04", architecture="aarch64")
    for device in node["gpu"]["devices"]:
        device.update(name="NVIDIA GB200", pci_id="10de:2941")
    return node


def test_imex_comes_where_the_gpus_need_it_or_somebody_asks() -> None:
    needed = stage(gb200(), nvidia_driver_version="580")
    assert "imex" in parts(needed)
    assert "IMEX: these GPUs share memory between nodes" in needed["why"]
    assert "imex" not in parts(stage(gb200(), nvidia_driver_version="580", nvidia_driver_imex="false"))
    for gpu in sorted(set(GPUS) - {"gtx680", "k40", "k80"}):
        found = plan(facts(gpu, distribution="Ubuntu", version="24.04"))
        assert "imex" not in parts(found["stages"]["nvidia_driver"]), gpu
    asked = stage(facts("b200"), nvidia_driver_imex="true", nvidia_driver_version="570")
    assert parts(asked)["imex"] == ["nvidia-imex-570"]
    assert "IMEX: asked for" in asked["why"]
    assert asked["parts"][-1]["tied"] == ["nvidia-imex-570"]


@pytest.mark.parametrize(
    ("branch", "package"), [("575", "datacenter-gpu-manager-4-cuda12"), ("580", "datacenter-gpu-manager-4-cuda13")]
)
def test_dcgm_is_named_after_the_drivers_cuda(branch: str, package: str) -> None:
    driver = stage(facts("a100"), nvidia_driver_version=branch, nvidia_driver_dcgm=True, gpufleet_hold=True)
    assert parts(driver)["dcgm"] == [package]
    assert package not in driver["hold"]


def test_the_container_toolkit_brings_the_units_that_refresh_its_devices() -> None:
    driver = stage(facts("a100"), nvidia_driver_version="580", nvidia_driver_container_toolkit=True)
    part = driver["parts"][-1]
    assert part["packages"] == ["nvidia-container-toolkit"]
    assert [unit["name"] for unit in part["units"]] == ["nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service"]


@pytest.mark.parametrize("variable", ["nvidia_driver_dcgm", "nvidia_driver_container_toolkit"])
def test_a_part_that_the_source_lacks_is_a_conflict_with_ways_out(variable: str) -> None:
    found = plan(facts("a100"), nvidia_driver_source="distro", **{variable: True})
    assert [each["code"] for each in found["conflicts"]] == ["GF-DRIVER-PART"]
    fixes = found["conflicts"][0]["fixes"]
    assert {"nvidia_driver_source": "nvidia"} in fixes
    assert {variable: False} in fixes


def test_auto_takes_the_source_that_has_what_was_asked_for() -> None:
    assert stage(facts("a100"), nvidia_driver_source="auto", pytorch_version="2.0.1")["source"] == "distro"
    asked = stage(facts("a100"), nvidia_driver_source="auto", pytorch_version="2.0.1", nvidia_driver_dcgm=True)
    assert asked["source"] == "nvidia"


def test_an_images_driver_gets_no_parts_unasked_and_a_conflict_if_asked() -> None:
    node = facts("a100", driver="570.211.01", loaded="570.211.01", driver_source="nvidia")
    assert not stage(node, nvidia_driver_source="auto")["wanted"]
    found = plan(node, nvidia_driver_source="auto", nvidia_driver_dcgm=True)
    assert [each["code"] for each in found["conflicts"]] == ["GF-DRIVER-PART"]


def test_a_node_without_a_gpu_is_asked_for_nothing() -> None:
    found = plan(facts(), nvidia_driver_dcgm=True, nvidia_driver_container_toolkit=True, nvidia_driver_imex="true")
    assert found["ok"]
    assert found["stages"]["nvidia_driver"]["parts"] == []


@pytest.mark.parametrize("value", ["yes", True, 1])
def test_imex_takes_three_words(value: Any) -> None:
    found = plan(facts("a100"), nvidia_driver_imex=value)
    assert [each["code"] for each in found["conflicts"]] == ["GF-WISH-INVALID"]


def test_an_exact_version_is_found_by_the_role_and_kept() -> None:
    bare = facts("a100")
    first = stage(bare, nvidia_driver_version="580.95.05")
    assert first["version"] == "580.95.05"
    assert first["packages"] == ["linux-headers-amd64", "nvidia-open-580"]
    assert first["match"] == {
        "lead": "nvidia-open-580",
        "series": "580.95.05",
        "packages": ["nvidia-open-580"],
        "pin": True,
    }
    there = facts("a100", driver="580.95.05", loaded="580.95.05", driver_source="nvidia", flavour="open")
    there["node"]["managed"] = ["nvidia_driver"]
    again = stage(there, nvidia_driver_version="580.95.05")
    assert {name: again[name] for name in first if name not in ("why", "reboot")} == {
        name: first[name] for name in first if name not in ("why", "reboot")
    }
    other = stage(there, nvidia_driver_version="580.178.04")
    assert (other["version"], other["reboot"]) == ("580.178.04", True)


def test_names_without_a_branch_get_the_version_of_their_branch_and_others_upgrades_stay_free() -> None:
    driver = stage(facts("a100"), nvidia_driver_version="590")
    assert driver["match"] == {"lead": "nvidia-open", "series": "590", "packages": ["nvidia-open"], "pin": False}
    assert driver["pin"] == "nvidia-driver-pinning-590"
