"""The resolver: what is chosen for which node, and which conflict names what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import ROLES, resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.torch import runs_on

from .factory import facts


def plan(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    return resolve(node, wanted, catalog.load())


def codes(answer: dict[str, Any]) -> list[str]:
    return [conflict["code"] for conflict in answer["conflicts"]]


def test_a_node_without_a_gpu_gets_torch_and_no_nvidia_package() -> None:
    answer = plan(facts())
    assert answer["ok"]
    stages = answer["stages"]
    assert tuple(stages) == ROLES
    assert [role for role in ROLES if stages[role]["wanted"]] == ["python", "pytorch", "verify"]
    environment = stages["pytorch"]["environments"][0]
    assert environment["torch_version"] == "2.0.1+cu117"
    assert (environment["torchvision"], environment["torchaudio"]) == ("0.15.2", "2.0.2")
    assert environment["torch_index_url"] == ""
    assert stages["verify"]["gpus"] == 0
    assert stages["verify"]["gpu_checks"] == "skip"


def test_an_a100_gets_driver_toolkit_cudnn_and_torch_from_the_nodes_own_sources() -> None:
    stages = plan(facts("a100"))["stages"]
    assert stages["nvidia_driver"]["version"] == "535"
    assert stages["nvidia_driver"]["flavour"] == "proprietary"
    assert stages["nvidia_driver"]["packages"][0] == "linux-headers-amd64"
    assert stages["nvidia_driver"]["blacklist"] == ["nouveau", "nova_core"]
    assert stages["cuda_toolkit"]["default"] == "11.8"
    assert stages["cuda_toolkit"]["toolkits"][0]["path"] == "/opt/gpufleet/cuda/11.8"
    assert stages["cudnn"]["cudnns"][0]["version"].startswith("8.9.")
    assert stages["cudnn"]["cudnns"][0]["cuda_major"] == 11
    assert stages["pytorch"]["environments"][0]["variant"] == "cu117"
    assert stages["verify"]["gpus"] == 1
    assert stages["verify"]["compute_capabilities"] == ["8.0"]
    assert stages["verify"]["driver_pending"] is True


def test_an_h100_gets_the_build_that_has_code_for_it() -> None:
    environment = plan(facts("h100"))["stages"]["pytorch"]["environments"][0]
    assert environment["variant"] == "cu118"
    assert environment["requirements"][0] == "torch==2.0.1+cu118"
    assert environment["torch_index_url"].endswith("/cu118")


def test_a_mixed_node_needs_one_build_for_all_its_gpus() -> None:
    environment = plan(facts("v100", "h100"))["stages"]["pytorch"]["environments"][0]
    assert environment["variant"] == "cu118"


def test_a_gpu_that_the_branch_does_not_drive_is_a_conflict_with_its_source() -> None:
    answer = plan(facts("b200"))
    assert "GF-DRIVER-UNSUPPORTED-GPU" in codes(answer)
    assert not answer["ok"]
    assert "NVIDIA" in " ".join(answer["conflicts"][0]["because"])
    assert "GF-DRIVER-UNSUPPORTED-GPU" in codes(plan(facts("k80")))


def test_a_driver_that_is_there_is_taken_as_it_is() -> None:
    stages = plan(facts("h100", driver="550.54.15", loaded="550.54.15", driver_source="nvidia"))["stages"]
    assert not stages["nvidia_driver"]["wanted"]
    assert stages["verify"]["gpus"] == 1
    assert stages["verify"]["driver_pending"] is False


def test_a_driver_too_old_for_the_build_is_a_conflict() -> None:
    answer = plan(facts("a100", driver="390.157", loaded="390.157", driver_source="runfile"))
    assert codes(answer) == ["GF-TORCH-NO-BUILD"]
    assert "450.80.02" in answer["conflicts"][0]["because"][0]


@pytest.mark.parametrize("where", ["wsl", "container"])
def test_no_driver_is_installed_where_it_belongs_to_the_host(where: str) -> None:
    assert not plan(facts("a100", virtualization=where))["stages"]["nvidia_driver"]["wanted"]


def test_no_driver_wanted_and_none_there_is_a_warning_and_a_cpu_plan() -> None:
    answer = plan(facts("a100"), nvidia_driver_version="none")
    assert answer["ok"]
    assert [warning["code"] for warning in answer["warnings"]] == ["GF-DRIVER-NONE"]
    assert answer["stages"]["verify"]["gpus"] == 0


def test_a_recorded_node_skips_the_gpu_checks_and_says_so() -> None:
    verify = plan(facts("a100"), gpufleet_gpu_sysroot="/opt/recorded/a100")["stages"]["verify"]
    assert verify["gpu_checks"] == "skip"
    assert "/opt/recorded/a100" in verify["gpu_skip_reason"]
    assert verify["gpus"] == 1


def test_debian_13_needs_another_python_and_says_which() -> None:
    answer = plan(facts(version="13"))
    assert codes(answer) == ["GF-TORCH-PYTHON"]
    assert "3.11" in answer["conflicts"][0]["fixes"][0]
    stages = plan(facts(version="13", extra_pythons=("3.10",)))["stages"]
    assert stages["python"]["provider"] == "installed"
    assert stages["python"]["interpreter"] == "/usr/local/bin/python3.10"
    assert stages["python"]["packages"] == []


def test_debian_13_with_a_gpu_has_no_toolkit_of_torchs_major() -> None:
    answer = plan(facts("a100", version="13", extra_pythons=("3.10",)))
    assert answer["ok"]
    assert not answer["stages"]["cuda_toolkit"]["wanted"]
    assert not answer["stages"]["cudnn"]["wanted"]
    assert "GF-TOOLKIT-SKIPPED" in [warning["code"] for warning in answer["warnings"]]


def test_debian_11_takes_its_own_python() -> None:
    stages = plan(facts("a100", version="11"))["stages"]
    assert stages["python"]["version"] == "3.9"
    assert stages["nvidia_driver"]["components"] == ["contrib", "non-free"]
    assert stages["cuda_toolkit"]["default"] == "11.2"


def test_an_explicit_python_wins_over_the_distributions() -> None:
    stages = plan(facts(extra_pythons=("3.8",)), python_version="3.8")["stages"]
    assert stages["python"]["interpreter"] == "/usr/local/bin/python3.8"


def test_arm_takes_the_cpu_build_of_the_package_index() -> None:
    environment = plan(facts(architecture="aarch64"))["stages"]["pytorch"]["environments"][0]
    assert environment["variant"] == "cpu"
    assert environment["torch_version"] == "2.0.1"
    assert environment["cuda"] is None


def test_no_cudnn_wheel_for_arm_is_a_note_and_no_conflict() -> None:
    answer = plan(
        facts("a100", architecture="aarch64", driver="535.1", loaded="535.1", driver_source="nvidia"),
        pytorch_cuda="cpu",
    )
    assert answer["ok"]
    assert "GF-CUDNN-SKIPPED" in [warning["code"] for warning in answer["warnings"]]


@pytest.mark.parametrize(
    ("node", "wanted", "code", "word"),
    [
        (facts(), {"pytorch_version": "2.9.9"}, "GF-TORCH-UNKNOWN", "2.0.1"),
        (facts(), {"pytorch_version": "2.O.1"}, "GF-WISH-INVALID", "2.O.1"),
        (facts(), {"pytorch_version": 2.0}, "GF-WISH-INVALID", "quotes"),
        (facts(), {"cuda_toolkit_version": 11.8}, "GF-WISH-INVALID", "quotes"),
        (facts(), {"pytorch_versoin": "2.0.1"}, "GF-WISH-INVALID", "pytorch_versoin"),
        (facts(), {"pytorch_cuda": "cu999"}, "GF-TORCH-VARIANT", "cu118"),
        (facts(), {"python_version": "3.7"}, "GF-TORCH-PYTHON", "3.7"),
        (facts(), {"pytorch_environments": []}, "GF-WISH-INVALID", "list"),
        (facts(), {"pytorch_environments": [{"name": "a b"}]}, "GF-WISH-INVALID", "name"),
        (facts(), {"pytorch_environments": [{"name": "a"}, {"name": "a"}]}, "GF-WISH-INVALID", "twice"),
        (facts(), {"pytorch_environments": [{"name": "a", "cud": "cpu"}]}, "GF-WISH-INVALID", "cud"),
        (facts(), {"cuda_toolkit_version": "12.1"}, "GF-TOOLKIT-UNAVAILABLE", "11.8"),
        (facts("a100"), {"cudnn_version": "7.6"}, "GF-CUDNN-UNAVAILABLE", "8.9"),
        (facts("a100"), {"nvidia_driver_version": "580"}, "GF-DRIVER-VERSION", "535"),
        (facts("v100"), {"nvidia_driver_flavour": "open"}, "GF-DRIVER-FLAVOUR", "proprietary"),
        (facts(root=False), {}, "GF-RIGHTS", "--ask-become-pass"),
        (facts(writable=False), {}, "GF-PREFIX-READONLY", "gpufleet_prefix"),
        (facts(distribution="Gentoo", version="2"), {}, "GF-DISTRIBUTION", "Debian 12"),
        (facts(architecture="riscv64"), {}, "GF-ARCHITECTURE", "x86_64"),
        (facts("a100", distribution="Gentoo", version="2"), {}, "GF-DRIVER-SOURCE", "nvidia_driver_version: none"),
        (facts(glibc="2.12"), {}, "GF-TORCH-GLIBC", "2.17"),
    ],
)
def test_what_cannot_be_is_a_coded_conflict(node: dict[str, Any], wanted: dict[str, Any], code: str, word: str) -> None:
    answer = plan(node, **wanted)
    assert not answer["ok"]
    assert code in codes(answer)
    conflict = next(each for each in answer["conflicts"] if each["code"] == code)
    assert conflict["because"]
    assert conflict["fixes"]
    assert word in str(conflict)


def test_resolving_changes_neither_facts_nor_catalog() -> None:
    node, rows = facts("a100"), catalog.load()
    before = copy.deepcopy((node, rows))
    assert resolve(node, {}, rows) == resolve(node, {}, rows)
    assert (node, rows) == before


@pytest.mark.parametrize(
    ("compiled", "capability", "answer"),
    [
        (["8.0", "8.6"], "8.9", True),
        (["8.0", "8.6"], "9.0", False),
        (["8.0", "8.6"], "8.7", False),
        (["6.0"], "6.1", True),
        (["6.0"], "6.2", False),
        (["10.0"], "10.3", True),
        (["9.0"], "10.0", False),
        (["8.6"], "8.0", False),
    ],
)
def test_code_runs_within_its_major_version_only(compiled: list[str], capability: str, answer: bool) -> None:
    assert runs_on(compiled, capability, catalog.load()["torch"]) is answer
