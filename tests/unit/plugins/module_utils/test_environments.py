"""Environments, built for real by uv from tiny wheels: killed, damaged, cut off and repaired."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_build,
    environment_files,
    environment_survey,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    BUILDING,
    COMPLETE,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import (
    COLLECTIONS,
    OTHER,
    edit,
    failure,
    run_in,
    siblings,
    site,
    want,
)
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel


def test_built_proved_and_active(wanted: Wanted, index: Index) -> None:
    former = os.umask(0o077)
    try:
        result = ensure(wanted)
    finally:
        os.umask(former)
    assert (result["changed"], result["action"]) == (True, "built")
    assert result["because"] == ["the environment is not there"]
    assert result["bytes"] > 12000
    assert result["fetched_bytes"] == sum(path.stat().st_size for path in index.folder.glob("*.whl"))
    assert result["diff"] == {
        "before": {"current": None, "torch": None},
        "after": {"current": "2.0.1-cu117-one", "torch": "2.0.1+cu117"},
    }
    assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
    assert os.readlink(wanted.link) == "2.0.1-cu117-one"
    assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
    assert not os.path.exists(f"{wanted.path}/{BUILDING}")
    assert os.stat(wanted.path).st_mode & 0o777 == 0o755
    assert os.stat(site(wanted) / "leaf.py").st_mode & 0o444 == 0o444
    shell = subprocess.run(
        ["sh", "-uc", f'set +u; . {wanted.link}/bin/activate; command -v python; echo "$VIRTUAL_ENV"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.split() == [f"{wanted.path}/bin/python", wanted.path]


def test_ensurepip_of_the_interpreter_is_at_hand(wanted: Wanted) -> None:
    ensure(wanted)
    assert run_in(wanted, "import ensurepip; print(ensurepip.version())")


def test_the_second_time_nothing(wanted: Wanted, index: Index) -> None:
    ensure(wanted)
    index.requests.clear()
    result = ensure(wanted)
    assert (result["changed"], result["action"], result["because"]) == (False, "none", [])
    assert result["fetched_bytes"] == 0
    assert index.requests == []


def test_a_dry_run_changes_nothing(wanted: Wanted, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = ensure(wanted, check_mode=True)
    assert (result["changed"], result["action"]) == (True, "built")
    assert sorted(tmp_path.rglob("*")) == before
    ensure(wanted)
    assert ensure(wanted, check_mode=True)["changed"] is False
    (site(wanted) / "leaf.py").unlink()
    result = ensure(wanted, check_mode=True)
    assert (result["action"], len(result["because"])) == ("repaired", 1)
    assert not (site(wanted) / "leaf.py").exists()


def test_another_environment_takes_over_and_the_former_stays(wanted: Wanted, index: Index, tmp_path: Path) -> None:
    ensure(wanted)
    other = want(index, tmp_path, *OTHER, directory="2.0.1-cu117-two")
    index.requests.clear()
    result = ensure(other)
    assert result["diff"]["before"] == {"current": "2.0.1-cu117-one", "torch": "2.0.1+cu117"}
    assert os.readlink(wanted.link) == "2.0.1-cu117-two"
    assert index.requests == [], "what the cache has is not fetched again"
    back = ensure(wanted)
    assert (back["action"], os.readlink(wanted.link)) == ("relinked", "2.0.1-cu117-one")


def test_one_more_package_costs_one_wheel(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the mirror wants to be asked again each time."""
    monkeypatch.setattr(index, "kept", False)
    ensure(want(index, tmp_path))
    twig = build_wheel(index.folder, "twig", "2.0", {"twig.py": "x = 1\n"})
    other = want(index, tmp_path, "torch==2.0.1", "twig==2.0", directory="2.0.1-cu117-two")
    index.requests.clear()
    result = ensure(other)
    assert (result["action"], result["fetched_bytes"]) == ("built", twig.stat().st_size)
    assert {path.rsplit("/", 1)[-1] for path in index.requests} == {"twig-2.0-py3-none-any.whl"}
    assert not [name for name in os.listdir(other.path) if name.startswith("pylock.") and name != "pylock.toml"]
    assert list((site(other) / "__pycache__").glob("leaf.*.pyc"))


