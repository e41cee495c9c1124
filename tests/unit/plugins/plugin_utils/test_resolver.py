"""The resolver: what is chosen for which node, and why."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import ROLES, resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import (
    Driver,
    compiles_ptx,
    runs_on,
    serves_cuda,
)

from .factory import device, facts

OWN_CODE = catalog.load()["torch"]["own_code_only"]["devices"]
COMPATIBILITY = catalog.load()["cuda"]["compatibility"]
MAC = {
    "distribution": "MacOSX",
    "version": "14.5",
    "architecture": "arm64",
    "glibc": None,
    "pythons": [{"version": "3.11", "path": "/opt/homebrew/bin/python3.11", "provider": "installed"}],
}


def plan(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    return resolve(node, wanted, catalog.load())


def stages(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    answer = plan(node, **wanted)
    assert answer["ok"], answer["conflicts"]
    chosen: dict[str, Any] = answer["stages"]
    return chosen


def environment(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    first: dict[str, Any] = stages(node, **wanted)["pytorch"]["environments"][0]
    return first


def warnings(node: dict[str, Any], **wanted: Any) -> list[str]:
    return [warning["code"] for warning in plan(node, **wanted)["warnings"]]


def test_a_node_without_a_gpu_gets_a_cpu_build_and_no_nvidia_package() -> None:
    chosen = stages(facts())
    assert tuple(chosen) == ROLES
    assert [role for role in ROLES if chosen[role]["wanted"]] == ["python", "pytorch", "verify"]
    first = chosen["pytorch"]["environments"][0]
    assert first["torch_version"] == "2.0.1+cpu"
    assert (first["torchvision"], first["torchaudio"]) == ("0.15.2", "2.0.2")
    assert first["torch_index_url"].endswith("/cpu")
    assert chosen["verify"]["gpus"] == 0
    assert chosen["verify"]["gpu_checks"] == "skip"


def test_a_cpu_build_names_the_package_indexs_build_that_could_stand_in() -> None:
    instead = environment(facts())["instead"]
    assert (instead["variant"], instead["torch_version"], instead["torch_index_url"]) == ("cu117", "2.0.1+cu117", "")
    assert instead["requirements"][0] == "torch==2.0.1"
    assert environment(facts(), pytorch_cuda="cpu")["instead"] is None
    assert environment(facts("a100"))["instead"] is None
    assert environment(facts("h100"))["instead"] is None


def test_an_a100_gets_driver_toolkit_cudnn_and_torch_from_the_nodes_own_sources() -> None:
    chosen = stages(facts("a100"))
    driver = chosen["nvidia_driver"]
    assert (driver["version"], driver["source"], driver["flavour"]) == ("535", "distro", "proprietary")
    assert driver["packages"][0] == "linux-headers-amd64"
    assert driver["blacklist"] == ["nouveau", "nova_core"]
    assert driver["reboot"] is False
    assert chosen["cuda_toolkit"]["default"] == "11.8"
    assert chosen["cuda_toolkit"]["toolkits"][0]["path"] == "/opt/gpufleet/cuda/11.8"
    assert chosen["cudnn"]["cudnns"][0]["version"].startswith("8.9.")
    assert chosen["cudnn"]["cudnns"][0]["cuda_major"] == 11
    assert environment(facts("a100"))["variant"] == "cu117"
    assert chosen["verify"]["gpus"] == 1
    assert chosen["verify"]["compute_capabilities"] == ["8.0"]
    assert chosen["verify"]["driver_pending"] is True


@pytest.mark.parametrize(
    ("gpus", "version", "torch", "variant", "index"),
    [
        (("v100",), "2.0.1", "2.0.1", "cu117", ""),
        (("h100",), "2.0.1", "2.0.1", "cu118", "/cu118"),
        (("v100", "h100"), "2.0.1", "2.0.1", "cu118", "/cu118"),
        (("rtx4090",), "2.0.1", "2.0.1", "cu117", ""),
        (("v100",), "auto", "2.14.1", "cu126", "/cu126"),
        (("gtx1080",), "auto", "2.14.1", "cu126", "/cu126"),
        (("k80",), "auto", "2.7.1", "cu118", "/cu118"),
        (("a100",), "auto", "2.15.0", "cu132", ""),
        (("b200",), "auto", "2.15.0", "cu132", ""),
        (("b200",), "2.7", "2.7.1", "cu128", "/cu128"),
        (("b300",), "2.8", "2.8.0", "cu128", ""),
        (("a100",), "2.5", "2.5.1", "cu124", ""),
        (("v100", "a100"), "2.12", "2.12.1", "cu126", "/cu126"),
    ],
)
def test_the_build_has_code_for_every_gpu(
    gpus: tuple[str, ...], version: str, torch: str, variant: str, index: str
) -> None:
    chosen = environment(facts(*gpus), pytorch_version=version)
    assert (chosen["torch"], chosen["variant"]) == (torch, variant)
    assert chosen["torch_index_url"].endswith(index)
    assert bool(chosen["torch_index_url"]) is bool(index)


@pytest.mark.parametrize(
    ("gpu", "wanted", "branch", "flavour", "source"),
    [
        ("v100", {}, "535", "proprietary", "distro"),
        ("v100", {"nvidia_driver_source": "nvidia"}, "580", "proprietary", "nvidia"),
        ("a100", {"nvidia_driver_source": "nvidia"}, "580", "open", "nvidia"),
        ("a100", {"nvidia_driver_version": "595"}, "595", "open", "nvidia"),
        (
            "a100",
            {"nvidia_driver_version": "580", "nvidia_driver_flavour": "proprietary"},
            "580",
            "proprietary",
            "nvidia",
        ),
        ("a100", {"nvidia_driver_version": "550.54.15"}, "550.54.15", "proprietary", "nvidia"),
        ("b200", {"pytorch_version": "auto"}, "580", "open", "nvidia"),
        ("k80", {}, "470", "proprietary", "distro"),
    ],
)
def test_the_driver_drives_the_gpu(gpu: str, wanted: dict[str, Any], branch: str, flavour: str, source: str) -> None:
    driver = stages(facts(gpu), **wanted)["nvidia_driver"]
    assert (driver["version"], driver["flavour"], driver["source"]) == (branch, flavour, source)


def test_grace_hopper_needs_open_modules() -> None:
    node = facts("gh200", distribution="Ubuntu", version="22.04", architecture="aarch64")
    driver = stages(node, pytorch_version="auto", nvidia_driver_source="nvidia")["nvidia_driver"]
    assert driver["flavour"] == "open"
    refused = plan(node, pytorch_version="auto", nvidia_driver_flavour="proprietary", nvidia_driver_source="nvidia")
    assert [each["code"] for each in refused["conflicts"]] == ["GF-DRIVER-FLAVOUR"]


def test_nvswitches_bring_the_fabric_manager_of_the_same_branch() -> None:
    driver = stages(facts("h100", nvswitches=4), nvidia_driver_source="nvidia")["nvidia_driver"]
    assert [name for name in driver["packages"] if "fabric" in name]
    assert all("{branch}" not in name for name in driver["packages"])
    assert not [name for name in stages(facts("h100"))["nvidia_driver"]["packages"] if "fabric" in name]


def test_a_driver_that_is_there_is_taken_as_it_is() -> None:
    chosen = stages(facts("h100", driver="550.54.15", loaded="550.54.15", driver_source="nvidia"))
    assert not chosen["nvidia_driver"]["wanted"]
    assert chosen["verify"]["gpus"] == 1
    assert chosen["verify"]["driver_pending"] is False


def test_auto_stays_with_the_driver_that_is_there() -> None:
    node = facts("a100", driver="535.104.05", loaded="535.104.05", driver_source="nvidia")
    chosen = stages(node, pytorch_version="auto")
    assert not chosen["nvidia_driver"]["wanted"]
    assert chosen["pytorch"]["environments"][0]["torch_version"] == "2.14.1+cu126"


def test_a_torch_that_was_asked_for_replaces_a_packaged_driver_that_is_too_old() -> None:
    node = facts("a100", driver="535.104.05", loaded="535.104.05", driver_source="nvidia")
    driver = stages(node, pytorch_version="2.15.0")["nvidia_driver"]
    assert (driver["version"], driver["reboot"]) == ("580", True)


def test_an_admins_driver_limits_the_build() -> None:
    node = facts("a100", driver="470.256.02", loaded="470.256.02", driver_source="nvidia")
    chosen = stages(node, pytorch_version="auto", nvidia_driver_version="none")
    assert not chosen["nvidia_driver"]["wanted"]
    assert chosen["pytorch"]["environments"][0]["torch_version"] == "2.7.1+cu118"


@pytest.mark.parametrize("where", ["wsl", "container"])
def test_no_driver_is_installed_where_it_belongs_to_the_host(where: str) -> None:
    node = facts("a100", virtualization=where, driver="550.54.15", loaded="550.54.15", driver_source="windows")
    assert not stages(node)["nvidia_driver"]["wanted"]


def test_a_windows_driver_is_judged_by_its_cuda_and_not_by_its_number() -> None:
    node = facts(
        "l4", virtualization="wsl", driver="551.61", loaded="551.61", driver_source="windows", driver_cuda="12.4"
    )
    assert environment(node, pytorch_version="auto")["cuda"].startswith("12.")


def test_a_jetson_is_told_that_the_index_has_no_build_for_it() -> None:
    node = facts(architecture="aarch64", distribution="Ubuntu", version="22.04", driver="540.4.0", loaded="540.4.0")
    orin = {"name": "Orin", "architecture": "Ampere", "compute_capability": "8.7", "pci_id": None}
    node["gpu"]["devices"] = [orin]
    node["gpu"]["tegra"] = {"model": "Jetson AGX Orin", "soc": "tegra234", "l4t_version": "36.4.0"}
    refused = plan(node, pytorch_version="auto")
    assert [each["code"] for each in refused["conflicts"]] == ["GF-TORCH-NO-BUILD"]
    assert "8.7" in str(refused["conflicts"][0]["because"])


def test_no_driver_wanted_and_none_there_is_a_warning_and_a_cpu_plan() -> None:
    assert warnings(facts("a100"), nvidia_driver_version="none") == ["GF-DRIVER-NONE"]
    chosen = stages(facts("a100"), nvidia_driver_version="none")
    assert chosen["verify"]["gpus"] == 0
    assert chosen["pytorch"]["environments"][0]["variant"] == "cpu"


def test_a_competitor_means_a_reboot() -> None:
    assert stages(facts("a100", competitor="nouveau"))["nvidia_driver"]["reboot"] is True


def test_a_gpu_of_a_guest_is_not_counted() -> None:
    node = facts("a100", "b200")
    node["gpu"]["devices"][1]["passthrough"] = True
    assert warnings(node) == ["GF-GPU-PASSTHROUGH"]
    assert stages(node)["verify"]["compute_capabilities"] == ["8.0"]


def test_a_fabric_manager_of_another_version_is_said() -> None:
    node = facts("h100", nvswitches=4, driver="550.54.15", loaded="550.54.15", driver_source="nvidia")
    node["gpu"]["fabric"].update(manager_version="550.54.14", manager_matches=False)
    assert "GF-FABRIC-MANAGER" in warnings(node)
    node["gpu"]["fabric"].update(manager_version="550.54.15", manager_matches=True)
    assert "GF-FABRIC-MANAGER" not in warnings(node)


def test_with_mig_on_a_process_sees_one_instance() -> None:
    node = facts("a100", "a100", driver="550.54.15", loaded="550.54.15", driver_source="nvidia")
    node["gpu"]["devices"][0]["mig"] = {"enabled": True, "instances": [{"uuid": "MIG-1"}, {"uuid": "MIG-2"}]}
    assert stages(node)["verify"]["gpus"] == 1
    empty = {**node, "gpu": {**node["gpu"], "devices": [device("a100", mig={"enabled": True, "instances": []})]}}
    assert "GF-MIG-EMPTY" in warnings(empty)
    assert stages(empty)["verify"]["gpus"] == 0


def test_secure_boot_is_said_before_a_driver_is_installed() -> None:
    assert "GF-SECURE-BOOT" in warnings(facts("a100", secure_boot=True))
    assert "GF-SECURE-BOOT" not in warnings(facts(secure_boot=True))


def test_a_recorded_node_skips_the_gpu_checks_and_says_so() -> None:
    verify = stages(facts("a100"), gpufleet_gpu_sysroot="/opt/recorded/a100")["verify"]
    assert verify["gpu_checks"] == "skip"
    assert "/opt/recorded/a100" in verify["gpu_skip_reason"]
    assert verify["gpus"] == 1


def test_the_distributions_other_pythons_come_before_a_refusal() -> None:
    assert stages(facts(distribution="Rocky", version="9.4"), pytorch_version="2.9.0")["python"]["version"] == "3.11"
    chosen = stages(facts(version="13", extra_pythons=("3.10",)))["python"]
    assert (chosen["provider"], chosen["interpreter"]) == ("installed", "/usr/local/bin/python3.10")
    assert chosen["packages"] == []


def test_an_explicit_python_wins_over_the_distributions() -> None:
    chosen = stages(facts(extra_pythons=("3.8",)), python_version="3.8")["python"]
    assert chosen["interpreter"] == "/usr/local/bin/python3.8"


def test_environments_of_their_own_share_one_driver() -> None:
    wish = [{"name": "old"}, {"name": "new", "version": "auto"}, {"name": "series", "version": "2.5", "cuda": "cu121"}]
    chosen = stages(facts("h100"), pytorch_environments=wish)
    got = {each["name"]: each["torch_version"] for each in chosen["pytorch"]["environments"]}
    assert got == {"old": "2.0.1+cu118", "new": "2.15.0+cu132", "series": "2.5.1+cu121"}
    assert chosen["nvidia_driver"]["version"] == "580"


def test_several_toolkits_and_cudnns_stand_side_by_side() -> None:
    chosen = stages(facts("a100"), cuda_toolkit_version=["12.4", "12.6"], cudnn_version=["9.1", "9.10"])
    assert [each["version"] for each in chosen["cuda_toolkit"]["toolkits"]] == ["12.4", "12.6"]
    assert chosen["cuda_toolkit"]["default"] == "12.4"
    assert [each["version"] for each in chosen["cudnn"]["cudnns"]] == ["9.1.0.70", "9.10.2.21"]
    assert {each["cuda_major"] for each in chosen["cudnn"]["cudnns"]} == {12}


def test_a_toolkit_is_torchs_cuda_where_it_is_to_be_had() -> None:
    assert stages(facts("a100", distribution="Ubuntu", version="22.04"))["cuda_toolkit"]["default"] == "11.7"


def test_a_compiler_too_new_for_nvcc_is_said() -> None:
    fedora = facts("a100", distribution="Fedora", version="44")
    assert "GF-TOOLKIT-GCC" in warnings(fedora, pytorch_version="auto", cuda_toolkit_version="13.3")
    assert "GF-TOOLKIT-GCC" not in warnings(facts("a100"), pytorch_version="auto", cuda_toolkit_version="12.9")


def test_old_torch_is_bound_to_numpy_1() -> None:
    assert "numpy<2" in environment(facts(), pytorch_version="2.2.2")["requirements"]
    assert "numpy" in environment(facts(), pytorch_version="2.6.0")["requirements"]


def test_no_torchaudio_is_known_for_the_newest_torch() -> None:
    newest = environment(facts(), pytorch_version="2.15.0")
    assert newest["torchaudio"] is None
    assert not [each for each in newest["requirements"] if each.startswith("torchaudio")]


def test_arm_takes_the_cpu_build_of_the_package_index() -> None:
    first = environment(facts(architecture="aarch64"))
    assert (first["variant"], first["torch_version"], first["cuda"]) == ("cpu", "2.0.1", None)
    assert first["torch_index_url"] == ""


def test_no_cudnn_wheel_for_arm_is_a_note_and_no_conflict() -> None:
    node = facts("gh200", architecture="aarch64", driver="550.54.15", loaded="550.54.15", driver_source="nvidia")
    assert "GF-CUDNN-SKIPPED" in warnings(node, pytorch_version="2.4.0", cuda_toolkit_version="11.8")


def test_a_row_that_nobody_verified_is_named() -> None:
    answer = plan(facts("a100", distribution="Ubuntu", version="22.04"))
    assert "GF-CATALOG-UNVERIFIED" in [each["code"] for each in answer["warnings"]]
    assert "packages" in str(answer["warnings"])
    assert "GF-CATALOG-UNVERIFIED" not in warnings(facts("a100"))


def test_a_mac_uses_metal_and_an_old_mac_its_last_torch() -> None:
    node = {**facts(), "node": MAC}
    assert environment(node, pytorch_version="auto")["variant"] == "mps"
    assert (
        environment({**facts(), "node": {**MAC, "architecture": "x86_64"}}, pytorch_version="auto")["torch"] == "2.2.2"
    )
    older = {**facts(), "node": {**MAC, "version": "13.6"}}
    refused = plan(older, pytorch_version="2.15.0")
    assert {each["code"] for each in refused["conflicts"]} & {"GF-TORCH-PLATFORM", "GF-DISTRIBUTION"}


def test_resolving_changes_neither_facts_nor_catalog() -> None:
    node, rows = facts("a100"), catalog.load()
    before = copy.deepcopy((node, rows))
    resolve(node, {"pytorch_version": "2.9.9"}, rows)
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
    assert runs_on(compiled, capability, OWN_CODE) is answer


@pytest.mark.parametrize(
    ("driver", "cuda", "answer"),
    [
        (Driver("470.256.02", "11.4"), "11.8", True),
        (Driver("470.256.02", "11.4"), "12.1", False),
        (Driver("525.60.13", "12.0"), "12.8", True),
        (Driver("525.53", None), "12.1", False),
        (Driver("525", None), "12.8", True),
        (Driver("570.86", "12.8"), "13.0", False),
        (Driver("580", "13.0"), "13.2", True),
        (Driver("546.12", "12.3", windows=True), "12.8", True),
        (Driver("546.12", "12.3", windows=True), "13.0", False),
        (Driver("452.39", None, windows=True), "11.8", True),
        (Driver("452.38", None, windows=True), "11.8", False),
    ],
)
def test_a_driver_serves_any_minor_version_of_its_major(driver: Driver, cuda: str, answer: bool) -> None:
    assert serves_cuda(driver, cuda, COMPATIBILITY) is answer


def test_ptx_needs_a_driver_that_knows_the_cuda_that_wrote_it() -> None:
    build = {"ptx": "12.0", "cuda": "12.9.1"}
    assert compiles_ptx(Driver("575.57", "12.9"), build, "13.0") is True
    assert compiles_ptx(Driver("570.86", "12.8"), build, "13.0") is False
    assert compiles_ptx(Driver("575.57", "12.9"), build, "10.0") is False
    assert compiles_ptx(Driver("575.57", "12.9"), {**build, "ptx": None}, "13.0") is False
