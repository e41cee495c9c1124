"""The table of a fleet and its JSON: nodes folded, conflicts once, narrow, plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet import Fleet
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import fleet_lines, plain, wish_text

SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/plan.schema.json").read_text(encoding="utf-8"))
ROLES = ("nvidia_driver", "cuda_toolkit", "cudnn", "python", "pytorch", "verify")
ESCAPE = "\x1b[31mRed\x1b[0m\x1b]0;title\x07 {{ 7*7 }}\nGPU\x00 ×2 ö"


def plan(gpu: str | None = "NVIDIA A100", needed: tuple[str, ...] = ROLES, **more: Any) -> dict[str, Any]:
    """A plan as far as the table reads it."""
    wanted = set(ROLES if gpu else ROLES[3:]) - {"cudnn"}
    environment = {"name": "default", "torch_version": "2.0.1+cu117", "path": "/e", "disk_mib": 4608}
    keys: dict[str, dict[str, Any]] = {
        "nvidia_driver": {"version": "535", "source": "distro", "flavour": "open", "download_mib": 9, "disk_mib": 9},
        "cuda_toolkit": {
            "toolkits": [{"version": "11.8", "requirement": None}] if gpu else [],
            "download_mib": 9,
            "disk_mib": 9,
        },
        "cudnn": {"cudnns": []},
        "python": {"version": "3.11", "interpreter": "/usr/bin/python3.11"},
        "pytorch": {"environments": [{**environment, "lock": {"download_bytes": 2_300_000_000}}]},
        "verify": {"driver_pending": False},
    }
    stages = {
        role: {"wanted": role in wanted, "needed": role in wanted and role in needed, "because": "x", "why": [], **key}
        for role, key in keys.items()
    }
    facts = {
        "gpu": {
            "devices": [{"name": gpu}] * 4 if gpu else [],
            "driver": {"installed_version": None, "loaded_version": None},
        },
        "cuda": {"torch": [], "cudnn": [], "toolkits": []},
        "node": {
            "distribution": "Debian",
            "version": "12",
            "architecture": "x86_64",
            "pythons": [{"version": "3.11", "full_version": "3.11.2", "path": "/usr/bin/python3.11"}],
        },
    }
    return {"ok": True, "stages": stages, "conflicts": [], "warnings": [], "facts": facts, "verdict": None, **more}


def refused(*fixes: Any, because: str = "so it is", message: str = "no torch fits") -> dict[str, Any]:
    conflict = {
        "code": "GF-TORCH-NO-BUILD",
        "message": message,
        "because": [because],
        "fixes": list(fixes),
        "advice": [],
    }
    return plan(ok=False, stages={}, conflicts=[conflict])


def told(**plans: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    fleet = Fleet()
    for host, each in plans.items():
        fleet.add(host, each)
    return checked(fleet)


def checked(fleet: Fleet) -> tuple[dict[str, Any], list[str]]:
    """The document and the lines; what holds for every table is asserted here."""
    document = fleet.document()
    jsonschema.validate(json.loads(json.dumps(document)), SCHEMA)
    lines = fleet_lines(document)
    assert max(map(len, lines)) <= 72, max(lines, key=len)
    assert "\n".join(lines).isascii()
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    return document, lines


def test_one_node_reads_now_and_wanted_size_and_reboot() -> None:
    _document, lines = told(n1=plan())
    assert lines == [
        "Plan for 1 node",
        "now -> wanted; what has no arrow stays; every changed node is verified",
        "n1 (reboot: no)",
        "  Debian 12 on x86_64: 4 x NVIDIA A100, no driver",
        "  driver  none -> 535 (distro, open) CUDA    none -> 11.8",
        "  Python  3.11.2 (completed)         PyTorch none -> 2.0.1+cu117",
        "  size    2.3 GB, disk 4.5 GiB",
    ]


def test_a_managed_python_is_named_so() -> None:
    made = plan()
    managed = {"full_version": "3.11.18", "size": 30_000_000}
    made["stages"]["python"].update(provider="managed", interpreter="/opt/gpufleet/python/x", managed=[managed])
    _document, lines = told(n1=made)
    assert "  Python  none -> 3.11 (managed)     PyTorch none -> 2.0.1+cu117" in lines
    kept = plan(needed=ROLES[4:])
    kept["stages"]["python"].update(provider="managed", interpreter="/opt/gpufleet/python/x", managed=[managed])
    _document, lines = told(n1=kept)
    assert any("  Python  3.11 (managed) " in line for line in lines)


def test_nodes_with_the_same_decision_are_one_group() -> None:
    document, lines = told(gpu01=plan(), gpu02=plan(), gpu04=plan(), login=plan(gpu=None))
    assert [group["names"] for group in document["groups"]] == ["gpu[01-02,04]", "login"]
    assert document["nodes"]["gpu04"]["group"] == 0
    assert "gpu[01-02,04] (3 nodes, reboot: no)" in lines
    assert lines[-1] == "4 nodes: 4 to change, 0 as they should be, 0 to reboot"


def test_a_node_that_is_as_it_should_be_says_so() -> None:
    made = plan(needed=())
    made["facts"]["cuda"]["torch"] = [
        {"environment": "default", "current": True, "version": "2.0.1+cu117", "path": "/e"}
    ]
    document, lines = told(n1=made)
    assert [line.split() for line in lines[-2:]] == [
        ["Python", "3.11.2", "PyTorch", "2.0.1+cu117"],
        ["change", "nothing", "to", "do"],
    ]
    assert not [line for line in lines if "->" in line]
    assert document["nodes"]["n1"]["stages"]["pytorch"]["action"] == "keep"


def test_a_node_that_is_only_verified_again_says_so() -> None:
    _document, lines = told(n1=plan(needed=("verify",)))
    assert any("verify  none -> passed" in line for line in lines)


@pytest.mark.parametrize(("said", "word"), [(True, "yes"), (False, "no"), (None, "maybe")])
def test_the_reboot_is_what_the_plan_says(said: bool | None, word: str) -> None:
    made = plan()
    made["stages"]["nvidia_driver"]["reboot"] = said
    made["stages"]["verify"]["driver_pending"] = said is None
    document, lines = told(n1=made)
    assert document["nodes"]["n1"]["reboot"] is said
    assert f"n1 (reboot: {word})" in lines


def test_a_conflict_is_told_once_with_its_nodes_and_the_wishes_that_mend_it() -> None:
    fix = {"pytorch_version": "2.7.0", "pytorch_cuda": "cu128"}
    document, lines = told(n1=refused(fix), n2=refused(fix, because="another reason"), n3=plan())
    assert document["ok"] is False
    assert document["conflicts"][0]["nodes"] == ["n1", "n2"]
    assert document["conflicts"][0]["because"] == ["so it is", "another reason"]
    assert lines.count("  no torch fits") == 1
    assert '  mend    pytorch_version: "2.7.0", pytorch_cuda: cu128' in lines
    assert "  cannot be planned: GF-TORCH-NO-BUILD" in lines


def test_nodes_that_other_wishes_mend_are_told_apart() -> None:
    document, _lines = told(n1=refused({"pytorch_version": "2.7.0"}), n2=refused({"pytorch_version": "2.8.0"}))
    assert [conflict["names"] for conflict in document["conflicts"]] == ["n1", "n2"]


def test_a_fix_that_is_a_sentence_is_advice() -> None:
    document, lines = told(n1=refused("move the GPU to another node"))
    assert document["conflicts"][0]["advice"] == ["move the GPU to another node"]
    assert "  mend    move the GPU to another node" in lines


def test_wishes_are_written_as_in_a_variables_file() -> None:
    wishes = {
        "a": "2.10",
        "b": "auto",
        "c": ["11.8", "12.1"],
        "d": [{"name": "x", "version": "2.0"}],
        "e": 3,
        "f": True,
    }
    assert wish_text(wishes) == 'a: "2.10", b: auto, c: ["11.8", "12.1"], d: [{name: x, version: "2.0"}], e: 3, f: true'
    assert wish_text({"a": "no: {x}"}) == 'a: "no: {x}"'


def test_a_warning_is_told_once() -> None:
    warning = {"code": "GF-TOOLKIT-SKIPPED", "message": "no toolkit " * 20}
    _document, lines = told(n1=plan(warnings=[warning]), n2=plan(warnings=[warning]), n3=plan(gpu=None))
    assert "\n".join(lines).count("GF-TOOLKIT-SKIPPED") == 1
    assert any(line.startswith("note GF-TOOLKIT-SKIPPED on n[1-2]: no toolkit") for line in lines)


def test_a_node_without_facts_does_not_stop_the_others() -> None:
    fleet = Fleet("cached")
    fleet.refuse("n1", GpufleetError("GF-FACTS-MISSING", "there are none", "never looked", "look"))
    fleet.add("n2", plan(), read_at="2026-11-23T10:00:00Z")
    document, lines = checked(fleet)
    assert lines[0] == "Plan for 2 nodes from cached facts, read since 2026-11-23T10:00:00Z"
    assert "  cannot be planned: GF-FACTS-MISSING" in lines
    assert document["nodes"]["n2"]["ok"] is True


def test_nodes_that_were_not_reached_are_named() -> None:
    fleet = Fleet()
    fleet.add("n1", plan())
    for number in range(2, 9):
        fleet.miss(f"n{number}")
    _document, lines = checked(fleet)
    assert "not planned, as they could not be looked at (errors above): n[2-8]" in lines


def test_wheels_that_the_site_carries_itself_are_counted_once() -> None:
    files = [{"sha256": "a", "size": 2_000_000_000}, {"sha256": "b", "size": 300_000_000}]
    house = {"way": "cache", "files": files, "bytes": 2_300_000_000}
    more = {**house, "files": [*files, {"sha256": "c", "size": 100_000_000}], "bytes": 2_400_000_000}
    document, lines = told(
        n1=plan(wheelhouse=house), n2=plan(wheelhouse=more), n3=plan(wheelhouse={**house, "files": []})
    )
    assert document["wheels"] == {"way": "cache", "nodes": 2, "once_bytes": 2_400_000_000, "bytes": 4_700_000_000}
    text = " ".join(line.strip() for line in lines)
    assert "wheels: 2.4 GB once at most from outside of the site, 4.7 GB from there to 2 nodes (cache)" in text
    document, lines = told(n1=plan(wheelhouse={**house, "way": "index"}))
    assert document["wheels"]["once_bytes"] == 0 and "wheels:" not in "".join(lines)


def test_no_node_at_all() -> None:
    _document, lines = checked(Fleet())
    assert lines == ["GF-FLEET-EMPTY: there is no node to plan for"]


def test_a_hundred_nodes_of_six_kinds_fit_on_forty_lines() -> None:
    fleet = Fleet()
    for number in range(100):
        kind = number % 6
        made = plan(gpu=f"NVIDIA A100-SXM4-80GB-{kind}" if kind else None)
        made["stages"]["cudnn"].update(needed=bool(kind), wanted=bool(kind), cudnns=[
            {"version": "8.9.7.29", "path": "/c", "disk_mib": 1, "wheel": {"size": 1}}
        ])  # fmt: skip
        made["stages"]["nvidia_driver"]["flavour"] = "proprietary"
        made["warnings"] = [{"code": "GF-TOOLKIT-SKIPPED", "message": "torch does not need it"}]
        fleet.add(f"gpu{number:03d}", made)
    _document, lines = checked(fleet)
    assert len(lines) <= 40, "\n".join(lines)


def test_long_lists_of_nodes_wrap() -> None:
    document, lines = told(**{f"gpu{number:03d}": plan() for number in range(0, 200, 2)})
    assert "".join(line.strip() for line in lines if "," in line and "->" not in line).startswith(
        document["groups"][0]["names"][:80]
    )


def test_hostile_names_are_printed_plainly() -> None:
    assert plain(ESCAPE) == "Red {{ 7*7 }} GPU? x2 o"
    made = plan(gpu=ESCAPE, warnings=[{"code": "GF-X", "message": ESCAPE}])
    hostile = refused(ESCAPE, {"a": ESCAPE}, because=ESCAPE, message=ESCAPE)
    _document, lines = told(**{"n\x1b[2J1": made, "long" * 99: hostile, "n2": plan(gpu="x" * 9000)})
    assert sum("Red {{ 7*7 }} GPU" in line for line in lines) >= 3


def test_more_reasons_than_fit_are_counted() -> None:
    plans = {f"n{number}": refused(because=f"reason {number}") for number in range(9)}
    document, lines = told(**plans)
    assert len(document["conflicts"][0]["because"]) == 9
    assert "          and 6 more reasons" in lines
