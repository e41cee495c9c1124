"""Facts that the controller keeps: whole, private, and refused by code where they are of no use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache

PROBE: dict[str, Any] = {"schema": 2, "gpu": {}, "cuda": {}, "node": {}, "receipts": {}, "verdict": None}


def code(directory: Path, host: str = "n1") -> str:
    with pytest.raises(GpufleetError) as caught:
        facts_cache.read(str(directory), host)
    assert "plan.yml" in caught.value.fix
    return caught.value.code


def test_what_is_kept_is_read_back_without_ansibles_own_keys(tmp_path: Path) -> None:
    facts_cache.keep(str(tmp_path / "new" / "facts"), "n1", {**PROBE, "invocation": {"module_args": {}}})
    found = facts_cache.read(str(tmp_path / "new" / "facts"), "n1")
    assert found.pop("read_at").endswith("Z")
    assert found == {**PROBE, "host": "n1"}
    path = tmp_path / "new" / "facts" / "n1.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["n1.json"]


@pytest.mark.parametrize("host", ["../../etc/passwd", "..", "a/b", "x" * 5000, "n\n1", "ö", "[::1]:22"])
def test_a_hostile_name_stays_in_the_directory(tmp_path: Path, host: str) -> None:
    facts_cache.keep(str(tmp_path / "facts"), host, PROBE)
    assert len(list((tmp_path / "facts").iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["facts"]
    assert facts_cache.read(str(tmp_path / "facts"), host)["host"] == host


def test_long_names_that_begin_alike_are_two_files() -> None:
    assert facts_cache.file_of("/d", "x" * 400 + "1") != facts_cache.file_of("/d", "x" * 400 + "2")


def test_facts_that_are_not_there(tmp_path: Path) -> None:
    assert code(tmp_path) == "GF-FACTS-MISSING"


@pytest.mark.parametrize("schema", [1, 3, None, "2", [2]])
def test_facts_of_another_version(tmp_path: Path, schema: Any) -> None:
    facts_cache.keep(str(tmp_path), "n1", {**PROBE, "schema": schema})
    assert code(tmp_path) == "GF-FACTS-VERSION"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, json.dumps({**PROBE, "gpu": []}), '{"schema": 2}', '"\\ud800"']
)
def test_garbled_facts(tmp_path: Path, text: str) -> None:
    (tmp_path / "n1.json").write_text(text)
    assert code(tmp_path) == "GF-FACTS-INVALID"


def test_facts_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "n1.json").write_bytes(b"\xff\xfe{}")
    assert code(tmp_path) == "GF-FACTS-INVALID"


def test_a_write_that_fails_leaves_the_former_facts(tmp_path: Path) -> None:
    facts_cache.keep(str(tmp_path), "n1", PROBE)
    with pytest.raises(TypeError):
        facts_cache.keep(str(tmp_path), "n1", {**PROBE, "gpu": {"odd": object()}})
    assert facts_cache.read(str(tmp_path), "n1")["gpu"] == {}
    assert os.listdir(tmp_path) == ["n1.json"]