@pytest.mark.parametrize("lost", ["gone", "elsewhere"])
def test_a_lost_link_is_set_again(wanted: Wanted, index: Index, lost: str) -> None:
    ensure(wanted)
    os.unlink(wanted.link)
    if lost == "elsewhere":
        os.symlink("nowhere", wanted.link)
    index.requests.clear()
    result = ensure(wanted)
    assert (result["changed"], result["action"]) == (True, "relinked")
    assert index.requests == []
    assert run_in(wanted, "import torch; print(torch.version.cuda)") == "11.7"


# --- damage ---------------------------------------------------------------------------------------------------------


def put_another_version(wanted: Wanted) -> None:
    (site(wanted) / "leaf-1.0.dist-info").rename(site(wanted) / "leaf-0.9.dist-info")


DAMAGES = {
    "edited": lambda wanted: edit(site(wanted) / "leaf.py"),
    "gone": lambda wanted: (site(wanted) / "leaf.py").unlink(),
    "package gone": lambda wanted: shutil.rmtree(site(wanted) / "torchvision"),
    "metadata gone": lambda wanted: shutil.rmtree(site(wanted) / "leaf-1.0.dist-info"),
    "metadata emptied": lambda wanted: (site(wanted) / "leaf-1.0.dist-info/METADATA").write_text(""),
    "RECORD gone": lambda wanted: (site(wanted) / "leaf-1.0.dist-info/RECORD").unlink(),
    "RECORD emptied": lambda wanted: (site(wanted) / "leaf-1.0.dist-info/RECORD").write_text(""),
    "RECORD edited": lambda wanted: (site(wanted) / "leaf-1.0.dist-info/RECORD").write_text("leaf.py,,\n"),
    "another version": put_another_version,
    "activate edited": lambda wanted: Path(wanted.path, "bin/activate").write_text("echo hello\n"),
    "pyvenv.cfg gone": lambda wanted: Path(wanted.path, "pyvenv.cfg").unlink(),
    "python gone": lambda wanted: Path(wanted.path, "bin/python").unlink(),
    "lock edited": lambda wanted: Path(wanted.path, "pylock.toml").write_text(""),
    "everything gone": lambda wanted: shutil.rmtree(site(wanted)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended_in_place(wanted: Wanted, damage: str) -> None:
    ensure(wanted)
    added = site(wanted) / "added_by_a_user.py"
    if damage != "everything gone":
        added.write_text("1\n")
    DAMAGES[damage](wanted)
    result = ensure(wanted)
    assert (result["changed"], result["action"]) == (True, "repaired")
    assert result["because"]
    assert run_in(wanted, "import torch, leaf, torchvision; print(leaf.x)") == "1"
    assert ensure(wanted)["changed"] is False
    assert added.exists() == (damage != "everything gone")


@pytest.mark.parametrize("kept", [True, False])
def test_only_the_damaged_package_is_fetched_again(
    wanted: Wanted, index: Index, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(index, "kept", kept)
    ensure(wanted)
    edit(site(wanted) / "leaf.py")
    index.requests.clear()
    ensure(wanted)
    assert {path.rsplit("/", 1)[-1] for path in index.requests} == {"leaf-1.0-py3-none-any.whl"}


def test_a_damaged_cache_damages_no_further_environment(wanted: Wanted, index: Index, tmp_path: Path) -> None:
    ensure(wanted)
    edit(site(wanted) / "leaf.py")
    other = want(index, tmp_path, *OTHER, directory="2.0.1-cu117-two")
    assert ensure(other)["action"] == "built"
    assert environment_survey.survey(other).healthy()


def test_a_wheel_that_contradicts_its_own_record(index: Index, tmp_path: Path) -> None:
    build_wheel(index.folder, "leaf", "1.1", {"leaf.py": "x = 1\n"}, wrong_record=True)
    wanted = want(index, tmp_path, "torch", "leaf==1.1")
    error = failure(wanted)
    assert error.code == "GF-WHEEL-DAMAGED"
    assert "is not the file of the wheel" in error.message
    assert siblings(wanted) == [".lock"]


def test_a_lost_mark_of_completion_is_written_again(wanted: Wanted) -> None:
    ensure(wanted)
    os.unlink(f"{wanted.path}/{COMPLETE}")
    assert ensure(wanted)["action"] == "none"
    assert os.path.exists(f"{wanted.path}/{COMPLETE}")


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("short", "GF-DOWNLOAD-SHORT"),
        ("whole-but-short", "GF-DOWNLOAD-SHORT"),
        ("other", "GF-DOWNLOAD-HASH"),
        ("503", "GF-DOWNLOAD-UNREACHABLE"),
    ],
)
def test_a_failed_download_leaves_what_was_active(
    wanted: Wanted, index: Index, tmp_path: Path, mode: str, code: str
) -> None:
    ensure(wanted)
    other = want(index, tmp_path, *OTHER, directory="2.0.1-cu117-two")
    shutil.rmtree(wanted.cache_dir)
    index.mode = mode
    error = failure(other)
    assert error.code == code
    assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]
    assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
    index.mode = "ok"
    assert ensure(other)["action"] == "built"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("torch_version", "2.0.1+cu118", "torch is 2.0.1+cu117, the plan has 2.0.1+cu118"),
        ("cuda", None, "cuda is 11.7, the plan has None"),
        ("companions", {"torchvision": "0.15.1"}, "torchvision is 0.15.2+cu117, the plan has 0.15.1"),
    ],
)
def test_another_build_than_planned(wanted: Wanted, field: str, value: Any, says: str) -> None:
    error = failure(dataclasses.replace(wanted, **{field: value}))
    assert error.code == "GF-TORCH-WRONG-VERSION"
    assert says in error.message
    assert siblings(wanted) == [".lock"]


