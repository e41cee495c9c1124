# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every recorded node under tests/fixtures/nodes gives the facts expected of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu

NODES = Path(__file__).resolve().parents[3] / "fixtures" / "nodes"
RECORDED = sorted(path.parent for path in NODES.glob("*/expected.json"))


def shape(value: object) -> object:
    """The keys of a fact, all the way down, without its values."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return None


def test_there_are_recorded_nodes() -> None:
    assert len(RECORDED) >= 8


@pytest.mark.parametrize("node", RECORDED, ids=lambda path: path.name)
def test_recorded_node(node: Path) -> None:
    assert gpu.collect(sysroot=str(node)) == json.loads((node / "expected.json").read_text())


@pytest.mark.parametrize("node", RECORDED, ids=lambda path: path.name)
def test_every_node_has_the_same_keys_and_survives_json(node: Path) -> None:
    facts = gpu.collect(sysroot=str(node))
    bare = gpu.collect(sysroot=str(NODES / "debian12-none"))
    assert shape({**facts, "devices": None}) == shape({**bare, "devices": None})
    assert json.loads(json.dumps(facts)) == facts


def test_a_sysroot_that_does_not_exist_is_a_node_of_which_nothing_is_known(tmp_path: Path) -> None:
    facts = gpu.collect(sysroot=str(tmp_path / "nowhere"))
    assert facts["present"] is False
    assert facts["kernel"] == {"release": None, "headers": False, "secure_boot": None}
