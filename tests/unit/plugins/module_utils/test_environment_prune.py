"""What goes with an environment that is pruned: its own wheels in the cache, and the interpreter that nothing else is made from."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import managed_python_prune, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import COMPLETE, Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import edit, run_in, site, want
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel

LONG_AGO = managed_python_prune.FRESH_SECONDS + 60
UNTIL_TOLD = "import sys; print('up', flush=True); sys.stdin.read()"


def cached(wanted: Wanted) -> set[str]:
    """The wheels that uv's cache has, as ``name-version``."""
    entries = Path(wanted.cache_dir).glob("wheels-v*/*/*/*/*-py3-none-any")
    return {f"{entry.parent.name}-{entry.name.partition('-')[0]}" for entry in entries if entry.exists()}


def unpacked(wanted: Wanted) -> int:
    return len(list(Path(wanted.cache_dir).glob("archive-v*/*")))


@pytest.fixture
def two(index: Index, tmp_path: Path) -> list[Wanted]:
    """An environment, and the one after it, which has another package; of a name one environment stays."""
    for version in () if list(index.folder.glob("twig-*")) else ("1.0", "2.0"):
        build_wheel(index.folder, "twig", version, {"twig.py": f"x = {version}\n"})
    return [
        want(index, tmp_path, "torch==2.0.1", f"twig=={version}", directory=version, keep=1)
        for version in ("1.0", "2.0")
    ]


