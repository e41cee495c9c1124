"""Receipts: they hold while the node is as it was left, and name what is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import receipts
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "profile.sh").write_text("export A=1\n")
    tree = tmp_path / "env"
    (tree / "lib" / "__pycache__").mkdir(parents=True)
    (tree / "lib" / "module.py").write_text("x = 1\n")
    (tree / "bin").mkdir()
    (tree / "bin" / "python").symlink_to("/usr/bin/python3")
    (tmp_path / "current").symlink_to("env")
    return tmp_path


def receipt(node: Path) -> dict[str, Any]:
    paths = [str(node / name) for name in ("profile.sh", "current", "env")]
    return receipts.measure("pytorch", "d1", [], [paths[0]], [paths[1]], [paths[2]], [])


def test_a_receipt_of_an_untouched_node_holds(node: Path) -> None:
    assert receipts.check(receipt(node)) == []


def test_python_caching_its_bytecode_is_no_drift(node: Path) -> None:
    made = receipt(node)
    (node / "env" / "lib" / "__pycache__" / "module.pyc").write_bytes(b"\0")
    assert receipts.check(made) == []


def edit_file(node: Path) -> None:
    (node / "profile.sh").write_text("export A=2\n")


def remove_file(node: Path) -> None:
    (node / "profile.sh").unlink()


def turn_link(node: Path) -> None:
    (node / "current").unlink()
    (node / "current").symlink_to("elsewhere")


def remove_link(node: Path) -> None:
    (node / "current").unlink()


def edit_in_tree(node: Path) -> None:
    path = node / "env" / "lib" / "module.py"
    stat = path.stat()
    path.write_text("x = 2\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def add_to_tree(node: Path) -> None:
    (node / "env" / "lib" / "more.py").write_text("")


def turn_link_in_tree(node: Path) -> None:
    (node / "env" / "bin" / "python").unlink()
    (node / "env" / "bin" / "python").symlink_to("/usr/bin/python2")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (edit_file, "profile.sh was edited"),
        (remove_file, "profile.sh is gone"),
        (turn_link, "points to elsewhere"),
        (remove_link, "is gone"),
        (edit_in_tree, "env was changed"),
        (add_to_tree, "env was changed"),
        (turn_link_in_tree, "env was changed"),
    ],
)
def test_every_kind_of_drift_is_named(node: Path, harm: Any, words: str) -> None:
    made = receipt(node)
    harm(node)
    drift = receipts.check(made)
    assert len(drift) == 1
    assert words in drift[0]


def test_a_package_of_another_version_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "installed_versions", lambda names: {"a": "1", "b": "2"})
    made = receipts.measure("python", "d", ["a", "b"], [], [], [], [])
    monkeypatch.setattr(receipts, "installed_versions", lambda names: {"a": "1.1"})
    assert receipts.check(made) == ["package a was 1, is 1.1", "package b was 2, is not installed"]


def test_a_kernel_that_came_without_a_module_is_drift_and_one_known_to_lack_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = {"6.1.0-9": True, "6.1.0-10": True, "5.10.0-1": False}
    monkeypatch.setattr(receipts, "driven_kernels", lambda: dict(now))
    made = receipts.measure("nvidia_driver", "d", [], [], [], [], [], kernels=True)
    assert (receipts.check(made), receipts.lacking(made)) == ([], ["5.10.0-1"])
    now.update({"6.1.0-10": False, "6.1.0-11": False})
    assert receipts.check(made) == [
        "kernel 6.1.0-10 has no NVIDIA module",
        "kernel 6.1.0-11 has no NVIDIA module",
    ]
    # An old kernel that is removed, and one that got its module after all.
    now.clear()
    now.update({"5.10.0-1": True})
    assert (receipts.check(made), receipts.lacking(made)) == ([], [])


def test_a_receipt_of_something_missing_is_refused(node: Path) -> None:
    with pytest.raises(GpufleetError, match="ended without: file /no/such") as caught:
        receipts.measure("python", "d", [], ["/no/such"], [], [], [])
    assert caught.value.code == "GF-RECEIPT-INCOMPLETE"


def test_written_receipts_are_read_and_checked_together(node: Path) -> None:
    state = node / "state"
    receipts.write_json(receipts.receipt_path(str(state), "pytorch"), receipt(node))
    assert receipts.read_all(str(state)) == {"pytorch": {"digest": "d1", "holds": True, "drift": [], "lacking": []}}
    edit_file(node)
    assert receipts.read_all(str(state))["pytorch"]["holds"] is False


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 99}', "\udcff"])
def test_a_receipt_that_cannot_be_read_does_not_hold(tmp_path: Path, content: str) -> None:
    path = tmp_path / "receipts" / "python.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert receipts.read_all(str(tmp_path))["python"]["holds"] is False


def test_no_state_directory_is_no_receipt(tmp_path: Path) -> None:
    assert receipts.read_all(str(tmp_path / "nothing")) == {}


def test_a_failed_write_leaves_the_old_document(tmp_path: Path) -> None:
    path = str(tmp_path / "doc.json")
    receipts.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        receipts.write_json(path, {"a": object()})
    assert json.loads(Path(path).read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["doc.json"]
