# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import trees


def tree(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return str(path)


@pytest.mark.parametrize("exchange", [True, False])
def test_new_directory_takes_the_place_of_the_old(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(trees, "_exchange", lambda one, other: False)
    path = tree(tmp_path / "now", "old")
    new = trees.beside(path)
    with open(os.path.join(new, "file"), "w", encoding="utf-8") as stream:
        stream.write("new")
    trees.switch_directory(new, path)
    assert (tmp_path / "now/file").read_text() == "new"
    assert os.listdir(tmp_path) == ["now"]


def test_first_directory_is_a_plain_rename(tmp_path):
    path = str(tmp_path / "a/b")
    trees.switch_directory(trees.beside(path), path)
    assert os.listdir(tmp_path / "a") == ["b"]


def test_what_an_interrupted_run_left_beside_is_removed(tmp_path):
    path = str(tmp_path / "now")
    with open(os.path.join(trees.beside(path), "half"), "w", encoding="utf-8"):
        pass
    assert os.listdir(trees.beside(path)) == []


def test_link_is_switched(tmp_path):
    path = str(tmp_path / "link")
    for target in ("one", "two"):
        trees.switch_link(path, target)
        assert os.readlink(path) == target
    assert os.listdir(tmp_path) == ["link"]
