"""Environments that a node can go back to, and those that it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import receipts, rollback
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

STATE = "/var/lib/gpufleet"


def stage(name: str, digest: str) -> dict[str, Any]:
    environment = {
        "name": "default", "path": f"/opt/gpufleet/envs/default/{name}", "link": "/opt/gpufleet/envs/default/current",
        "torch_version": "2.0.1+cu117", "module": "2.0.1-cu117", "lock": {"text": "https://user:secret@mirror"},
        "index_url": "https://user:secret@mirror",
    }  # fmt: skip
    return {
        "environments": [environment], "uv": {"url": "https://user:secret@mirror"}, "cache_dir": "/opt/gpufleet/cache",
        "profile": True, "modulefiles": None, "kernels": False, "keep": 2, "digest": digest, "wanted": True, "why": [],
    }  # fmt: skip


def receipt(root: Path, name: str, digest: str) -> dict[str, Any]:
    path = f"/opt/gpufleet/envs/default/{name}"
    (root / path[1:]).mkdir(parents=True, exist_ok=True)
    (root / path[1:] / "torch.py").touch()
    return {
        "schema": 1, "role": "pytorch", "digest": digest, "packages": {},
        "links": {"/opt/gpufleet/envs/default/current": name},
        "trees": {path: receipts.tree_state(str(root / path[1:]))},
        "stage": rollback.keepable("pytorch", stage(name, digest)),
    }  # fmt: skip


def find(root: Path) -> rollback.Way:
    return rollback.find("pytorch", STATE, lambda _command: (1, "", "nobody is asked"), str(root))


def change(root: Path, *wishes: tuple[str, str]) -> None:
    """Receipts of one wish after the other, as the role leaves them."""
    state, former = str(root) + STATE, None
    for name, digest in wishes:
        now = receipt(root, name, digest)
        rollback.keep_former(state, former, now)
        receipts.write_json(receipts.receipt_path(state, "pytorch"), now)
        former = now


def test_back_to_the_environment_before(tmp_path: Path) -> None:
    change(tmp_path, ("old", "1"), ("new", "2"))
    way = find(tmp_path)
    assert way.back_to == "torch 2.0.1+cu117 (default)"
    assert way.stage["needed"] is True
    assert way.stage["environments"][0]["path"] == "/opt/gpufleet/envs/default/old"
    assert "secret" not in str(way)


def test_another_wish_with_the_same_environments_changes_nothing_to_go_back_to(tmp_path: Path) -> None:
    change(tmp_path, ("old", "1"), ("new", "2"), ("new", "3"))
    assert find(tmp_path).stage["environments"][0]["path"] == "/opt/gpufleet/envs/default/old"


@pytest.mark.parametrize(("damage", "says"), [("pruned", "is not there any more"), ("edited", "was changed since")])
def test_what_is_not_as_it_was_is_not_gone_back_to(tmp_path: Path, damage: str, says: str) -> None:
    change(tmp_path, ("old", "1"), ("new", "2"))
    file = tmp_path / "opt/gpufleet/envs/default/old/torch.py"
    if damage == "pruned":
        file.unlink()
        file.parent.rmdir()
    else:
        file.write_text("x")
    with pytest.raises(GpufleetError) as caught:
        find(tmp_path)
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"
    assert says in caught.value.message


def test_a_first_installation_has_nothing_before_it(tmp_path: Path) -> None:
    change(tmp_path, ("old", "1"))
    with pytest.raises(GpufleetError) as caught:
        find(tmp_path)
    assert caught.value.code == "GF-ROLLBACK-NOTHING"
