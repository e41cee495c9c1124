"""Environments as they are declared: their own Python, companions, profile and requirements."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, sizes
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

from .factory import facts

INSTALLED = ("3.8", "3.9", "3.13")
PROFILES = catalog.load()["torch"]["profiles"]


def plan(*environments: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    named = [{"name": f"e{number}", **each} for number, each in enumerate(environments)]
    return resolve(facts(extra_pythons=INSTALLED), {**wanted, "pytorch_environments": named}, catalog.load())


def planned(*environments: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    answer = plan(*environments, **wanted)
    assert answer["ok"], answer["conflicts"]
    found: list[dict[str, Any]] = answer["stages"]["pytorch"]["environments"]
    return found


def conflict(*environments: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    answer = plan(*environments, **wanted)
    assert len(answer["conflicts"]) == 1, answer["conflicts"]
    found: dict[str, Any] = answer["conflicts"][0]
    return found


def test_each_environment_has_a_python_of_its_own() -> None:
    first, second, third = planned({}, {"python": "3.8"}, {"python": "auto"}, python_version="3.9")
    assert (first["python"], second["python"], third["python"]) == ("3.9", "3.8", "3.11")
    assert second["interpreter"] == "/usr/local/bin/python3.8"
    stage = plan({"python": "3.8"}, {})["stages"]["python"]
    assert {each["path"] for each in stage["interpreters"]} == {"/usr/local/bin/python3.8", "/usr/bin/python3.11"}


def test_a_python_that_torch_is_not_published_for_is_a_conflict_of_its_environment() -> None:
    found = conflict({}, {"python": "3.13"})
    assert found["code"] == "GF-TORCH-PYTHON"
    assert "for a Python 3.13 of this node" in found["message"]
    assert found["fixes"][0] == {"pytorch_environments": [{"name": "e0"}, {"name": "e1", "python": "auto"}]}


def test_companions_are_those_of_the_release_or_what_is_said() -> None:
    auto, none, other = planned({}, {"torchaudio": "none"}, {"torchvision": "0.15.1", "torchaudio": "auto"})
    assert (auto["torchvision"], auto["torchaudio"]) == ("0.15.2", "2.0.2")
    assert (none["torchvision"], none["torchaudio"]) == ("0.15.2", None)
    assert not [each for each in none["requirements"] if each.startswith("torchaudio")]
    assert "torchvision==0.15.1+cpu" in other["requirements"]
    assert "torchvision==0.15.1" in other["instead"]["requirements"]


@pytest.mark.parametrize("python", ["3.8", "3.11"])
def test_the_profile_brings_versions_that_fit_torch_2_0_and_numpy_1(python: str) -> None:
    (found,) = planned({"profile": "finetune", "python": python, "requirements": ["evaluate"]})
    names = [each.partition("=")[0].partition("<")[0] for each in found["requirements"]]
    assert {"transformers", "accelerate", "datasets", "peft", "tensorboard"} <= set(names)
    assert "numpy<2" in found["requirements"]
    assert "pyarrow<22" in found["requirements"]
    assert found["requirements"][-1] == "evaluate"
    # These were built and trained with.
    assert [each["code"] for each in plan({"profile": "finetune", "python": python})["warnings"]] == []


def test_a_profile_that_nobody_tried_with_this_torch_says_so() -> None:
    warnings = plan({"profile": "finetune", "version": "2.2.2"})["warnings"]
    assert [each["code"] for each in warnings] == ["GF-CATALOG-UNVERIFIED"]
    assert "profile finetune with torch 2.2.2 (requirements)" in warnings[0]["message"]


def test_a_profile_without_versions_for_a_torch_and_python_is_a_conflict_that_can_be_mended() -> None:
    rows = [row for row in PROFILES if row["first_torch"] != "2.0"]
    shorter = {**catalog.load(), "torch": {**catalog.load()["torch"], "profiles": rows}}
    wishes = {"pytorch_environments": [{"name": "llm", "profile": "finetune"}]}
    answer = resolve(facts(extra_pythons=INSTALLED), wishes, shorter)
    assert [each["code"] for each in answer["conflicts"]] == ["GF-TORCH-PROFILE"]
    assert answer["conflicts"][0]["fixes"][0] == {"pytorch_version": "2.1.0"}


def test_the_profile_covers_every_release_with_every_python_it_is_published_for() -> None:
    gaps = [
        (release["version"], python)
        for release in catalog.load()["torch"]["releases"]
        for python in release["pythons"].get("x86_64", [])
        if not any(
            key(row["first_torch"]) <= key(release["version"])
            and (row["last_torch"] is None or key(release["series"]) <= key(row["last_torch"]))
            and key(row["first_python"]) <= key(python)
            and (row["last_python"] is None or key(python) <= key(row["last_python"]))
            for row in PROFILES
        )
    ]
    assert gaps == []


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"python": 3.8}, "python of environment e0"),
        ({"torchaudio": "newest"}, "torchaudio of environment e0"),
        ({"profile": "train"}, "profile of environment e0"),
        ({"requirements": "requirements.txt"}, "no full path"),
        ({"requirements": ["--index-url https://x.example"]}, "is no requirement"),
        ({"requirements": ["./here"]}, "is no requirement"),
        ({"requirements": ["ours @ https://me:secret@x.example/ours.whl"]}, "names an address"),
    ],
)
def test_what_cannot_be_read_is_told(environment: dict[str, Any], told: str) -> None:
    found = conflict(environment)
    assert found["code"] == "GF-WISH-INVALID"
    assert told in found["message"]
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("https://x.example", "not a list"),
        ([{"url": "https://x.example"}], "not url and packages"),
        ([{"url": "x.example", "packages": ["a"]}], "without an address"),
        ([{"url": "https://me:secret@x.example", "packages": []}], "without names"),
        (
            [{"url": "https://x.example", "packages": ["a_b"]}, {"url": "https://y.example", "packages": ["A-b"]}],
            "a-b is",
        ),
    ],
)
def test_site_indexes_that_cannot_be_read_are_told(rows: Any, told: str) -> None:
    found = conflict({}, pytorch_site_indexes=rows)
    assert found["code"] == "GF-WISH-INVALID"
    assert told in found["message"]
    assert "secret" not in str(found)


def test_the_size_of_an_environment_with_more_in_it_is_estimated_from_its_lock() -> None:
    plain, more = planned({}, {"profile": "finetune"})
    assert plain["disk_mib"] > 0
    assert (more["disk_mib"], more["instead"]["disk_mib"]) == (None, None)
    more["lock"] = {"download_bytes": 3 * 2**30}
    assert sizes.environment_part(more) == ("environment e1", 3 * 2**30, 6 * 1024, True)


def test_indexes_of_packages_and_of_builds_are_in_the_plan() -> None:
    (found,) = planned(
        {},
        pytorch_builds_index_url="https://mirror.example/whl/",
        pytorch_site_indexes=[{"url": "https://ours.example/simple", "packages": ["Ours_Core"]}],
    )
    assert found["torch_index_url"] == "https://mirror.example/whl/cpu"
    assert found["indexes"] == {"ours-core": "https://ours.example/simple"}
