"""cuDNN of NVIDIA's packages across the rename, several by CUDA major, and its headers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, offered
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts


def plan(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    wishes = {"pytorch_version": "auto", "nvidia_driver_source": "nvidia", "cuda_toolkit_source": "nvidia", **wanted}
    found = resolve(node, wishes, catalog.load())
    if found["ok"]:
        offered.check(found, node, wishes)
    return found


def stage(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    found = plan(node, **wanted)
    assert found["ok"], found["conflicts"]
    return dict(found["stages"]["cudnn"])


def ubuntu() -> dict[str, Any]:
    return facts("a100", distribution="Ubuntu", version="22.04")


@pytest.mark.parametrize(
    ("toolkit", "cudnn", "packages"),
    [
        ("11.8", "8.9", ["libcudnn8=8.9.6.50-1+cuda11.8", "libcudnn8-dev=8.9.6.50-1+cuda11.8"]),
        ("12.6", "8.9", ["libcudnn8=8.9.7.29-1+cuda12.2", "libcudnn8-dev=8.9.7.29-1+cuda12.2"]),
        ("12.6", "9.17", ["libcudnn9-cuda-12=9.17.1.4-1", "libcudnn9-dev-cuda-12=9.17.1.4-1"]),
        ("13.0", "9.19", ["libcudnn9-cuda-13=9.19.0.56-1", "libcudnn9-dev-cuda-13=9.19.0.56-1"]),
    ],
)
def test_the_names_on_both_sides_of_the_rename(toolkit: str, cudnn: str, packages: list[str]) -> None:
    found = stage(ubuntu(), cuda_toolkit_version=toolkit, cudnn_version=cudnn, cudnn_source="nvidia")
    only = found["cudnns"][0]
    assert (only["source"], only["packages"], only["requirement"]) == ("nvidia", packages, None)
    assert only["repository"]["name"] == "ubuntu2204"
    assert only["path"] == f"/opt/gpufleet/cudnn/{only['version']}-cuda{only['cuda_major']}"
    assert [f"{each['package']}={each['version']}" for each in found["pin"]] == packages
    assert found["hold"] == []


def test_without_headers_the_development_package_stays_away() -> None:
    wishes = {"cuda_toolkit_version": "12.6", "cudnn_version": "9.17", "cudnn_source": "nvidia", "gpufleet_hold": True}
    found = stage(ubuntu(), cudnn_headers=False, **wishes)
    assert found["cudnns"][0]["packages"] == ["libcudnn9-cuda-12=9.17.1.4-1"]
    assert found["hold"] == ["libcudnn9-cuda-12"]
    assert not found["headers"]


def test_unasked_it_comes_from_wheels() -> None:
    found = stage(ubuntu(), cuda_toolkit_version="12.6", cudnn_version="9.17")
    only = found["cudnns"][0]
    assert (only["source"], only["packages"], only["repository"]) == ("wheels", [], None)
    assert only["requirement"] == "nvidia-cudnn-cu12==9.17.1.4"
    assert (found["pin"], found["headers"]) == ([], True)


def test_every_cuda_of_the_toolkits_gets_one_the_defaults_first() -> None:
    wishes = {"cuda_toolkit_version": ["13.0", "12.6"], "cudnn_version": "9", "nvidia_driver_version": "580"}
    assert [each["cuda_major"] for each in stage(ubuntu(), **wishes)["cudnns"]] == [13, 12]
    # 8 has none for 13, and 13 is the default: that is a conflict.
    found = plan(ubuntu(), **{**wishes, "cudnn_version": "8.9"})
    assert [each["code"] for each in found["conflicts"]] == ["GF-CUDNN-UNAVAILABLE"]


@pytest.mark.parametrize(
    "wishes",
    [
        {"cuda_toolkit_version": ["13.0", "12.6"], "cudnn_version": "9", "nvidia_driver_version": "580"},
        {"cuda_toolkit_version": "12.6", "cudnn_version": ["8.9.2", "8.9.7"]},
    ],
)
def test_two_of_a_series_cannot_be_packages(wishes: dict[str, Any]) -> None:
    found = plan(ubuntu(), cudnn_source="nvidia", **wishes)
    assert [each["code"] for each in found["conflicts"]] == ["GF-CUDNN-SIDE-BY-SIDE"]
    assert {"cudnn_source": "wheels"} in found["conflicts"][0]["fixes"]


def test_8_and_9_stand_side_by_side() -> None:
    found = stage(ubuntu(), cuda_toolkit_version="12.6", cudnn_version=["9.17", "8.9"], cudnn_source="nvidia")
    assert [each["version"] for each in found["cudnns"]] == ["9.17.1.4", "8.9.7.29"]


def test_what_the_repository_does_not_reach_is_not_promised() -> None:
    # The repository for Debian 12 begins with CUDA 12.3: nothing of CUDA 11 is in it.
    found = plan(
        facts("a100"),
        cuda_toolkit_source="distro",
        cuda_toolkit_version="11.8",
        cudnn_version="8.9",
        cudnn_source="nvidia",
    )
    assert [each["code"] for each in found["conflicts"]] == ["GF-CUDNN-UNAVAILABLE"]
    assert {"cudnn_source": "auto"} in found["conflicts"][0]["fixes"]


def test_with_dnf_a_lock_keeps_the_version_whether_a_hold_is_wanted_or_not() -> None:
    node = facts(
        "a100", distribution="Rocky", version="9.4", driver="570.211.01", loaded="570.211.01", driver_source="nvidia"
    )
    found = stage(node, cuda_toolkit_version="12.6", cudnn_version=["9.17", "8.9"], cudnn_source="nvidia")
    assert [each["packages"] for each in found["cudnns"]] == [
        ["libcudnn9-cuda-12=9.17.1.4-1", "libcudnn9-devel-cuda-12=9.17.1.4-1", "python3-dnf-plugin-versionlock"],
        ["libcudnn8=8.9.7.29-1.cuda12.2", "libcudnn8-devel=8.9.7.29-1.cuda12.2", "python3-dnf-plugin-versionlock"],
    ]
    assert found["pin"] == []
    assert found["hold"] == ["libcudnn9-cuda-12", "libcudnn9-devel-cuda-12", "libcudnn8", "libcudnn8-devel"]
    assert found["cudnns"][0]["repository"]["url"].endswith("/rhel9/x86_64")
