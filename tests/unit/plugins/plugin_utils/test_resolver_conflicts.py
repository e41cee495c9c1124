"""What can't be: a coded conflict with its reasons, and fixes that were proven by resolving again."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts

ENVIRONMENTS = "pytorch_environments"


def plan(node: Any, **wanted: Any) -> dict[str, Any]:
    return resolve(node, wanted, catalog.load())


def first(node: Any, **wanted: Any) -> dict[str, Any]:
    answer = plan(node, **wanted)
    assert not answer["ok"]
    conflict: dict[str, Any] = answer["conflicts"][0]
    return conflict


@pytest.mark.parametrize(
    ("node", "wanted", "code", "word"),
    [
        (facts(), {"pytorch_version": "2.9.9"}, "GF-TORCH-UNKNOWN", "2.9.1"),
        (facts(), {"pytorch_version": "2.O.1"}, "GF-WISH-INVALID", "2.O.1"),
        (facts(), {"pytorch_version": 2.0}, "GF-WISH-INVALID", "quotes"),
        (facts(), {"cuda_toolkit_version": 11.8}, "GF-WISH-INVALID", "quotes"),
        (facts(), {"pytorch_versoin": "2.0.1"}, "GF-WISH-INVALID", "write pytorch_version"),
        (facts(), {"pytorch_version": ["2.0.1"]}, "GF-WISH-INVALID", "a list"),
        (facts(), {"cuda_toolkit_version": []}, "GF-WISH-INVALID", "an empty list"),
        (facts(), {"cuda_toolkit_version": ["12.4", "auto"]}, "GF-WISH-INVALID", "auto"),
        (facts(), {"pytorch_cuda": "11.8"}, "GF-WISH-INVALID", "cu118"),
        (facts(), {"pytorch_index_url": 3}, "GF-WISH-INVALID", "pytorch_index_url"),
        (facts(), {"gpufleet_prefix": "opt"}, "GF-WISH-INVALID", "full path"),
        (facts(), {"gpufleet_wheelhouse": "nfs"}, "GF-WISH-INVALID", "full path"),
        (facts(), {"gpufleet_wheelhouse": "https://me:secret@web/w"}, "GF-WISH-INVALID", "without a password"),
        (facts(), {"gpufleet_wheelhouse": "index", "gpufleet_offline": True}, "GF-WISH-INVALID", "gpufleet_wheelhouse: auto"),
        (facts(), {"gpufleet_offline": "yes"}, "GF-WISH-INVALID", "true or false"),
        (facts(), {"pytorch_scope": "nfs"}, "GF-WISH-INVALID", "shared"),
        (facts(), {"verify_seed": "x"}, "GF-WISH-INVALID", "whole number"),
        (facts(), {"verify_max_age": -1}, "GF-WISH-INVALID", "hours"),
        (facts(), {"verify_level": "most"}, "GF-WISH-INVALID", "standard"),
        (facts(), {"verify_launcher": "sbatch"}, "GF-WISH-INVALID", "srun"),
        (facts(), {"verify_prometheus_dir": "textfiles"}, "GF-WISH-INVALID", "full path"),
        (facts(), {"verify_user": 0}, "GF-WISH-INVALID", "no text"),
        (facts(), {"verify_busy": "yes"}, "GF-WISH-INVALID", "true or false"),
        (facts(), {"pytorch_keep": 0}, "GF-WISH-INVALID", "whole number"),
        (facts(), {"pytorch_keep": "2"}, "GF-WISH-INVALID", "whole number"),
        (facts(), {"pytorch_kernels": "yes"}, "GF-WISH-INVALID", "true or false"),
        (facts(), {"nvidia_driver_source": "apt"}, "GF-WISH-INVALID", "runfile"),
        (facts(), {"pytorch_cuda": "cu999"}, "GF-TORCH-VARIANT", "cu118"),
        (facts(), {"python_version": "3.7"}, "GF-TORCH-PYTHON", "3.7"),
        (facts(), {"python_provider": "pyenv"}, "GF-WISH-INVALID", "managed"),
        (facts(version="13"), {"python_provider": "distribution"}, "GF-TORCH-PYTHON", "3.13"),
        (facts(), {ENVIRONMENTS: []}, "GF-WISH-INVALID", "list"),
        (facts(), {ENVIRONMENTS: [{"name": "a b"}]}, "GF-WISH-INVALID", "name"),
        (facts(), {ENVIRONMENTS: [{"name": "../x"}]}, "GF-WISH-INVALID", "name"),
        (facts(), {ENVIRONMENTS: [{"name": "a"}, {"name": "a"}]}, "GF-WISH-INVALID", "twice"),
        (facts(), {ENVIRONMENTS: [{"name": "a", "cud": "cpu"}]}, "GF-WISH-INVALID", "cud"),
        (facts(), {ENVIRONMENTS: [{"name": "a", "version": 2.0}]}, "GF-WISH-INVALID", "environment a"),
        (facts(), {ENVIRONMENTS: [{"name": "a", "requirements": "numpy"}]}, "GF-WISH-INVALID", "list of text"),
        (facts(), {"cuda_toolkit_version": "12.1"}, "GF-TOOLKIT-UNAVAILABLE", "11.8"),
        (facts("v100"), {"cuda_toolkit_version": "13.0"}, "GF-TOOLKIT-UNFIT", "7.0"),
        (facts("a100"), {"cudnn_version": "7.6"}, "GF-CUDNN-UNAVAILABLE", "8.9"),
        (facts("v100"), {"cudnn_version": "9.28"}, "GF-CUDNN-UNAVAILABLE", "9.10.2.21"),
        (facts("a100"), {"nvidia_driver_version": "123"}, "GF-DRIVER-VERSION", "535"),
        (facts("v100"), {"nvidia_driver_version": "595"}, "GF-DRIVER-UNSUPPORTED-GPU", "branch 470 to 580"),
        (facts("v100"), {"nvidia_driver_flavour": "open"}, "GF-DRIVER-FLAVOUR", "proprietary"),
        (facts("v100", "b200"), {"pytorch_version": "auto"}, "GF-DRIVER-FLAVOUR", "open kernel modules"),
        (facts("a100", nvswitches=4), {"nvidia_driver_source": "distro"}, "GF-DRIVER-FABRIC", "fabric manager"),
        (facts("a100", distribution="Rocky", version="9.4"), {"nvidia_driver_source": "distro"}, "GF-DRIVER-SOURCE", "none"),
        (facts("h100", driver="470.1", driver_source="runfile"), {}, "GF-DRIVER-FOREIGN", "nvidia-uninstall"),
        (facts("a100", virtualization="wsl"), {}, "GF-DRIVER-HOST", "Windows"),
        (facts(root=False), {}, "GF-RIGHTS", "--ask-become-pass"),
        (facts(writable=False), {}, "GF-PREFIX-READONLY", "gpufleet_prefix"),
        (facts(distribution="Gentoo", version="2"), {}, "GF-DISTRIBUTION", "Debian 12"),
        (facts(architecture="riscv64"), {}, "GF-ARCHITECTURE", "x86_64"),
        (facts(glibc="2.12"), {}, "GF-TORCH-GLIBC", "2.17"),
        (facts(glibc="2.17"), {"pytorch_version": "2.7.0"}, "GF-TORCH-GLIBC", "2.28"),
        (facts("a100", driver="390.157", driver_source="nvidia"), {"nvidia_driver_version": "none"}, "GF-TORCH-NO-BUILD", "450.80.02"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_coded_conflict(node: dict[str, Any], wanted: dict[str, Any], code: str, word: str) -> None:
    conflict = first(node, **wanted)
    assert conflict["code"] == code
    assert conflict["because"]
    assert conflict["fixes"] or conflict["advice"]
    assert word in str(conflict)


@pytest.mark.parametrize(
    ("node", "wanted", "fix"),
    [
        (facts(), {"pytorch_version": "2.9.9"}, {"pytorch_version": "2.10.0"}),
        (facts(), {"pytorch_version": "2.O.1"}, {"pytorch_version": "2.0.1"}),
        (facts(), {"pytorch_version": 2.1}, {"pytorch_version": "2.1"}),
        (facts(), {"pytorch_version": "2.0.1+cu118"}, {"pytorch_version": "2.0.1", "pytorch_cuda": "cu118"}),
        (facts("b200"), {}, {"pytorch_version": "2.7.0"}),
        (facts("a100"), {"pytorch_cuda": "cu999"}, {"pytorch_cuda": "auto"}),
        (facts(version="13"), {"python_provider": "distribution"}, {"python_provider": "auto"}),
        (facts(version="13"), {"python_provider": "installed"}, {"python_provider": "auto"}),
        (facts("rtx5090", distribution="Ubuntu", version="24.04"), {}, {"pytorch_version": "2.7.0"}),
        (facts(), {"python_version": "3.12"}, {"python_version": "auto"}),
        (facts(glibc="2.17"), {"pytorch_version": "2.7.0"}, {"pytorch_version": "2.6.0"}),
        (facts("v100"), {"nvidia_driver_version": "595"}, {"nvidia_driver_version": "580"}),
        (facts("v100"), {"nvidia_driver_flavour": "open"}, {"nvidia_driver_flavour": "auto"}),
        (facts("v100"), {"cuda_toolkit_version": "13.0"}, {"cuda_toolkit_version": "12.9"}),
        (facts("v100"), {"cudnn_version": "9.28"}, {"cudnn_version": "9.10.2.21"}),
        (facts("a100", driver="470.1", driver_source="runfile"), {"pytorch_version": "2.9.0"}, {"pytorch_version": "2.7.1"}),
        (
            facts("b200"),
            {ENVIRONMENTS: [{"name": "a", "version": "auto"}, {"name": "b", "version": "2.1.0"}]},
            {ENVIRONMENTS: [{"name": "a", "version": "auto"}, {"name": "b", "version": "2.7.0"}]},
        ),
    ],
)  # fmt: skip
def test_the_nearest_wish_comes_first(node: dict[str, Any], wanted: dict[str, Any], fix: dict[str, Any]) -> None:
    fixes = first(node, **wanted)["fixes"]
    assert fixes[0] == fix
    assert all(plan(node, **{**wanted, **each})["ok"] for each in fixes)


def test_the_first_torch_that_serves_is_named_and_not_taken() -> None:
    conflict = first(facts("b200"), pytorch_version="2.0.1")
    assert "2.7.0 with CUDA 12.8" in conflict["because"][-1]


def test_two_wishes_in_each_others_way_are_mended_together() -> None:
    conflict = first(facts("b200"), pytorch_version="2.0.1", pytorch_cuda="cu118")
    mended = {"pytorch_version": "2.0.1", "pytorch_cuda": "cu118", **conflict["fixes"][0]}
    assert plan(facts("b200"), **mended)["ok"]


def test_rights_are_beyond_wishes_and_other_fixes_are_still_found() -> None:
    answer = plan(facts("b200", root=False))
    codes = {each["code"]: each for each in answer["conflicts"]}
    assert codes["GF-RIGHTS"]["fixes"] == []
    assert codes["GF-TORCH-NO-BUILD"]["fixes"][0] == {"pytorch_version": "2.7.0"}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        ({"gpu": None}, "gpu is missing"),
        ({"gpu": {"devices": "many"}}, "gpu.devices"),
        ({"gpu": {"devices": [3]}}, "gpu.devices[0]"),
        ({"gpu": {"devices": [{"compute_capability": 8.6}]}}, "compute_capability"),
        ({"gpu": {"driver": {"installed_version": 535}}}, "installed_version"),
        ({"node": {"pythons": [{}]}}, "pythons[0]"),
        ({"node": {"version": 12}}, "node.version"),
    ],
)
def test_facts_of_another_make_are_refused_by_name(spoil: dict[str, Any], word: str) -> None:
    conflict = first({**facts(), **spoil})
    assert conflict["code"] == "GF-FACTS-INVALID"
    assert word in str(conflict["because"])


@pytest.mark.parametrize("nonsense", [None, [], "facts", {}, {"gpu": {}, "node": []}])
def test_facts_that_are_none_are_refused(nonsense: Any) -> None:
    assert first(nonsense)["code"] == "GF-FACTS-INVALID"


def test_the_least_that_facts_can_say_is_enough() -> None:
    node = {"gpu": {"devices": []}, "node": {"distribution": "Debian", "version": "12", "architecture": "x86_64"}}
    answer = plan(node)
    assert answer["ok"]
    assert answer["stages"]["python"]["version"] == "3.11"


def test_a_gpu_of_which_nothing_is_known_is_not_guessed_at() -> None:
    node = facts()
    node["gpu"]["devices"] = [{"pci_id": "10de:ffff", "name": None, "architecture": None, "compute_capability": None}]
    assert first(node)["code"] == "GF-GPU-UNKNOWN"


def test_hostile_names_are_just_text() -> None:
    node = facts("a100")
    node["gpu"]["devices"][0]["name"] = "A100 {{ lookup('pipe', 'id') }} \x1b[31m"
    assert plan(node)["ok"]
