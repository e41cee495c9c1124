"""NVIDIA's installers as a source, and what has to go first where a node's driver is from another one."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, planning
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts

DIGEST = "a" * 64
CATALOG = catalog.load()


def named(version: str, architecture: str = "x86_64") -> dict[str, str]:
    return {
        "nvidia_driver_source": "runfile",
        "nvidia_driver_runfile": f"https://mirror.example.org/NVIDIA-Linux-{architecture}-{version}.run",
        "nvidia_driver_runfile_sha256": DIGEST,
    }


def driver(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    plan = resolve(node, {"pytorch_version": "auto", **wanted}, CATALOG)
    assert plan["ok"], plan["conflicts"]
    return plan["stages"]["nvidia_driver"]


def conflicts(node: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return resolve(node, {"pytorch_version": "auto", **wanted}, CATALOG)["conflicts"]


@pytest.mark.parametrize(
    ("version", "flavour", "module"),
    [
        ("550.163.01", "open", "-m=kernel-open"),
        ("550.163.01", "proprietary", None),
        ("580.178.04", "open", "--kernel-module-type=open"),
        ("580.178.04", "proprietary", "--kernel-module-type=proprietary"),
    ],
)
def test_the_installer_is_told_the_flavour_as_its_branch_knows_it(
    version: str, flavour: str, module: str | None
) -> None:
    stage = driver(facts("a100"), **named(version), nvidia_driver_flavour=flavour)
    installer = stage["installer"]
    assert (stage["source"], stage["version"], stage["flavour"]) == ("runfile", version, flavour)
    assert (installer["version"], installer["sha256"], installer["architecture"]) == (version, DIGEST, "x86_64")
    assert {"--silent", "--no-questions", "--dkms", "--no-opengl-files"} <= set(installer["options"])
    told = [each for each in installer["options"] if each.startswith(("-m", "--kernel-module-type"))]
    assert told == ([module] if module else [])
    assert "--skip-module-load" in installer["optional"]
    # What it builds with comes as packages; nothing of it is held.
    assert stage["packages"] == ["linux-headers-amd64", "dkms", "gcc", "libc6-dev", "make"]


def test_nothing_of_it_can_be_held_and_the_plan_says_so() -> None:
    plan = resolve(facts("a100"), {"pytorch_version": "auto", "gpufleet_hold": True, **named("580.178.04")}, CATALOG)
    assert plan["stages"]["nvidia_driver"]["hold"] == []
    assert "GF-HOLD-RUNFILE" in [each["code"] for each in plan["warnings"]]


@pytest.mark.parametrize(
    ("wanted", "code", "part"),
    [
        ({"nvidia_driver_source": "runfile"}, "GF-WISH-INVALID", "no installer is named"),
        ({**named("580.178.04"), "nvidia_driver_runfile_sha256": "abc"}, "GF-WISH-INVALID", "no SHA-256"),
        ({**named("580.178.04"), "nvidia_driver_runfile": "downloads/NVIDIA.run"}, "GF-WISH-INVALID", "downloads"),
        ({**named("580.178.04"), "nvidia_driver_runfile": "/srv/driver.run"}, "GF-WISH-INVALID", "says no version"),
        ({**named("580.178.04"), "nvidia_driver_version": "570"}, "GF-DRIVER-VERSION", "570"),
        (named("580.178.04", "aarch64"), "GF-DRIVER-SOURCE", "is not for x86_64"),
        ({"cuda_toolkit_runfiles": "/srv/cuda.run"}, "GF-WISH-INVALID", "not a list"),
        ({"cuda_toolkit_runfiles": [{"file": "/srv/cuda.run", "sha256": DIGEST}]}, "GF-WISH-INVALID", "no name of"),
        ({"cuda_toolkit_runfiles": [{"file": "/srv/cuda_12.6.3_560.35.05_linux.run"}]}, "GF-WISH-INVALID", "has"),
    ],
)
def test_a_wish_that_names_no_usable_file_is_refused(wanted: dict[str, Any], code: str, part: str) -> None:
    found = conflicts(facts("a100"), **wanted)
    assert [each["code"] for each in found] == [code]
    assert part in found[0]["message"]


def test_a_file_without_nvidias_name_needs_the_version_in_full() -> None:
    wishes = {**named("580.178.04"), "nvidia_driver_runfile": "/srv/driver.run", "nvidia_driver_version": "580.178.04"}
    assert driver(facts("a100"), **wishes)["installer"]["version"] == "580.178.04"


def there(version: str, source: str | None, **more: Any) -> dict[str, Any]:
    node = facts("a100", driver=version, loaded=version, driver_source=source, flavour="open")
    node["gpu"]["driver"].update(more)
    return node


@pytest.mark.parametrize(
    ("node", "wanted", "replaces"),
    [
        (there("535.309.01", "distro"), named("580.178.04"), ("distro", "535.309.01")),
        (there("580.178.04", "runfile"), {"nvidia_driver_source": "nvidia"}, ("runfile", "580.178.04")),
        (there("535.309.01", "distro"), {"nvidia_driver_source": "nvidia"}, ("distro", "535.309.01")),
        (there("570.211.01", "runfile"), named("580.178.04"), ("runfile", "570.211.01")),
        (
            there("580.178.04", "runfile"),
            {**named("580.178.04"), "nvidia_driver_flavour": "proprietary"},
            ("runfile", "580.178.04"),
        ),
        (there("580.178.04", "runfile"), named("580.178.04"), None),
        (there("580.178.04", "nvidia"), {"nvidia_driver_source": "nvidia", "nvidia_driver_version": "590"}, None),
        (facts("a100"), named("580.178.04"), None),
    ],
)
def test_the_driver_of_another_source_goes_first(node: dict[str, Any], wanted: dict[str, Any], replaces: Any) -> None:
    found = driver(node, **wanted)["replaces"]
    assert (found and (found["source"], found["version"])) == replaces


def test_an_images_driver_is_taken_as_it_is_where_nobody_asks() -> None:
    stage = driver(there("580.178.04", "runfile"))
    assert not stage["wanted"]
    assert "taken as it is" in stage["why"][0]


def broken(source: str | None) -> dict[str, Any]:
    runfile = {"version": "580.178.04", "problems": ["nvidia-uninstall is missing"]}
    node = there("535.309.01" if source == "distro" else "580.178.04", source, runfile=runfile)
    node["gpu"]["driver"]["flavour"] = None
    return node


def test_a_broken_installation_is_replaced_where_asked_and_told_of_where_not() -> None:
    assert driver(broken("runfile"), **named("580.178.04"))["replaces"]["source"] == "runfile"
    assert driver(broken("distro"), nvidia_driver_source="distro")["replaces"]["source"] == "runfile"
    assert driver(broken(None), nvidia_driver_source="distro")["replaces"]["source"] == "runfile"
    plan = resolve(broken("distro"), {"pytorch_version": "2.0.1"}, CATALOG)
    assert "GF-RUNFILE-BROKEN" in [each["code"] for each in plan["warnings"]]
    assert plan["stages"]["nvidia_driver"]["replaces"] is None


def test_what_was_cut_off_goes_where_no_driver_is_there() -> None:
    node = facts("a100")
    node["gpu"]["driver"]["runfile"] = {"version": "580.178.04", "problems": []}
    assert driver(node, pytorch_version="2.0.1")["replaces"] == {
        "source": "runfile",
        "version": "580.178.04",
        "packages": [],
    }
    assert driver(node, **named("580.178.04"))["replaces"] is None  # the installer clears its own half away


def test_what_has_to_go_first_makes_the_stage_needed_and_is_no_other_wish() -> None:
    stage = driver(there("535.309.01", "distro"), **named("580.178.04"))
    planning.stand("nvidia_driver", stage, {"digest": planning.stage_digest(stage), "holds": True, "drift": []})
    assert stage["needed"]
    assert "535.309.01" in stage["because"]
    after = driver(facts("a100"), **named("580.178.04"))
    assert planning.stage_digest({**after, "why": []}) == planning.stage_digest({**stage, "why": []})


def runfiles(*names: str) -> dict[str, Any]:
    return {
        "cuda_toolkit_source": "runfile",
        "cuda_toolkit_runfiles": [{"file": f"/srv/{name}", "sha256": DIGEST} for name in names],
    }


def test_toolkits_come_of_the_installers_that_are_named() -> None:
    names = ("cuda_12.6.3_560.35.05_linux.run", "cuda_13.4.1_linux.run", "cuda_12.6.3_560.35.05_linux_sbsa.run")
    node = there("595.91.07", "runfile")
    plan = resolve(
        node, {"pytorch_version": "auto", "cuda_toolkit_version": ["12.6", "13.4.1"], **runfiles(*names)}, CATALOG
    )
    assert plan["ok"], plan["conflicts"]
    rows = plan["stages"]["cuda_toolkit"]["toolkits"]
    assert [(row["full_version"], row["source"], row["layout"], row["path"]) for row in rows] == [
        ("12.6.3", "runfile", "runfile", "/opt/gpufleet/cuda/12.6"),
        ("13.4.1", "runfile", "runfile", "/opt/gpufleet/cuda/13.4"),
    ]
    assert rows[0]["installer"] == {"url": f"/srv/{names[0]}", "sha256": DIGEST, "version": "12.6.3"}
    assert rows[0]["packages"] == ["g++"]


def test_a_toolkit_without_its_installer_is_not_to_be_had() -> None:
    wanted = {"cuda_toolkit_version": "12.8", **runfiles("cuda_12.6.3_560.35.05_linux.run")}
    assert [each["code"] for each in conflicts(there("580.178.04", "nvidia"), **wanted)] == ["GF-TOOLKIT-UNAVAILABLE"]


def test_debians_toolkit_does_not_bring_a_second_driver_beside_an_installers() -> None:
    plan = resolve(there("580.178.04", "runfile"), {"pytorch_version": "2.0.1"}, CATALOG)
    assert all(row["source"] != "distro" for row in plan["stages"]["cuda_toolkit"]["toolkits"])
