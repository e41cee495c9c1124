"""Managed interpreters: a real uv fetches and unpacks a stand-in archive, which is cut short, changed and damaged."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_shared,
    managed_python,
    managed_python_prune,
    receipts,
)
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.managed_python import Wanted, ensure
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve
from ansible_collections.gpufleet.stack.tests.unit.plugins.plugin_utils.factory import facts
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, serve

TOOL = Path(__file__).parents[3] / "tools/standalone_python"
SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"
ASKED = "import ctypes, ensurepip, sqlite3, ssl, sys, venv; print(sys.prefix)"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """A mirror with one archive, made of the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("mirror")
    subprocess.run([sys.executable, TOOL, "build", folder, SERIES], check=True)
    (archive,) = folder.glob("*/*.tar.gz")
    # The server finds a file by its name as it is asked for.
    archive.rename(folder / archive.name.replace("+", "%2B"))
    with serve(folder) as served:
        yield served


@pytest.fixture
def mirror(house: Index, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr(uv_tool, "NETWORK_RETRIES", 1)
    house.mode = "ok"
    house.requests.clear()
    return house


@pytest.fixture
def wanted(mirror: Index, tmp_path: Path) -> Wanted:
    """The first choice of the resolver, with the stand-in's SHA-256, as an overlay would have it."""
    prefix = tmp_path / "opt"
    node = facts(architecture=platform.machine())
    wishes = {
        "python_provider": "managed",
        "python_version": SERIES,
        "pytorch_version": "auto",
        "gpufleet_prefix": str(prefix),
    }
    (chosen,) = resolve(node, wishes, catalog.load())["stages"]["python"]["managed"]
    (archive,) = mirror.folder.glob("*.tar.gz")
    uv = prefix / f"tools/uv-{locks.uv_version()}/uv"
    uv.parent.mkdir(parents=True)
    uv.symlink_to(locks.uv_path())
    named = {key: chosen[key] for key in ("path", "interpreter", "full_version", "release", "architecture")}
    return Wanted(
        **named,
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        mirror=mirror.url.replace("//", "//reader:secret@"),
        uv={"version": locks.uv_version(), "url": "", "sha256": "", "size": None},
        prefix=str(prefix),
        cache_dir=str(prefix / "cache"),
    )


def failure(wanted: Wanted) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        ensure(wanted)
    return caught.value


def ask(wanted: Wanted, *command: str) -> str:
    run = subprocess.run([wanted.interpreter, "-I", *command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def beside(wanted: Wanted) -> list[str]:
    folder = Path(wanted.path).parent
    return sorted(each.name for each in folder.iterdir() if each.name != ".lock") if folder.exists() else []


def test_uv_brings_the_build_of_the_plan_from_the_mirror(wanted: Wanted, mirror: Index) -> None:
    dry: dict[str, Any] = ensure(wanted, check_mode=True)
    assert (dry["changed"], dry["action"], beside(wanted)) == (True, "installed", [])
    made = ensure(wanted)
    assert (made["changed"], made["because"]) == (True, f"{wanted.path} is not there")
    assert [each for each in mirror.requests if wanted.release in each]
    assert ask(wanted, "-c", ASKED) == os.path.join(wanted.path, wanted.name)
    assert sorted(os.listdir(wanted.path)) == [".complete", wanted.name]

    # It makes environments in which pip works, and is never written to itself.
    environment = Path(wanted.prefix) / "try"
    ask(wanted, "-m", "venv", str(environment))
    pip = subprocess.run(
        [environment / "bin/python", "-m", "pip", "--version"], capture_output=True, text=True, check=True
    )
    assert str(environment) in pip.stdout
    assert Path(wanted.interpreter).parents[1].joinpath(f"lib/python{SERIES}/EXTERNALLY-MANAGED").exists()

    # Users write nothing, and read everything; its own bytecode is there already.
    for folder, directories, files in os.walk(wanted.path):
        for mode in (os.lstat(os.path.join(folder, name)).st_mode for name in [*directories, *files]):
            assert stat.S_ISLNK(mode) or (not mode & 0o022 and mode & 0o044)
    assert list(Path(wanted.path).rglob("argparse.*.pyc"))

    # An environment that uv makes from it keeps it from being pruned.
    os.utime(f"{wanted.path}/.complete", (0, 0))
    made_from_it = f"{wanted.prefix}/envs/default/one"
    subprocess.run([locks.uv_path(), "venv", "-q", "--python", wanted.interpreter, made_from_it], check=True)
    assert managed_python_prune.surplus(wanted.prefix, []) == []
    assert managed_python_prune.surplus(wanted.prefix, [], without=[made_from_it]) == [wanted.path]

    assert ensure(wanted)["action"] == "none"
    receipt = receipts.measure("python", "0", [], [], [], [wanted.path], [])
    assert receipts.check(receipt) == []

    # Somebody takes a module away: the receipt sees it, and the next run brings it again, at the same place.
    (Path(wanted.interpreter).parents[1] / f"lib/python{SERIES}/json/__init__.py").unlink()
    assert receipts.check(receipt) == [f"directory {wanted.path} was changed"]
    mended = ensure(wanted)
    assert (mended["action"], mended["because"]) == ("repaired", f"{wanted.path} was changed")
    subprocess.run([environment / "bin/python", "-c", "import json, ssl"], check=True)
    assert beside(wanted) == [Path(wanted.path).name]

    # All of it goes, under an environment that rests on it.
    shutil.rmtree(wanted.path)
    assert receipts.check(receipt) == [f"directory {wanted.path} is gone"]
    assert ensure(wanted)["action"] == "installed"
    subprocess.run([environment / "bin/python", "-c", "import json, ssl"], check=True)


def test_the_wheelhouse_is_asked_where_there_is_no_mirror(wanted: Wanted, mirror: Index, tmp_path: Path) -> None:
    (archive,) = mirror.folder.glob("*.tar.gz")
    there = tmp_path / "wheelhouse" / wanted.sha256
    there.mkdir(parents=True)
    shutil.copy(archive, there / archive.name.replace("%2B", "+"))
    made = ensure(dataclasses.replace(wanted, mirror="", wheelhouse=str(there.parent)))
    assert made["action"] == "installed"
    assert mirror.requests == []
    assert ask(wanted, "-c", ASKED) == os.path.join(wanted.path, wanted.name)


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("other", "GF-DOWNLOAD-SHORT"),
        ("short", "GF-DOWNLOAD-SHORT"),
        ("whole-but-short", "GF-DOWNLOAD-SHORT"),
        ("503", "GF-DOWNLOAD-UNREACHABLE"),
    ],
)
def test_what_arrives_is_not_the_archive(wanted: Wanted, mirror: Index, mode: str, code: str) -> None:
    mirror.mode = mode
    error = failure(wanted)
    assert error.code == code, error
    assert "secret" not in str(error)
    assert error.message.startswith(f"Python {wanted.full_version}: ")
    assert beside(wanted) == []


def test_another_build_than_the_plans_is_refused(wanted: Wanted) -> None:
    error = failure(dataclasses.replace(wanted, sha256="0" * 64))
    assert error.code == "GF-DOWNLOAD-HASH"
    assert "gpufleet_catalog_overlay" in error.fix
    assert beside(wanted) == []


def test_an_archive_without_the_interpreter(wanted: Wanted) -> None:
    error = failure(dataclasses.replace(wanted, interpreter=wanted.interpreter + "x"))
    assert error.code == "GF-PYTHON-INCOMPLETE"
    assert beside(wanted) == []


def test_a_damaged_one_stays_where_none_can_be_had(wanted: Wanted, mirror: Index) -> None:
    there = Path(wanted.path) / wanted.name / "bin"
    there.mkdir(parents=True)
    receipts.write_json(os.path.join(wanted.path, ".complete"), {"sha256": wanted.sha256, "tree": None})
    mirror.mode = "503"
    assert failure(wanted).code == "GF-DOWNLOAD-UNREACHABLE"
    assert there.is_dir()
    assert beside(wanted) == [Path(wanted.path).name]


@pytest.mark.parametrize("former", [False, True])
def test_what_a_killed_run_left_is_begun_again(wanted: Wanted, monkeypatch: pytest.MonkeyPatch, former: bool) -> None:
    half = Path(wanted.path) / wanted.name / "bin"
    half.mkdir(parents=True)
    if former:
        receipts.write_json(f"{wanted.path}{managed_python.OLD}/.complete", {"sha256": wanted.sha256, "tree": None})
    seen = []

    def unpack(wanted: Wanted, _uv: str) -> None:
        seen.append(beside(wanted))
        Path(wanted.interpreter).parent.mkdir(parents=True)
        shutil.copy("/bin/true", wanted.interpreter)

    monkeypatch.setattr(managed_python, "_unpack", unpack)
    assert ensure(wanted)["changed"]
    name = Path(wanted.path).name
    assert seen == [[name, name + managed_python.OLD] if former else [name]]
    assert beside(wanted) == [name]
    assert ensure(wanted)["action"] == "none"


def test_where_a_node_may_only_read_it_waits_for_another_one(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_shared, "may_write", lambda _path: False)
    monkeypatch.setattr(environment_shared, "PAUSE", 0.1)
    waiting = ThreadPoolExecutor().submit(ensure, dataclasses.replace(wanted, wait=60.0))
    time.sleep(0.3)
    assert not waiting.done() and beside(wanted) == []

    assert ensure(wanted)["action"] == "installed"

    assert waiting.result()["action"] == "none"


def test_it_waits_no_longer_than_it_was_told(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_shared, "may_write", lambda _path: False)
    monkeypatch.setattr(environment_shared, "PAUSE", 0.1)

    def refuse(*_args: Any, **_named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", wanted.path)

    monkeypatch.setattr(managed_python, "_unpack", refuse)
    assert failure(dataclasses.replace(wanted, wait=0.3)).code == "GF-RIGHTS"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_prefix_that_cannot_be_written(wanted: Wanted, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_args: Any, **_named: Any) -> None:
        raise OSError(number, os.strerror(number), wanted.path)

    monkeypatch.setattr(managed_python, "_unpack", refuse)
    assert failure(wanted).code == "GF-RIGHTS"
