"""From a probe to a plan: which stages are needed, where an environment lies, whether it fits on the disk."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import fleet_locks, locks, planning, run_tags
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import ROLES

from .factory import facts

WHEEL = {"name": "nvidia-cudnn-cu11", "version": "8.9", "url": "https://index.example/w.whl", "sha256": "ab", "size": 7}


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for the package index: every lock is made of what was asked for."""
    asked: list[list[str]] = []

    def make(wish: locks.Wish, *_: Any, **__: Any) -> locks.Lock:
        asked.append(wish.requirements)
        text = str(wish.requirements)
        return locks.Lock(path="x", text=text, sha256="0" * 64, download_bytes=10, wheels=[WHEEL])

    monkeypatch.setattr(locks, "make", make)
    monkeypatch.setattr(locks, "uv_version", lambda: "1")
    monkeypatch.setattr(fleet_locks, "answers", lambda _url: True)
    monkeypatch.setattr(locks, "uv_tool", lambda _lock: {"version": "1", "url": "u", "sha256": "s", "size": 1})
    return asked


def probe(*gpus: str, **node: Any) -> dict[str, Any]:
    return {**facts(*gpus, **node), "receipts": {}, "verdict": None}


def plan(seen: dict[str, Any], tmp_path: Path, **wanted: Any) -> dict[str, Any]:
    run = fleet_locks.RunLocks(str(tmp_path), write=True)
    return planning.make_plan(copy.deepcopy(seen), wanted, run)


