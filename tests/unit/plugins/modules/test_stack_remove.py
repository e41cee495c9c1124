"""The modules receipt and stack_remove, one after the other, as a role and remove.yml use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpufleet.stack.plugins.modules import receipt, stack_remove


def run(capsys: pytest.CaptureFixture[str], module: Any, **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


@pytest.fixture
def cudnn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The role cudnn has worked in a prefix of its own; answers where things lie."""
    state, tree = str(tmp_path / "state"), str(tmp_path / "prefix/cudnn/8.9-cuda11")
    note = {"role": "cudnn", "state": "begun", "trees": [tree], "state_dir": state}
    assert run(capsys, receipt, **note)["changed"] is True
    assert run(capsys, receipt, **note)["changed"] is False
    Path(tree).mkdir(parents=True)
    (Path(tree) / "libcudnn.so").write_text("x")
    done = run(capsys, receipt, role="cudnn", digest="0", trees=[tree], state_dir=state)
    assert (done["changed"], done["receipt"]["added_packages"]) == (True, [])
    return {"prefix": str(tmp_path / "prefix"), "state_dir": state}


def test_a_role_comes_and_goes(cudnn: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = run(capsys, stack_remove, **cudnn)
    assert (gone["changed"], gone["stages"], gone["kept"]) == (True, ["cudnn"], [])
    assert gone["removed"]["trees"] == [cudnn["prefix"] + "/cudnn/8.9-cuda11"]
    assert list(tmp_path.iterdir()) == []
    again = run(capsys, stack_remove, **cudnn)
    assert (again["changed"], again["stages"]) == (False, [])


def test_a_dry_run_shows_it_all_and_does_nothing(
    cudnn: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    shown = run(capsys, stack_remove, **cudnn, _ansible_check_mode=True, _ansible_diff=True)
    assert shown["changed"] is True
    assert "8.9-cuda11\nreceipt cudnn\n" in shown["diff"]["before"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refusal_is_told_with_its_code(cudnn: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("python", "pytorch"):
        run(capsys, receipt, role=role, digest="0", state_dir=cudnn["state_dir"])
    failed = run(capsys, stack_remove, **cudnn, stages=["python"])
    assert failed["failed"] is True
    assert failed["error"]["code"] == "GF-REMOVE-NEEDED"


def test_a_receipt_needs_its_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "digest" in run(capsys, receipt, role="python", state_dir=str(tmp_path))["msg"]
