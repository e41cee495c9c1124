"""What the roles can't carry out yet is refused where it was asked for, and left out where nobody did."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, offered
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts


def checked(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    plan = resolve(node, wanted, catalog.load())
    assert plan["ok"], plan["conflicts"]
    offered.check(plan, node, wanted)
    return plan


def codes(plan: dict[str, Any], what: str) -> list[str]:
    return [each["code"] for each in plan[what]]


def test_debians_own_driver_and_toolkit_are_offered() -> None:
    plan = checked(facts("a100"))
    assert plan["ok"]
    assert plan["stages"]["cuda_toolkit"]["wanted"]
    assert plan["stages"]["cudnn"]["wanted"]


def test_ubuntus_own_driver_and_toolkit_are_offered() -> None:
    plan = checked(
        facts("a100", distribution="Ubuntu", version="22.04"),
        nvidia_driver_source="distro",
        cuda_toolkit_source="distro",
    )
    assert plan["ok"], plan["conflicts"]
    assert plan["stages"]["cuda_toolkit"]["toolkits"][0]["components"] == ["multiverse"]


def test_nvidias_repository_is_offered_with_its_key() -> None:
    node = facts("b200", distribution="Ubuntu", version="24.04")
    plan = checked(node, pytorch_version="auto", nvidia_driver_source="nvidia")
    assert plan["ok"], plan["conflicts"]
    repository = plan["stages"]["nvidia_driver"]["repository"]
    assert len(repository["fingerprint"]) == 40
    assert repository["url"] == repository["public_url"]
    assert repository["url"].endswith("/ubuntu2404/x86_64")


@pytest.mark.parametrize(("name", "version"), [("RedHat", "8.10"), ("Rocky", "9.6"), ("AlmaLinux", "10.1")])
def test_nvidias_repository_is_offered_to_the_rhel_family(name: str, version: str) -> None:
    plan = checked(facts("a100", distribution=name, version=version), pytorch_version="auto")
    assert plan["ok"], plan["conflicts"]
    assert plan["stages"]["nvidia_driver"]["source"] == "nvidia"
    assert plan["stages"]["cuda_toolkit"]["wanted"]


def test_a_mirror_takes_the_place_of_the_public_address() -> None:
    node = facts("b200", distribution="Ubuntu", version="24.04")
    mirror = "https://mirror.example.org/cuda/"
    plan = checked(node, pytorch_version="auto", nvidia_driver_source="nvidia", nvidia_repository_url=mirror)
    repository = plan["stages"]["nvidia_driver"]["repository"]
    assert repository["url"] == "https://mirror.example.org/cuda/ubuntu2404/x86_64"
    assert repository["public_url"].startswith("https://developer.download.nvidia.com/")


def test_a_repository_without_a_known_key_is_refused() -> None:
    node = facts("b200", distribution="Ubuntu", version="26.04")
    plan = checked(node, pytorch_version="auto", nvidia_driver_source="nvidia")
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    assert "ubuntu2604" in plan["conflicts"][0]["because"][0]


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (facts("a100", distribution="Amazon", version="2023"), {}),
    ],
)
def test_another_driver_is_refused_with_the_packages_to_install(node: dict[str, Any], wanted: dict[str, str]) -> None:
    plan = checked(node, pytorch_version="auto", **wanted)
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    named = plan["stages"]["nvidia_driver"]["packages"] or ["installer"]
    assert any(name in plan["conflicts"][0]["advice"][-1] for name in named)


def test_a_driver_of_unknown_origin_is_not_installed_over() -> None:
    node = facts("a100", driver="550.54.15", loaded="550.54.15")
    plan = checked(node, nvidia_driver_version="535", nvidia_driver_source="distro")
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    assert "550.54.15" in plan["conflicts"][0]["message"]
    own = facts("a100", driver="535.309.01", loaded="535.309.01", driver_source="distro")
    assert checked(own, nvidia_driver_version="535")["ok"]


def test_an_installer_is_run_where_it_was_tried() -> None:
    wishes = {"nvidia_driver_source": "runfile", "nvidia_driver_runfile_sha256": "0" * 64, "pytorch_version": "auto"}
    wishes["nvidia_driver_runfile"] = "/srv/NVIDIA-Linux-x86_64-580.178.04.run"
    assert checked(facts("a100"), **wishes)["ok"]
    assert checked(facts("a100", distribution="Rocky", version="9.4"), **wishes)["ok"]
    plan = checked(facts("a100", distribution="CentOS", version="9"), **wishes)
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    assert "RedHat, Rocky, AlmaLinux" in plan["conflicts"][0]["because"][0]


def test_with_dnf_an_installer_takes_the_place_of_nvidias_drivers_only() -> None:
    wishes = {"nvidia_driver_source": "runfile", "nvidia_driver_runfile_sha256": "0" * 64, "pytorch_version": "auto"}
    wishes["nvidia_driver_runfile"] = "/srv/NVIDIA-Linux-x86_64-580.178.04.run"
    there = {"distribution": "Rocky", "version": "9.4", "driver": "550.54.15", "loaded": "550.54.15"}
    for source in ("runfile", "nvidia"):
        assert checked(facts("a100", driver_source=source, **there), **wishes)["ok"]
    plan = checked(facts("a100", driver_source="distro", **there), **wishes)
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    assert "NVIDIA's packages and installers" in plan["conflicts"][0]["because"][0]


@pytest.mark.parametrize("source", ["nvidia", "runfile"])
def test_a_driver_of_another_source_goes_first_where_the_role_can_take_it(source: str) -> None:
    wishes = {"nvidia_driver_version": "535", "nvidia_driver_source": "distro"}
    plan = checked(facts("a100", driver="550.54.15", loaded="550.54.15", driver_source=source), **wishes)
    assert plan["ok"], plan["conflicts"]
    assert plan["stages"]["nvidia_driver"]["replaces"]["source"] == source
    windows = checked(facts("a100", driver="550.54.15", driver_source="somebody"), **wishes)
    assert codes(windows, "conflicts") == ["GF-NOT-YET"]


def unsigned() -> dict[str, Any]:
    """A node whose repository of NVIDIA's has no known key."""
    there = {"driver": "615.10", "loaded": "615.10", "driver_source": "nvidia"}
    return facts("a100", distribution="Ubuntu", version="26.04", **there)


