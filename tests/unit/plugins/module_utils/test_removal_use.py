"""Nothing is removed from under a process: real processes, and a recorded node whose GPU is busy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import process_use, removal_use
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"


@contextmanager
def process(*command: str, cwd: Path | None = None) -> Iterator[int]:
    """A process that has said that it is up."""
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"up\n"
        try:
            yield started.pid
        finally:
            started.kill()


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A directory with a Python that is a link, as in an environment, and a library."""
    path = tmp_path / "envs" / "one"
    (path / "bin").mkdir(parents=True)
    (path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    library = next(name for name in process_use._paths_of("/proc/self") if ".so" in name)
    shutil.copy(library, path / "library.so")
    (tmp_path / "envs" / "current").symlink_to("one")
    (tmp_path / "envs" / "one-more").mkdir()
    return path


def test_a_program_started_through_the_link_counts(environment: Path) -> None:
    python = str(environment.parent / "current/bin/python")
    with process(python, "-c", SLEEP) as pid:
        users = process_use.users_of([str(environment), str(environment.parent / "one-more")])
        assert list(users) == [str(environment)]
        assert users[str(environment)][0].endswith(f"({pid})")
    assert process_use.users_of([str(environment)]) == {}


def test_a_library_in_memory_counts(environment: Path) -> None:
    script = f"import mmap; f = open({str(environment / 'library.so')!r}, 'rb'); m = mmap.mmap(f.fileno(), 0, access=1)\n{SLEEP}"
    with process(sys.executable, "-c", script) as pid, pytest.raises(GpufleetError, match=rf"\({pid}\)") as caught:
        removal_use.refuse_trees_in_use([str(environment)])
    assert caught.value.code == "GF-ENVIRONMENT-IN-USE"


def test_a_working_directory_counts_and_a_neighbour_does_not(environment: Path) -> None:
    with process(sys.executable, "-c", SLEEP, cwd=environment / "bin"):
        assert list(process_use.users_of([str(environment), str(environment / "lib")])) == [str(environment)]
    with process(sys.executable, "-c", SLEEP, cwd=environment.parent / "one-more"):
        removal_use.refuse_trees_in_use([str(environment)])


def test_the_run_itself_does_not_count(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(environment)
    removal_use.refuse_trees_in_use([str(environment)])


def facts(loaded: str | None, *busy: dict[str, object]) -> dict[str, object]:
    return {"driver": {"loaded_version": loaded}, "busy": list(busy)}


def test_a_busy_gpu_is_not_left_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"pid": 42, "name": "train.py"}
    monkeypatch.setattr(removal_use.gpu, "collect", lambda sysroot: facts("535.1", job))
    with pytest.raises(GpufleetError, match=r"train\.py \(42\)") as caught:
        removal_use.refuse_busy_gpus("/")
    assert caught.value.code == "GF-GPU-BUSY"


@pytest.mark.parametrize("found", [facts("535.1"), facts(None, {"pid": 42, "name": None})])
def test_an_idle_gpu_or_another_driver_is_no_reason(monkeypatch: pytest.MonkeyPatch, found: dict[str, object]) -> None:
    monkeypatch.setattr(removal_use.gpu, "collect", lambda sysroot: found)
    removal_use.refuse_busy_gpus("/")
