# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks are held by a real process, as apt holds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_locks
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

HOLD = "import fcntl, sys\nstream = open(sys.argv[1], 'r+')\nfcntl.lockf(stream, fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()"


@pytest.fixture(params=apt_locks.LOCKS)
def held(request: pytest.FixtureRequest, tmp_path: Path):
    """A lock and the process that holds it."""
    for lock in apt_locks.LOCKS:
        (tmp_path / lock).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / lock).touch()
    path = tmp_path / request.param
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield path, process
    process.communicate()


def test_a_lock_that_is_not_let_go_is_told_with_its_holder(held, tmp_path: Path) -> None:
    path, process = held
    with pytest.raises(GpufleetError) as caught:
        apt_locks.wait(0, str(tmp_path))
    assert caught.value.code == "GF-APT-LOCKED"
    assert str(path) in str(caught.value)
    assert f"process {process.pid} (" in str(caught.value)
    assert sys.executable in str(caught.value)


def test_a_lock_is_waited_for(held, tmp_path: Path) -> None:
    _path, process = held
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            process.communicate()

    apt_locks.wait(600, str(tmp_path), sleep)
    assert looks == [apt_locks.STEP] * 2


def test_looking_takes_no_lock(tmp_path: Path) -> None:
    path = tmp_path / apt_locks.LOCKS[0]
    path.parent.mkdir(parents=True)
    path.touch()
    assert apt_locks.held(str(tmp_path)) is None
    tried = subprocess.run(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
    )
    assert tried.returncode == 0


def test_a_holder_that_cannot_be_seen(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text(f"1: POSIX  ADVISORY  WRITE 0 00:1:{os.stat(tmp_path).st_ino} 0 EOF\n")
    assert apt_locks.holder(str(tmp_path), str(tmp_path)) == "a process that cannot be seen from here"
