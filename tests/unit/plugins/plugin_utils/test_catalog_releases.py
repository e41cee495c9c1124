"""tests/tools/torch_releases: what it reads in pip's answer and what it calls missing."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

import pytest
import yaml

PATH = pathlib.Path(__file__).resolve().parents[4] / "tests/tools/torch_releases"

ANSWER = """torch (2.15.0)
Available versions: 2.15.0, 2.14.1, 2.13.0+cpu, 2.13.0, 2.10.0, 2.9.1, 2.16.0rc1, 1.13.1
  INSTALLED: 2.10.0
"""


@pytest.fixture(name="tool")
def fixture_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it has no suffix, and must not leave bytecode beside itself."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("torch_releases", str(PATH))
    spec = importlib.util.spec_from_loader("torch_releases", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_versions_of_an_answer(tool: ModuleType) -> None:
    assert tool.versions_in(ANSWER) == {"2.15.0", "2.14.1", "2.13.0", "2.10.0", "2.9.1", "1.13.1"}


def test_an_answer_without_versions(tool: ModuleType) -> None:
    assert tool.versions_in("ERROR: No matching distribution found for torch\n") == set()


def test_missing_is_sorted_by_numbers_and_begins_with_2(tool: ModuleType) -> None:
    assert tool.missing({"2.10.0", "2.9.1", "2.15.0", "1.13.1", "2.0.0"}, ["2.0.0"]) == ["2.9.1", "2.10.0", "2.15.0"]


def test_every_python_is_asked_about_and_the_next_one(tool: ModuleType) -> None:
    rows = [{"pythons": {"x86_64": ["3.8", "3.9"]}}, {"pythons": {"x86_64": ["3.10"], "aarch64": ["3.11"]}}]
    assert tool.pythons_to_ask(rows) == ["3.8", "3.9", "3.10", "3.11", "3.12"]


@pytest.mark.parametrize(
    ("published", "status", "printed"),
    [({"2.0.0"}, 0, ""), ({"2.0.0", "2.99.0"}, 1, "2.99.0\n"), (set(), 2, "")],
    ids=["none is missing", "one is missing", "no answer"],
)
def test_the_exit_status_says_whether_one_is_missing(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: pathlib.Path,
    published: set[str],
    status: int,
    printed: str,
) -> None:
    rows = {"releases": [{"version": "2.0.0", "pythons": {"x86_64": ["3.8"]}}]}
    (tmp_path / "torch.yml").write_text(yaml.safe_dump(rows), encoding="utf-8")
    monkeypatch.setattr(tool, "CATALOG", tmp_path / "torch.yml")
    # The newest release serves the newest Python only.
    monkeypatch.setattr(tool, "ask", lambda python: (published if python == "3.9" else set(), "no route"))
    assert tool.main() == status
    out, err = capsys.readouterr()
    assert out == printed
    assert ("no route" in err) == (status == 2)