def copies(wanted: Wanted) -> dict[str, Path]:
    """The wheels of a lock as `gpufleet_wheelhouse: copy` brings them, by their file names."""
    made = {}
    for each in wheelhouse.locked_files(wanted.lock_text):
        path = Path(wheelhouse.place(f"{wanted.cache_dir}/wheelhouse", each["name"], each["sha256"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        made[each["name"].partition("-")[0]] = path
    return made


def test_the_cache_forgets_what_only_the_pruned_one_had(two: list[Wanted]) -> None:
    first, second = two
    ensure(first)
    old, new = copies(first), copies(second)
    before = unpacked(first)

    ensure(second, check_mode=True)
    assert cached(first) == {"torch-2.0.1", "leaf-1.0", "torchvision-0.15.2", "twig-1.0"}
    done = ensure(second)

    assert done["pruned"] == [first.path]
    assert cached(second) == {"torch-2.0.1", "leaf-1.0", "torchvision-0.15.2", "twig-2.0"}
    assert unpacked(second) == before, "one came, one went"
    assert not old["twig"].parent.exists()
    assert all(path.exists() for path in [*new.values(), old["torch"]])
    assert run_in(second, "import twig, leaf; print(twig.x, leaf.x)") == "2.0 1"


def test_what_another_environment_has_stays_in_the_cache(two: list[Wanted]) -> None:
    first, second = two
    other = dataclasses.replace(
        first,
        name="other",
        path=first.path.replace("/default/", "/other/"),
        link=first.link.replace("/default/", "/other/"),
    )
    for each in (first, other, second):
        ensure(each)
    assert {"twig-1.0", "twig-2.0"} <= cached(second)


def test_a_cache_outside_the_prefix_is_left_alone(two: list[Wanted], tmp_path: Path) -> None:
    first, second = (dataclasses.replace(each, cache_dir=str(tmp_path / "cache of the site")) for each in two)
    ensure(first)
    assert ensure(second)["pruned"] == [first.path]
    assert {"twig-1.0", "twig-2.0"} <= cached(second)


def test_repairs_leave_nothing_in_the_cache(wanted: Wanted) -> None:
    ensure(wanted)
    before = unpacked(wanted), len(cached(wanted))
    for _time in range(2):
        edit(site(wanted) / "leaf.py")
        assert ensure(wanted)["action"] == "repaired"
        assert (unpacked(wanted), len(cached(wanted))) == before


# --- interpreters ---------------------------------------------------------------------------------------------------


def interpreter(prefix: Path, name: str, age: float = LONG_AGO) -> Path:
    """A managed interpreter, as far as pruning looks at it."""
    program = prefix / "python" / name / "cpython" / "bin" / "python3"
    program.parent.mkdir(parents=True)
    program.symlink_to(os.path.realpath(sys.executable))
    complete = prefix / "python" / name / COMPLETE
    complete.write_text("{}")
    os.utime(complete, (time.time() - age,) * 2)
    return program


def made_from(prefix: Path, name: str, program: Path) -> Path:
    path = prefix / "envs/default" / name
    path.mkdir(parents=True)
    (path / "pyvenv.cfg").write_text(f"home = {program.parent}\nimplementation = CPython\n")
    return path


def pruned(prefix: Path, *named: Path, without: tuple[str, ...] = ()) -> list[str]:
    gone, _kept = managed_python_prune.prune(str(prefix), [str(each) for each in named], without)
    return [os.path.basename(path) for path in gone]


def test_an_interpreter_goes_with_its_last_environment(tmp_path: Path) -> None:
    planned, used, hidden, idle = (interpreter(tmp_path, name) for name in ("planned", "used", "hidden", "idle"))
    made_from(tmp_path, "a", used)
    made_from(tmp_path, ".building-b", hidden)
    folder = str(tmp_path / "python")
    assert managed_python_prune.prune(str(tmp_path), [str(planned)], check_mode=True)[0] == [f"{folder}/idle"]
    assert sorted(os.listdir(folder)) == ["hidden", "idle", "planned", "used"]

    assert pruned(tmp_path, planned) == ["idle"]
    assert not idle.exists() and all(each.exists() for each in (planned, used, hidden))
    assert pruned(tmp_path, planned, without=(str(tmp_path / "envs/default/a"),)) == ["used"]


def test_one_that_came_a_moment_ago_or_is_not_ours_stays(tmp_path: Path) -> None:
    interpreter(tmp_path, "fresh", age=10)
    interpreter(tmp_path, "half")
    (tmp_path / "python/half" / COMPLETE).unlink()
    (tmp_path / "python/thesis").mkdir()
    assert pruned(tmp_path) == []
    assert sorted(os.listdir(tmp_path / "python")) == ["fresh", "half", "thesis"]


def test_one_that_a_process_runs_stays(tmp_path: Path) -> None:
    program = interpreter(tmp_path, "busy")
    # Only one that has said that it is up: while the kernel still loads it, its command is not to be seen.
    with subprocess.Popen([program, "-c", UNTIL_TOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        gone, kept = managed_python_prune.prune(str(tmp_path), [])
        assert gone == [] and f"({process.pid})" in kept[str(tmp_path / "python/busy")]
        process.kill()
    assert pruned(tmp_path) == ["busy"]


def test_on_a_file_system_that_other_nodes_use_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, "idle")
    monkeypatch.setattr(managed_python_prune, "file_system", lambda _path: "nfs4")
    gone, kept = managed_python_prune.prune(str(tmp_path), [])
    assert (gone, list(kept.values())) == ([], ["other nodes may use it (nfs4)"])


def test_while_another_run_brings_one_nothing_goes(tmp_path: Path) -> None:
    interpreter(tmp_path, "idle")
    with open(tmp_path / "python/.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pruned(tmp_path) == []
    assert pruned(tmp_path) == ["idle"]


def test_an_environments_run_prunes_them_where_it_knows_the_plan(wanted: Wanted) -> None:
    idle = interpreter(Path(wanted.prefix), "idle")
    planned = interpreter(Path(wanted.prefix), "planned")
    assert ensure(wanted)["pruned"] == []
    done = ensure(dataclasses.replace(wanted, interpreters=(str(planned),)))
    assert (done["changed"], done["pruned"]) == (True, [f"{wanted.prefix}/python/idle"])
    assert planned.exists() and not idle.exists()


def test_where_nodes_share_the_prefix_none_goes(wanted: Wanted) -> None:
    idle = interpreter(Path(wanted.prefix), "idle")
    assert ensure(dataclasses.replace(wanted, interpreters=(), shared=True))["pruned"] == []
    assert idle.exists()
