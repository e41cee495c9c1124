"""Drivers of one suite of Debian's archive: who gets them, and what is said of one that cannot be had any more."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts


def plan(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    # The first release for Debian 13's Python is served by its driver 550 too.
    torch = "2.6.0" if node["node"]["version"] == "13" else "2.0.1"
    return resolve(node, {"pytorch_version": torch, **wanted}, catalog.load())


def driver(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    answer = plan(node, **wanted)
    assert answer["ok"], answer["conflicts"]
    stage: dict[str, Any] = answer["stages"]["nvidia_driver"]
    return stage


def debian(version: str, gpu: str = "a100", **installed: Any) -> dict[str, Any]:
    node = facts(gpu, distribution="Debian", version=version)
    if installed:
        node["gpu"]["driver"].update({"source": "distro", **installed})
    return node


def test_debian_11_has_the_driver_of_main_and_nothing_of_securitys() -> None:
    stage = driver(debian("11"))
    assert (stage["version"], stage["source"]) == ("470", "distro")
    assert stage["suite"]["name"] == "bullseye"
    assert "nvidia-graphics-drivers" in stage["suite"]["sources"]
    assert "nvidia-kernel-dkms" in stage["packages"]


def test_a_driver_that_cannot_be_had_any_more_is_a_conflict_that_says_since_when() -> None:
    answer = plan(debian("11"), nvidia_driver_version="535", nvidia_driver_source="distro")
    (conflict,) = [each for each in answer["conflicts"] if each["code"] == "GF-DRIVER-VERSION"]
    assert any("535.309.01" in line and "404" in line and "2026-11-2" in line for line in conflict["because"])
    assert {"nvidia_driver_version": "auto"} in conflict["fixes"]


def test_a_withdrawn_driver_that_is_there_stays_as_it_is() -> None:
    stage = driver(debian("11", installed_version="535.309.01", flavour="proprietary"))
    assert not stage["wanted"]
    assert "taken as it is" in stage["why"][0]


def toolkit(node: dict[str, Any], version: str, **wanted: Any) -> dict[str, Any]:
    answer = plan(node, cuda_toolkit_version=version, cuda_toolkit_source="distro", **wanted)
    assert answer["ok"], answer["conflicts"]
    (found,) = answer["stages"]["cuda_toolkit"]["toolkits"]
    return dict(found)


def test_debian_11s_toolkit_takes_the_drivers_libraries_from_main_too() -> None:
    assert toolkit(debian("11"), "11.2")["suite"]["name"] == "bullseye"
    assert toolkit(facts(distribution="Debian", version="11"), "11.2")["suite"]["name"] == "bullseye"
    assert toolkit(debian("12"), "11.8")["suite"] is None
    # They would go back to older ones under a driver that is there.
    there = debian("11", installed_version="535.309.01", flavour="proprietary")
    assert toolkit(there, "11.2")["suite"] is None


def test_a_toolkit_that_would_bring_another_drivers_libraries_does_not_fit() -> None:
    answer = plan(debian("12"), nvidia_driver_version="470", cuda_toolkit_version="11.8", cuda_toolkit_source="distro")
    (conflict,) = [each for each in answer["conflicts"] if each["code"] == "GF-TOOLKIT-UNFIT"]
    assert "libraries of driver 520" in conflict["because"][0]
    assert toolkit(debian("12"), "11.8", nvidia_driver_version="535")["suite"] is None


def test_a_toolkit_whose_headers_the_c_library_contradicts_does_not_fit() -> None:
    answer = plan(debian("13"), cuda_toolkit_version="12.4", cuda_toolkit_source="distro")
    (conflict,) = [each for each in answer["conflicts"] if each["code"] == "GF-TOOLKIT-UNFIT"]
    assert conflict["because"][0].startswith("its headers do not compile with glibc 2.41, those of CUDA 13.0 do")
    unasked = plan(debian("13"), pytorch_version="2.6.0")
    assert unasked["ok"] and not unasked["stages"]["cuda_toolkit"]["wanted"]
    (note,) = [each for each in unasked["warnings"] if each["code"] == "GF-TOOLKIT-SKIPPED"]
    assert "12.4: its headers do not compile with glibc 2.41" in note["message"]


def test_sources_in_a_list_put_toolkits_of_several_side_by_side() -> None:
    node = facts(distribution="Debian", version="12")
    wishes = {"cuda_toolkit_version": ["11.8", "13.0"], "cuda_toolkit_source": ["distro", "wheels"]}
    stage = plan(node, **wishes)["stages"]["cuda_toolkit"]
    assert [(each["version"], each["source"]) for each in stage["toolkits"]] == [("11.8", "distro"), ("13.0", "wheels")]
    assert {"nvidia-cuda-toolkit", "g++"} <= {name for each in stage["toolkits"] for name in each["packages"]}
    assert stage["default"] == "11.8"


@pytest.mark.parametrize("order", [["nvidia", "wheels"], ["wheels", "nvidia"]])
def test_of_two_sources_that_have_it_the_first_is_taken(order: list[str]) -> None:
    node = facts(distribution="Debian", version="12")
    (found,) = plan(node, cuda_toolkit_version="13.0", cuda_toolkit_source=order)["stages"]["cuda_toolkit"]["toolkits"]
    assert found["source"] == order[0]


@pytest.mark.parametrize("sources", [[], ["distro", "ubuntu"], [["distro"]]])
def test_a_list_with_no_source_in_it_is_no_wish(sources: list[Any]) -> None:
    conflicts = plan(facts(), cuda_toolkit_source=sources)["conflicts"]
    assert [conflict["code"] for conflict in conflicts] == ["GF-WISH-INVALID"]
