"""Ubuntu's own drivers: modules that are built already or by DKMS, and the packages that follow the node's kernel."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts

OWN = {"pytorch_version": "auto", "nvidia_driver_source": "distro", "nvidia_driver_version": "535"}


def node(release: str, version: str = "22.04", **more: Any) -> dict[str, Any]:
    found = facts("a100", distribution="Ubuntu", version=version, **more)
    found["gpu"]["kernel"]["release"] = release
    return found


def driver(here: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    plan = resolve(here, {**OWN, **wanted}, catalog.load())
    assert plan["ok"], plan["conflicts"]
    return dict(plan["stages"]["nvidia_driver"])


@pytest.mark.parametrize(
    ("version", "release", "package"),
    [
        ("22.04", "5.15.0-119-generic", "linux-modules-nvidia-535-server-generic"),
        ("22.04", "6.8.0-45-generic", "linux-modules-nvidia-535-server-generic-hwe-22.04"),
        ("24.04", "6.8.0-45-generic", "linux-modules-nvidia-535-server-generic"),
        ("22.04", "6.8.0-1015-gcp", "linux-modules-nvidia-535-server-gcp"),
    ],
)
def test_the_module_follows_the_nodes_kernel(version: str, release: str, package: str) -> None:
    stage = driver(node(release, version), nvidia_driver_flavour="proprietary")
    assert stage["modules"] == "precompiled"
    assert stage["packages"] == [package, "nvidia-headless-no-dkms-535-server", "nvidia-utils-535-server"]
    assert {"nvidia-headless-535-server", "nvidia-dkms-535-server"} <= set(stage["obsolete"])
    assert stage["headers"] == []


def test_open_modules_have_names_of_their_own() -> None:
    stage = driver(node("5.15.0-119-generic"), nvidia_driver_flavour="open", gpufleet_hold=True)
    assert stage["hold"][0] == "linux-modules-nvidia-535-server-open-generic"
    assert stage["packages"] == stage["hold"]


def test_dkms_needs_the_headers_that_follow_the_kernel() -> None:
    stage = driver(node("6.8.0-45-generic"), nvidia_driver_modules="dkms", nvidia_driver_flavour="proprietary")
    assert stage["packages"][:2] == ["linux-headers-generic-hwe-22.04", "nvidia-headless-535-server"]
    assert "linux-modules-nvidia-535-server-generic-hwe-22.04" in stage["obsolete"]


@pytest.mark.parametrize(
    ("here", "reason"),
    [
        (node("6.18.44-custom"), "no kernel of Ubuntu's"),
        (node("5.15.0-119-raspi"), "flavour raspi"),
        (node("5.15.0-119-generic", architecture="aarch64"), "aarch64"),
        (facts("a100"), "only Ubuntu's archive"),
    ],
)
def test_the_others_are_built_on_the_node(here: dict[str, Any], reason: str) -> None:
    stage = driver(here)
    assert stage["modules"] == "dkms"
    assert any(reason in why for why in stage["why"]), stage["why"]


def test_a_driver_that_dkms_built_stays_dkmss() -> None:
    here = node("5.15.0-119-generic", driver="535.309.01", loaded="535.309.01", driver_source="distro")
    here["gpu"]["driver"]["dkms"] = {"version": "535.309.01", "state": "installed"}
    assert driver(here, nvidia_driver_version="auto", pytorch_version="2.0.1")["modules"] == "dkms"


def test_modules_that_nobody_built_are_a_conflict_with_a_fix() -> None:
    wanted = {**OWN, "nvidia_driver_modules": "precompiled"}
    plan = resolve(facts("a100"), wanted, catalog.load())
    conflict = plan["conflicts"][0]
    assert conflict["code"] == "GF-DRIVER-PRECOMPILED"
    assert {"nvidia_driver_modules": "auto"} in conflict["fixes"]


@pytest.mark.parametrize(("way", "warned"), [("dkms", True), ("precompiled", False)])
def test_secure_boot_takes_what_ubuntu_signed(way: str, warned: bool) -> None:
    here = node("5.15.0-119-generic", secure_boot=True)
    plan = resolve(here, {**OWN, "nvidia_driver_modules": way}, catalog.load())
    assert ("GF-SECURE-BOOT" in [each["code"] for each in plan["warnings"]]) == warned