def test_a_toolkit_that_nobody_asked_for_is_left_out_with_its_cudnn() -> None:
    plan = checked(unsigned(), pytorch_version="auto")
    assert plan["ok"]
    assert "GF-TOOLKIT-SKIPPED" in codes(plan, "warnings")
    assert not plan["stages"]["cuda_toolkit"]["wanted"]
    assert not plan["stages"]["cudnn"]["wanted"]


def test_a_toolkit_that_was_asked_for_is_refused() -> None:
    plan = checked(unsigned(), pytorch_version="auto", cuda_toolkit_version="13.3")
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]


def test_a_toolkit_of_nvidias_repository_is_offered_in_its_own_place() -> None:
    node = facts("a100", driver="550.54.15", loaded="550.54.15", driver_source="nvidia")
    plan = checked(node, pytorch_version="2.5.1")
    toolkit = plan["stages"]["cuda_toolkit"]["toolkits"][0]
    assert (toolkit["source"], toolkit["path"]) == ("nvidia", "/usr/local/cuda-12.4")
    assert toolkit["packages"] == ["cuda-toolkit-12-4"]


def test_another_distribution_is_untried_and_another_system_refused() -> None:
    assert "GF-UNTRIED" in codes(checked(facts(distribution="Rocky", version="9.4")), "warnings")
    mac = {
        **facts()["node"],
        "distribution": "MacOSX",
        "version": "14.5",
        "architecture": "arm64",
        "package_manager": None,
    }
    mac["pythons"] = ["3.11"]
    assert codes(checked({**facts(), "node": mac}), "conflicts") == ["GF-NOT-YET"]


def test_a_toolkit_of_wheels_is_offered_everywhere() -> None:
    for node in (facts(), facts(distribution="Rocky", version="9.4"), facts(distribution="Ubuntu", version="24.04")):
        plan = checked(node, pytorch_version="auto", cuda_toolkit_source="wheels", cuda_toolkit_version="13.0")
        assert plan["ok"], plan["conflicts"]
        assert plan["stages"]["cuda_toolkit"]["toolkits"][0]["layout"] == "wheels"


def test_conda_is_refused_so_far() -> None:
    plan = checked(facts(), python_provider="conda")
    assert codes(plan, "conflicts") == ["GF-NOT-YET"]
    assert not plan["ok"]
