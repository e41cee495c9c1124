"""Bad ground for an environment: a disk that gets full halfway, a file system that is read-only, two runs at once.

Real file systems in memory, mounted below the test's directory; the environments are built for real by uv from tiny wheels.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_survey
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import (
    COLLECTIONS,
    failure,
    run_in,
    siblings,
    stock,
    want,
)
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems"),
]
MIB = 1 << 20
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_layout, environments
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
try:
    print(environments.ensure(environment_layout.Wanted(**json.loads(sys.argv[2])))["action"])
except GpufleetError as error:
    print(error.code)
"""


@contextmanager
def mounted(path: Path, mib: int) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    folder = tmp_path / "wheels"
    folder.mkdir()
    stock(folder)
    # Does not get smaller when it is packed.
    build_wheel(folder, "bulk", "1.0", {"bulk.txt": os.urandom(8 * MIB).hex()})
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "controller-cache"))
    with serve(folder) as served:
        yield served


def larger(index: Index, tmp_path: Path) -> Wanted:
    """An environment that needs some 20 MiB."""
    return want(index, tmp_path, "torch==2.0.1", "bulk==1.0", directory="2.0.1-cu117-two")


def test_a_disk_that_gets_full_halfway(index: Index, tmp_path: Path) -> None:
    with mounted(tmp_path / "opt", 12):
        wanted = want(index, tmp_path)
        ensure(wanted)
        two = larger(index, tmp_path)
        assert failure(two).code == "GF-DISK-SPACE"
        assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
        assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
        assert ensure(wanted)["changed"] is False
        subprocess.run(["mount", "-o", "remount,size=200m", str(tmp_path / "opt")], check=True)
        assert ensure(two)["action"] == "built"
        assert os.readlink(wanted.link) == "2.0.1-cu117-two"


def test_a_disk_that_is_full_already(index: Index, tmp_path: Path) -> None:
    with mounted(tmp_path / "opt", 12):
        wanted = want(index, tmp_path)
        ensure(wanted)
        filler = tmp_path / "opt/filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb") as stream:
            while True:
                stream.write(bytes(MIB))
                stream.flush()
        assert failure(larger(index, tmp_path)).code == "GF-DISK-SPACE"
        assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
        assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
        filler.unlink()
        assert ensure(wanted)["changed"] is False


def test_a_prefix_that_is_read_only(index: Index, tmp_path: Path) -> None:
    with mounted(tmp_path / "opt", 200):
        wanted = want(index, tmp_path)
        ensure(wanted)
        two = larger(index, tmp_path)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "opt")], check=True)
        error = failure(two)
        assert error.code == "GF-RIGHTS"
        assert "Read-only file system" in error.message
        assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
        subprocess.run(["mount", "-o", "remount,rw", str(tmp_path / "opt")], check=True)
        assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
        assert ensure(two)["action"] == "built"


def test_the_cache_on_another_file_system(index: Index, tmp_path: Path) -> None:
    with mounted(tmp_path / "opt/cache", 200):
        wanted = larger(index, tmp_path)
        assert ensure(wanted)["action"] == "built"
        assert environment_survey.survey(wanted).healthy()


def test_two_runs_at_once(index: Index, tmp_path: Path) -> None:
    """One builds, the other waits and finds it built; another wish at the same time waits too and comes last."""
    one = want(index, tmp_path, lock_wait=60.0)
    two = dataclasses.replace(larger(index, tmp_path), lock_wait=60.0)
    runs = []
    for wanted in (one, one, two):
        command = [sys.executable, "-c", RUN, str(COLLECTIONS), json.dumps(dataclasses.asdict(wanted))]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [run.communicate()[0].strip() for run in runs]
    assert "built" in said[:2]
    assert said[2] == "built"
    assert set(said[:2]) <= {"built", "none", "relinked"}
    assert siblings(one) == [".lock", "2.0.1-cu117-one", "2.0.1-cu117-two", "current"]
    for wanted in (one, two):
        state = environment_survey.survey(wanted)
        assert state.healthy()


def test_the_disk_gets_full_while_another_run_waits(index: Index, tmp_path: Path) -> None:
    with mounted(tmp_path / "opt", 12):
        wanted = want(index, tmp_path)
        ensure(wanted)
        two = dataclasses.replace(larger(index, tmp_path), lock_wait=60.0)
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(failure(two).code)) for _turn in range(2)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        assert answers == ["GF-DISK-SPACE", "GF-DISK-SPACE"]
        assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
