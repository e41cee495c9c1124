# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another dnf is waited for, named where it takes too long, and a file that a dead one left is no lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import dnf_locks
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def node(root: Path, *, alive: bool, lock: str = dnf_locks.LOCKS[1]) -> str:
    path = root / lock
    path.parent.mkdir(parents=True)
    path.write_text("4711\n")
    if alive:
        (root / "proc/4711").mkdir(parents=True)
        (root / "proc/4711/cmdline").write_text("/usr/bin/python3\0/usr/bin/dnf\0upgrade\0")
    return str(root)


@pytest.mark.parametrize("lock", dnf_locks.LOCKS)
def test_a_living_dnf_is_named(tmp_path: Path, lock: str) -> None:
    root = node(tmp_path, alive=True, lock=lock)
    with pytest.raises(GpufleetError) as caught:
        dnf_locks.wait(0, root)
    assert caught.value.code == "GF-DNF-LOCKED"
    assert "/usr/bin/dnf upgrade" in str(caught.value)


def test_it_is_waited_for(tmp_path: Path) -> None:
    root = node(tmp_path, alive=True)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        (tmp_path / dnf_locks.LOCKS[1]).unlink()

    dnf_locks.wait(60, root, sleep)
    assert waits == [dnf_locks.STEP]


def test_what_a_dead_dnf_left_is_no_lock(tmp_path: Path) -> None:
    root = node(tmp_path, alive=False)
    dnf_locks.wait(0, root)
    (tmp_path / dnf_locks.LOCKS[1]).write_text("")
    assert dnf_locks.held(root) is None