def test_a_torch_that_cannot_be_imported(index: Index, tmp_path: Path) -> None:
    missing = "import ctypes\nctypes.CDLL('libnonesuch.so.1')\n"
    build_wheel(index.folder, "torch", "2.0.2", {"torch/__init__.py": missing})
    error = failure(want(index, tmp_path, "torch==2.0.2"))
    assert error.code == "GF-TORCH-IMPORT"
    assert "libnonesuch.so.1: cannot open shared object file" in error.message


def test_the_proof_sees_no_variable_of_the_user(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('wrong torch')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert ensure(wanted)["action"] == "built"


def test_no_interpreter(wanted: Wanted) -> None:
    assert failure(dataclasses.replace(wanted, interpreter="/nowhere/python3.11")).code == "GF-PYTHON-MISSING"


def test_a_lock_that_was_changed_on_its_way(wanted: Wanted) -> None:
    assert failure(dataclasses.replace(wanted, lock_text=wanted.lock_text + "\n")).code == "GF-LOCK-INVALID"


def test_files_of_somebody_else_are_left_alone(wanted: Wanted) -> None:
    os.makedirs(wanted.path)
    Path(wanted.path, "thesis.txt").write_text("42")
    assert failure(wanted).code == "GF-PATH-OCCUPIED"
    assert Path(wanted.path, "thesis.txt").read_text() == "42"


def test_a_directory_in_place_of_the_link(wanted: Wanted) -> None:
    os.makedirs(wanted.link)
    assert failure(wanted).code == "GF-PATH-OCCUPIED"
    assert os.path.isdir(wanted.link)


@pytest.mark.parametrize(("number", "code"), [(13, "GF-RIGHTS"), (30, "GF-RIGHTS"), (28, "GF-DISK-SPACE")])
def test_what_the_file_system_refuses(wanted: Wanted, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    def refuse(*_args: Any) -> None:
        raise OSError(number, os.strerror(number), wanted.path)

    monkeypatch.setattr(environment_build, "build", refuse)
    assert failure(wanted).code == code


# --- runs at once, and killed ones ----------------------------------------------------------------------------------


def test_another_run_holds_the_environment(wanted: Wanted) -> None:
    ensure(wanted)
    with open(os.path.join(os.path.dirname(wanted.link), ".lock"), "r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        error = failure(wanted)
    assert error.code == "GF-BUSY"
    assert f"process {os.getpid()}); waited 0.3 s" in error.message


CHILD = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from importlib import import_module
utils = "ansible_collections.gpufleet.stack.plugins.module_utils."
module, _, step = sys.argv[3].partition(".")
moment = sys.argv[4]

def killed(*args, **named):
    if moment == "after":
        original(*args, **named)
    os.kill(os.getpid(), signal.SIGKILL)

if step:
    original = getattr(import_module(utils + module), step)
    setattr(import_module(utils + module), step, killed)
wanted = import_module(utils + "environment_layout").Wanted(**json.loads(sys.argv[2]))
import_module(utils + "environments").ensure(wanted)
"""


def start(wanted: Wanted, step: str = "", moment: str = "") -> subprocess.Popen[bytes]:
    """A run in a process of its own, which ends itself with SIGKILL before or after a step."""
    arguments = [str(COLLECTIONS), json.dumps(dataclasses.asdict(wanted)), step, moment]
    return subprocess.Popen([sys.executable, "-c", CHILD, *arguments])


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_while_downloading(wanted: Wanted, index: Index, tmp_path: Path) -> None:
    ensure(wanted)
    other = want(index, tmp_path, *OTHER, directory="2.0.1-cu117-two")
    shutil.rmtree(wanted.cache_dir)
    index.mode = "slow"
    index.requests.clear()
    process = start(other)
    wait_for(lambda: index.requests)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(f"{other.path}/{BUILDING}")
    assert os.readlink(wanted.link) == "2.0.1-cu117-one"
    assert failure(other).code == "GF-BUSY", "uv of the killed run still writes"
    index.mode = "ok"
    assert ensure(dataclasses.replace(other, lock_wait=30))["action"] == "built"
    assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "2.0.1-cu117-two", "current"]
    assert os.readlink(wanted.link) == "2.0.1-cu117-two"


STEPS = [
    "environment_build.make_skeleton",
    "environment_build.install",
    "environment_build.heal",
    "environment_build.prove",
    "environment_build.complete",
    "environment_switch.switch",
]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere(wanted: Wanted, index: Index, tmp_path: Path, step: str, moment: str) -> None:
    """Whatever was done by then, what was active stays so and the next run converges."""
    ensure(wanted)
    other = want(index, tmp_path, *OTHER, directory="2.0.1-cu117-two")
    assert start(other, step, moment).wait() == -signal.SIGKILL
    switched = (step, moment) == ("environment_switch.switch", "after")
    assert os.readlink(wanted.link) == os.path.basename((other if switched else wanted).path)
    assert run_in(wanted, "import torch; print(torch.__version__)") == "2.0.1+cu117"
    ensure(dataclasses.replace(other, lock_wait=10))
    assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "2.0.1-cu117-two", "current"]
    assert os.readlink(wanted.link) == "2.0.1-cu117-two"
    assert environment_survey.survey(other).healthy()
    assert ensure(other)["changed"] is False


def test_killed_while_cleaning_up(wanted: Wanted) -> None:
    ensure(wanted)
    half = os.path.join(os.path.dirname(wanted.link), ".building-2.0.1-cu117-old")
    os.makedirs(f"{half}/lib")
    os.symlink("nowhere", os.path.join(os.path.dirname(wanted.link), ".building-link-1"))
    ensure(wanted)
    assert siblings(wanted) == [".lock", "2.0.1-cu117-one", "current"]


def test_what_is_active_is_never_removed(wanted: Wanted) -> None:
    """Even where both marks lie: somebody's copy, or a file system that lost the last writes."""
    ensure(wanted)
    os.unlink(f"{wanted.path}/{COMPLETE}")
    Path(wanted.path, BUILDING).touch()
    inode = os.stat(wanted.path).st_ino
    ensure(wanted)
    assert os.stat(wanted.path).st_ino == inode
    assert ensure(wanted)["changed"] is False


def test_names_and_versions_of_a_lock() -> None:
    text = '[[packages]]\nname = "Typing_Extensions"\nversion = "4.16.0"\nwheels = [{ name = "x" }]\n\n[[packages]]\nversion = "1"\n'
    assert environment_files.locked_packages(text) == {"typing-extensions": "4.16.0"}
