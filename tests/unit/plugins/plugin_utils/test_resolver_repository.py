"""NVIDIA's repository, kernel headers, and who a driver from there belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts


def stages(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    plan = resolve(node, {"pytorch_version": "auto", **wanted}, catalog.load())
    assert plan["ok"], plan["conflicts"]
    return dict(plan["stages"])


def test_a_mirror_stands_in_for_nvidias_address() -> None:
    node = facts("b200", distribution="Ubuntu", version="24.04")
    mirrored = stages(
        node,
        nvidia_driver_source="nvidia",
        nvidia_repository_url="https://mirror.example.org/nvidia/",
        cuda_toolkit_version="12.8",
    )
    assert mirrored["nvidia_driver"]["repository"]["url"] == "https://mirror.example.org/nvidia/ubuntu2404/x86_64"
    assert mirrored["cuda_toolkit"]["toolkits"][0]["repository"] == mirrored["nvidia_driver"]["repository"]
    assert stages(node, nvidia_driver_source="nvidia")["nvidia_driver"]["repository"]["url"].startswith(
        "https://developer.download.nvidia.com/"
    )


def test_arm_servers_have_a_directory_of_their_own() -> None:
    node = facts("gh200", distribution="Ubuntu", version="24.04", architecture="aarch64")
    assert stages(node, nvidia_driver_source="nvidia")["nvidia_driver"]["repository"]["url"].endswith(
        "/ubuntu2404/sbsa"
    )


@pytest.mark.parametrize(
    ("distribution", "version", "release", "package"),
    [
        ("Debian", "12", "6.1.0-47-amd64", "linux-headers-amd64"),
        ("Ubuntu", "24.04", "6.8.0-45-generic", "linux-headers-generic"),
        ("Ubuntu", "24.04", "6.8.0-1015-aws", "linux-headers-aws"),
        ("Ubuntu", "24.04", "6.18.7", "linux-headers-generic"),
        ("Rocky", "9.4", "5.14.0-427.13.1.el9_4.x86_64", "kernel-devel=5.14.0-427.13.1.el9_4"),
        ("Rocky", "9.4", "6.18.7", "kernel-devel"),
    ],
)
def test_the_headers_are_those_of_the_nodes_kernel(distribution: str, version: str, release: str, package: str) -> None:
    node = facts("b200", distribution=distribution, version=version)
    node["gpu"]["kernel"]["release"] = release
    assert stages(node, nvidia_driver_source="nvidia")["nvidia_driver"]["packages"][0] == package


def test_a_driver_that_we_installed_from_nvidia_stays_in_care_and_an_images_does_not() -> None:
    bare = facts("b200", distribution="Ubuntu", version="24.04")
    first = stages(bare, nvidia_driver_source="nvidia")["nvidia_driver"]
    assert first["wanted"]
    branch = first["version"]
    installed = facts(
        "b200",
        distribution="Ubuntu",
        version="24.04",
        driver=f"{branch}.10",
        loaded=f"{branch}.10",
        driver_source="nvidia",
        flavour=first["flavour"],
    )
    assert not stages(installed)["nvidia_driver"]["wanted"]
    installed["node"]["managed"] = ["nvidia_driver"]
    again = stages(installed)["nvidia_driver"]
    assert again["wanted"]
    same = ("version", "source", "flavour", "packages", "repository", "pin", "module_stream")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}


def test_hold_and_modulefiles_are_part_of_the_stages() -> None:
    node = facts("a100")
    plain = stages(node, pytorch_version="2.0.1")
    asked = stages(node, pytorch_version="2.0.1", gpufleet_hold=True, gpufleet_environment="modules")
    assert (plain["nvidia_driver"]["hold"], plain["cuda_toolkit"]["hold"]) == ([], [])
    assert "nvidia-kernel-dkms" in asked["nvidia_driver"]["hold"]
    assert "linux-headers-amd64" not in asked["nvidia_driver"]["hold"]
    assert asked["cuda_toolkit"]["hold"] == ["nvidia-cuda-toolkit", "nvidia-cuda-toolkit-gcc"]
    assert not asked["nvidia_driver"]["hold_kernel"]
    assert (plain["cuda_toolkit"]["modulefiles"], plain["cuda_toolkit"]["profile"]) == (None, True)
    assert (asked["cuda_toolkit"]["modulefiles"], asked["cuda_toolkit"]["profile"]) == (
        "/opt/gpufleet/modulefiles",
        False,
    )
    assert asked["cudnn"]["modulefiles"] == "/opt/gpufleet/modulefiles"
    assert (plain["pytorch"]["modulefiles"], asked["pytorch"]["modulefiles"]) == (None, "/opt/gpufleet/modulefiles")


def test_jupyter_gets_its_kernel_in_every_environment() -> None:
    plain, asked = (stages(facts(), pytorch_kernels=kernels, pytorch_keep=3)["pytorch"] for kernels in (False, True))
    assert (plain["kernels"], asked["kernels"], asked["keep"]) == (False, True, 3)
    assert "ipykernel" not in plain["environments"][0]["requirements"]
    assert asked["environments"][0]["requirements"][-1] == "ipykernel"


@pytest.mark.parametrize("wanted", [{"gpufleet_hold": "yes"}, {"nvidia_repository_url": 5}])
def test_wrong_wishes_are_refused(wanted: dict[str, Any]) -> None:
    plan = resolve(facts("a100"), wanted, catalog.load())
    assert [each["code"] for each in plan["conflicts"]] == ["GF-WISH-INVALID"]


def test_the_toolkit_is_proved_for_every_gpu_of_the_node() -> None:
    def architectures(*names: str, **wanted: str) -> list[str]:
        node = facts(*names, distribution="Ubuntu", version="22.04")
        wanted = {"nvidia_driver_source": "nvidia", **wanted}
        return list(stages(node, **wanted)["cuda_toolkit"]["toolkits"][0]["architectures"])

    assert architectures("v100", "a100", cuda_toolkit_version="12.4") == ["7.0", "8.0"]
    # 11.7 knows no 8.9: what it compiles for 8.7 is for Jetson only, so 8.6 it is.
    assert architectures("rtx4090", pytorch_version="2.0.1", cuda_toolkit_version="11.7") == ["8.6"]


def test_an_older_toolkit_of_a_series_is_named_to_the_package_manager() -> None:
    node = facts("a100", distribution="Ubuntu", version="22.04")
    chosen = stages(node, nvidia_driver_source="nvidia", cuda_toolkit_version="12.4.0")["cuda_toolkit"]["toolkits"][0]
    assert chosen["packages"] == ["cuda-toolkit-12-4=12.4.0-1"]


def test_a_toolkit_of_wheels_has_to_be_asked_for_and_needs_no_repository() -> None:
    node = facts("b200", distribution="Amazon", version="2023", driver="590.48.01", loaded="590.48.01")
    chosen = stages(node, cuda_toolkit_source="wheels", cuda_toolkit_version="13.0")["cuda_toolkit"]["toolkits"][0]
    assert chosen["layout"] == "wheels"
    assert chosen["requirement"] == f"cuda-toolkit[all]=={chosen['full_version']}"
    assert (chosen["path"], chosen["packages"], chosen["repository"]) == ("/opt/gpufleet/cuda/13.0", ["gcc-c++"], None)
    assert stages(node, cuda_toolkit_version="13.0")["cuda_toolkit"]["toolkits"][0]["layout"] == "nvidia"


def test_wheels_of_cuda_12_have_no_compiler() -> None:
    node = facts("a100", driver="590.48.01", loaded="590.48.01")
    plan = resolve(node, {"cuda_toolkit_source": "wheels", "cuda_toolkit_version": "12.4"}, catalog.load())
    assert [each["code"] for each in plan["conflicts"]] == ["GF-TOOLKIT-UNAVAILABLE"]


def test_the_packages_of_the_other_drivers_are_obsolete() -> None:
    def driver(branch: str) -> dict[str, Any]:
        return dict(stages(facts("a100", version="13"), nvidia_driver_version=branch)["nvidia_driver"])

    newer, older = driver("550"), driver("535")
    assert {"libcuda1", "nvidia-alternative", "nvidia-kernel-dkms"} <= set(older["obsolete"])
    assert {"libnvidia-tesla-535-cuda1", "nvidia-tesla-535-alternative"} <= set(newer["obsolete"])
    for stage in (newer, older):
        assert not set(stage["obsolete"]) & set(stage["packages"])


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("9.6", {"nvidia_driver_version": "570"}, ("nvidia-driver:570-open", None, None, "nvidia-driver-cuda=570.*")),
        ("8.10", {"nvidia_driver_version": "570", "gpufleet_hold": True},
         ("nvidia-driver:570-open", None, "python3-dnf-plugin-versionlock", "nvidia-driver-cuda=570.*")),
        ("10.1", {"nvidia_driver_version": "580"},
         (None, "580.*", "python3-dnf-plugin-versionlock", "nvidia-driver-cuda=580.*")),
        ("10.1", {"nvidia_driver_version": "580.95.05"},
         (None, "580.95.05", "python3-dnf-plugin-versionlock", "nvidia-driver-cuda=580.95.05")),
    ],
)  # fmt: skip
def test_dnf_is_kept_to_a_branch_by_a_stream_or_by_its_plugin(
    version: str, wanted: dict[str, Any], expected: tuple[str | None, ...]
) -> None:
    stage = stages(facts("a100", distribution="Rocky", version=version), **wanted)["nvidia_driver"]
    assert (stage["module_stream"], stage["versionlock"], stage["pin"], stage["packages"][1]) == expected
    assert all("=" not in name for name in stage["hold"])


def test_the_rhel_familys_own_archive_has_no_driver() -> None:
    wanted = {"pytorch_version": "auto", "nvidia_driver_source": "distro"}
    plan = resolve(facts("a100", distribution="AlmaLinux", version="9.6"), wanted, catalog.load())
    assert [each["code"] for each in plan["conflicts"]] == ["GF-DRIVER-SOURCE"]
    assert {"nvidia_driver_source": "auto"} in plan["conflicts"][0]["fixes"]


def test_with_dnf_a_toolkit_brings_the_compiler_that_nvidia_leaves_out() -> None:
    node = facts("a100", distribution="Rocky", version="9.6")
    toolkit = stages(node, cuda_toolkit_version="12.6", gpufleet_hold=True)["cuda_toolkit"]
    assert toolkit["toolkits"][0]["packages"] == ["cuda-toolkit-12-6", "gcc-c++", "python3-dnf-plugin-versionlock"]
    assert toolkit["hold"] == ["cuda-toolkit-12-6"]