def with_receipts(seen: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The probe of the same node after every wanted stage left its receipt."""
    receipts = {
        role: {"digest": stage["digest"], "holds": True, "drift": []}
        for role, stage in made["stages"].items()
        if stage["wanted"]
    }
    return {**seen, "receipts": receipts}


def needed(made: dict[str, Any]) -> list[str]:
    return [role for role, stage in made["stages"].items() if stage["needed"]]


def test_a_bare_node_needs_every_stage_that_it_wants(tmp_path: Path) -> None:
    assert needed(plan(probe(), tmp_path)) == ["python", "pytorch", "verify"]
    assert needed(plan(probe("a100"), tmp_path)) == list(ROLES)


def test_a_node_whose_receipts_hold_needs_nothing(tmp_path: Path) -> None:
    seen = probe("a100")
    made = plan(with_receipts(seen, plan(seen, tmp_path)), tmp_path)
    assert needed(made) == []
    assert made["stages"]["pytorch"]["because"] == "its receipt holds"


def test_drift_brings_back_the_stage_and_the_proof_of_the_node(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    seen["receipts"]["cuda_toolkit"].update(holds=False, drift=["link /usr/local/cuda is gone"])
    made = plan(seen, tmp_path)
    assert needed(made) == ["cuda_toolkit", "verify"]
    assert made["stages"]["cuda_toolkit"]["because"] == "link /usr/local/cuda is gone"
    assert made["stages"]["verify"]["because"] == "changed before it: cuda_toolkit"


def test_another_wish_brings_back_the_stages_that_it_changes(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    assert needed(plan(seen, tmp_path, gpufleet_environment="none")) == ["cuda_toolkit", "cudnn", "pytorch", "verify"]
    assert needed(plan(seen, tmp_path, verify_seed=7)) == ["verify"]


RULE = {"name": "r", "expression": "verdict.ok && !(node.managed)"}


def test_a_rule_brings_no_stage_back_and_is_in_the_plan_as_it_will_be_asked(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    made = plan(seen, tmp_path, verify_rules=[RULE], verify_outliers="fail")
    assert needed(made) == []
    assert made["judging"] == {
        "rules": [{**RULE, "severity": "error", "advice": ""}],
        "outliers": "fail",
        "look_again": False,
    }


@pytest.mark.parametrize(("asked", "again"), [([RULE], True), ([], False)])
def test_a_node_that_changes_is_looked_at_again_where_rules_are_asked(
    tmp_path: Path, asked: list[Any], again: bool
) -> None:
    assert plan(probe(), tmp_path, verify_rules=asked)["judging"]["look_again"] is again
    seen = with_receipts(probe(), plan(probe(), tmp_path))
    assert plan(seen, tmp_path, verify_rules=asked, verify_seed=7)["judging"]["look_again"] is False


def test_a_rule_that_cannot_be_meant_is_a_conflict(tmp_path: Path) -> None:
    made = plan(probe(), tmp_path, verify_rules=[{**RULE, "expression": "gpu.devcies[]"}])
    assert made["ok"] is False
    assert [conflict["code"] for conflict in made["conflicts"]] == ["GF-RULE-NOT-BOOLEAN"]
    assert made["judging"]["rules"] == []


def test_a_driver_that_got_loaded_is_no_other_plan(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    seen["gpu"]["driver"] = {"installed_version": "535.1", "loaded_version": "535.1", "source": "distro"}
    assert needed(plan(seen, tmp_path)) == []


def test_an_environment_lies_where_its_lock_and_interpreter_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(**node: Any) -> str:
        return str(plan(probe(**node), tmp_path)["stages"]["pytorch"]["environments"][0]["path"])

    first = path()
    assert first.startswith("/opt/gpufleet/envs/default/2.0.1-cpu-py311-")
    assert path() == first
    monkeypatch.setattr(locks, "make", lambda *_, **__: locks.Lock("x", "t", "1" * 64, 10, [WHEEL]))
    assert path() != first


def test_the_wheel_of_cudnn_comes_from_its_lock(tmp_path: Path, index: list[list[str]]) -> None:
    made = plan(probe("a100"), tmp_path)
    assert made["stages"]["cudnn"]["cudnns"][0]["wheel"] == WHEEL
    assert index[-1][0].startswith("nvidia-cudnn-cu11==8.9.")


def test_too_little_space_is_known_before_anything_is_downloaded(tmp_path: Path) -> None:
    made = plan(probe(free_mib=100), tmp_path)
    assert made["ok"] is False
    assert [conflict["code"] for conflict in made["conflicts"]] == ["GF-DISK-SPACE"]
    assert "100 MiB" in made["conflicts"][0]["message"]


def test_an_environment_that_is_there_needs_no_space(tmp_path: Path) -> None:
    seen = probe(free_mib=100)
    path = plan(probe(), tmp_path)["stages"]["pytorch"]["environments"][0]["path"]
    seen["cuda"]["torch"] = [{"path": path}]
    assert plan(seen, tmp_path)["ok"] is True


def test_an_index_that_does_not_answer_is_a_conflict_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise GpufleetError("GF-INDEX-UNREACHABLE", "no answer", "it is down", "try again")

    monkeypatch.setattr(locks, "make", dead)
    made = plan(probe(), tmp_path)
    assert made["ok"] is False
    assert made["conflicts"] == [
        {
            "code": "GF-INDEX-UNREACHABLE",
            "message": "no answer",
            "because": ["it is down"],
            "fixes": [],
            "advice": ["try again"],
        }
    ]


def test_a_size_that_the_catalog_corrects_and_a_reboot_are_no_other_plan() -> None:
    stage = {"packages": ["a"], "disk_mib": 5, "reboot": True, "environments": [{"name": "x", "disk_mib": 1}]}
    other = {"packages": ["a"], "disk_mib": 6, "reboot": False, "environments": [{"name": "x", "disk_mib": None}]}
    assert planning.stage_digest(stage) == planning.stage_digest(other)
    assert planning.stage_digest(stage) != planning.stage_digest({**stage, "packages": ["b"]})


def test_an_overlay_of_the_catalog_that_cannot_be_read_is_a_conflict(tmp_path: Path) -> None:
    made = plan(probe(), tmp_path, gpufleet_catalog_overlay=str(tmp_path / "nowhere.yml"))
    assert [conflict["code"] for conflict in made["conflicts"]] == ["GF-CATALOG-OVERLAY"]
    assert made["stages"] == {}


def test_locks_lie_where_they_are_wanted_or_beside_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert planning.lock_directory("/srv/locks", str(tmp_path)) == "/srv/locks"
    assert planning.lock_directory("", str(tmp_path)) == f"{tmp_path}/locks"
    assert planning.lock_directory("", "None") == "/locks"
    assert planning.lock_directory("", None) == "/locks"


def test_what_the_tags_leave_out_asks_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any, **__: Any) -> None:
        pytest.fail("the index was asked")

    seen = probe("a100", free_mib=100)
    whole = plan(probe("a100"), tmp_path / "locks")
    for name in ("make", "uv_tool"):
        monkeypatch.setattr(locks, name, dead)
    monkeypatch.setattr(fleet_locks, "answers", dead)
    run = fleet_locks.RunLocks(str(tmp_path / "none"), write=True)
    out = run_tags.left_out(["nvidia_driver"], [])
    made = planning.make_plan(copy.deepcopy(seen), {}, run, left_out=out)
    assert (made["ok"], needed(made)) == (True, ["nvidia_driver"])
    assert made["stages"]["nvidia_driver"]["digest"] == whole["stages"]["nvidia_driver"]["digest"]
    assert made["stages"]["pytorch"]["because"] == "this run's tags leave it out"
    assert made["warnings"] == whole["warnings"]


@pytest.mark.parametrize(
    ("run", "skip", "carried"),
    [
        (["all"], [], set(ROLES)),
        (None, None, set(ROLES)),
        (["nvidia_driver", "always"], [], {"nvidia_driver"}),
        (["nvidia_driver", "mine"], [], set(ROLES)),
        (["all"], ["pytorch", "mine"], set(ROLES) - {"pytorch"}),
        (["python", "pytorch"], ["pytorch"], {"python"}),
    ],
)
def test_which_stages_the_tags_leave_in(run: list[str] | None, skip: list[str] | None, carried: set[str]) -> None:
    assert set(ROLES) - run_tags.left_out(run, skip) == carried


def test_a_kernel_that_lacks_headers_is_no_other_plan_and_one_without_a_module_is_told_of(tmp_path: Path) -> None:
    seen = with_receipts(probe("a100"), plan(probe("a100"), tmp_path))
    seen["node"]["kernels"] = [
        {"release": "6.1.0-9-amd64", "headers": False, "image": True},
        {"release": "6.1.0-8-amd64", "headers": True, "image": True},
        {"release": "6.1.0-7-amd64", "headers": False, "image": False},
    ]
    seen["receipts"]["nvidia_driver"]["lacking"] = ["6.1.0-9-amd64"]
    made = plan(seen, tmp_path)
    assert needed(made) == []
    assert made["stages"]["nvidia_driver"]["headers"] == [
        {"kernel": "6.1.0-9-amd64", "package": "linux-headers-6.1.0-9-amd64"}
    ]
    assert [each["message"] for each in made["warnings"] if each["code"] == "GF-DRIVER-KERNEL"] == [
        "kernel 6.1.0-9-amd64 has no NVIDIA module: after a boot into it no GPU is served"
    ]


def test_what_is_left_of_a_removed_stage_does_not_make_it_ours(tmp_path: Path) -> None:
    seen = probe("a100")
    seen["receipts"] = {
        "nvidia_driver": {"digest": "removed", "holds": True, "drift": []},
        "python": {"digest": "d", "holds": True, "drift": []},
    }
    assert plan(seen, tmp_path)["facts"]["node"]["managed"] == ["python"]


def test_an_interpreter_that_somebody_took_away_brings_the_role_back(tmp_path: Path) -> None:
    seen = probe()
    seen = with_receipts(seen, plan(seen, tmp_path))
    seen["node"]["pythons"] = []
    made = plan(seen, tmp_path)
    assert needed(made) == ["python", "verify"]
    assert made["stages"]["python"]["because"] == "/usr/bin/python3.11 is not there"


def test_a_managed_interpreter_is_known_by_its_receipt_alone(tmp_path: Path) -> None:
    seen = probe(version="13")
    first = plan(seen, tmp_path)
    assert first["stages"]["python"]["uv"] == {"version": "1", "url": "u", "sha256": "s", "size": 1}
    assert needed(plan(with_receipts(seen, first), tmp_path)) == []


def test_the_mirror_of_interpreters_is_no_part_of_the_plan(tmp_path: Path) -> None:
    made = plan(probe(version="13"), tmp_path)
    assert "mirror" not in str(made["stages"]["python"])
