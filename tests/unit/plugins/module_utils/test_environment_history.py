"""Which former environments stay, and which go: none that is used, added to, or that other nodes may use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_back,
    environment_history,
    environment_switch,
    mounts,
    process_use,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_back import Step
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import BUILDING, COMPLETE, Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Envs:
    """Environments of one name: a Python, a package of the lock, and our marks."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "envs" / "default"
        self.folder.mkdir(parents=True)
        self.link = self.folder / "current"

    def add(self, name: str, *, age: float = 0, active: bool = True) -> Path:
        path = self.folder / name
        site = path / f"lib/{PYTHON}/site-packages"
        (site / "torch-2.0.1.dist-info").mkdir(parents=True)
        (site / "torch.py").write_text("x = 1\n")
        (path / "bin").mkdir()
        # All that makes a virtual environment.
        (path / "bin/python").symlink_to(os.path.realpath(sys.executable))
        (path / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
        (path / "pylock.toml").write_text('[[packages]]\nname = "torch"\nversion = "2.0.1"\n')
        (path / COMPLETE).write_text("{}")
        os.utime(path / COMPLETE, (time.time() - age,) * 2)
        if active:
            environment_history.note(str(self.link), str(path))
            environment_switch.point(str(self.link), str(path))
        return path

    def wanted(self, name: str, keep: int = 2) -> Wanted:
        return Wanted(
            name="default", path=str(self.folder / name), link=str(self.link), interpreter="", lock_text="", lock_sha256="",
            torch_version="", cuda=None, companions={}, uv={}, prefix=str(self.folder.parent.parent), cache_dir="", keep=keep,
        )  # fmt: skip

    def left(self) -> list[str]:
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and not entry.is_symlink())


@pytest.fixture
def envs(tmp_path: Path) -> Envs:
    return Envs(tmp_path)


@contextmanager
def running(command: list[str], **options: object) -> Iterator[int]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("keep", "left"), [(1, ["d"]), (2, ["c", "d"]), (3, ["b", "c", "d"]), (9, ["a", "b", "c", "d"])]
)
def test_the_last_active_ones_stay(envs: Envs, keep: int, left: list[str]) -> None:
    for name in "abcd":
        envs.add(name)
    assert environment_history.prune(envs.wanted("d", keep), check_mode=True).gone == [
        str(envs.folder / name) for name in "cba" if name not in left
    ]
    assert envs.left() == ["a", "b", "c", "d"]
    environment_history.prune(envs.wanted("d", keep))
    assert envs.left() == left


def test_active_again_counts_as_active_last(envs: Envs) -> None:
    for name in "abc":
        envs.add(name)
    environment_back.switch_all([Step(str(envs.folder / "a"), str(envs.link))])
    environment_back.switch_all([Step(str(envs.folder / "c"), str(envs.link))])
    environment_history.prune(envs.wanted("c"))
    assert envs.left() == ["a", "c"]


def test_without_a_history_the_youngest_stays(envs: Envs) -> None:
    for name, age in (("old", 300), ("older", 400), ("new", 0)):
        envs.add(name, age=age)
    (envs.folder / ".history").unlink()
    environment_history.prune(envs.wanted("new"))
    assert envs.left() == ["new", "old"]


def test_what_was_never_finished_or_is_somebody_elses_is_not_counted(envs: Envs) -> None:
    envs.add("a")
    envs.add("b")
    (envs.folder / "thesis").mkdir()
    (envs.folder / "half").mkdir()
    (envs.folder / "half" / BUILDING).touch()
    assert environment_history.prune(envs.wanted("b", keep=1)).gone == [str(envs.folder / "a")]
    assert envs.left() == ["b", "half", "thesis"]


@pytest.mark.parametrize("how", ["cwd", "maps", "exe", "VIRTUAL_ENV", "command"])
def test_one_that_a_process_works_from_stays(envs: Envs, how: str) -> None:
    old = envs.add("old")
    envs.add("new")
    wait = "import sys; sys.stdin.read()"
    sleeper = old / "bin/sleeper"
    sleeper.write_bytes(Path("/bin/sleep").read_bytes())
    sleeper.chmod(0o755)
    library = next(name for name in process_use._paths_of("/proc/self") if ".so" in name)
    (old / "lib/copy.so").write_bytes(Path(library).read_bytes())
    load = f"import ctypes; ctypes.CDLL({str(old / 'lib/copy.so')!r}); print(flush=True); {wait}"
    commands: dict[str, tuple[list[str], dict[str, object]]] = {
        "cwd": ([sys.executable, "-c", wait], {"cwd": old}),
        "maps": ([sys.executable, "-c", load], {"stdout": subprocess.PIPE}),
        "exe": ([str(sleeper), "99"], {}),
        "VIRTUAL_ENV": ([sys.executable, "-c", wait], {"env": {"VIRTUAL_ENV": str(old)}}),
        "command": ([sys.executable, "-c", wait, str(old / "train.py")], {}),
    }
    command, options = commands[how]
    with running(command, **options) as pid:
        deadline = time.monotonic() + 10
        while not (kept := environment_history.prune(envs.wanted("new", keep=1), check_mode=True).kept):
            assert time.monotonic() < deadline
        kept = environment_history.prune(envs.wanted("new", keep=1)).kept
        assert f"({pid})" in kept[str(old)]
        assert envs.left() == ["new", "old"]
    assert environment_history.prune(envs.wanted("new", keep=1)).gone == [str(old)]
    assert envs.left() == ["new"]


def test_a_process_that_begins_while_it_goes_brings_it_back(envs: Envs, monkeypatch: pytest.MonkeyPatch) -> None:
    old = envs.add("old")
    envs.add("new")
    asked: list[list[str]] = []

    def users_of(paths: list[str], _proc: str) -> dict[str, list[str]]:
        asked.append(paths)
        return {} if len(asked) == 1 else {paths[0]: ["python (1)"]}

    monkeypatch.setattr(process_use, "users_of", users_of)
    pruned = environment_history.prune(envs.wanted("new", keep=1))
    assert pruned.kept == {str(old): "in use by python (1)"}
    assert (old / f"lib/{PYTHON}/site-packages/torch.py").exists()
    assert asked[1] == [str(envs.folder / ".building-old")]


def test_what_goes_and_is_used_after_all_outlives_the_next_clean_up(envs: Envs) -> None:
    """The run was killed between taking it out of sight and putting it back."""
    envs.add("new")
    half = envs.folder / ".building-old"
    half.mkdir()
    with running(["sleep", "99"], cwd=half):
        environment_switch.clean_up(envs.wanted("new"))
        assert half.exists()
    environment_switch.clean_up(envs.wanted("new"))
    assert not half.exists()


def test_one_that_somebody_added_a_package_to_stays(envs: Envs) -> None:
    old = envs.add("old")
    envs.add("new")
    (old / f"lib/{PYTHON}/site-packages/black-24.1.dist-info").mkdir()
    assert environment_history.prune(envs.wanted("new", keep=1)).kept == {str(old): "black added since"}


def test_on_a_file_system_that_other_nodes_use_nothing_goes(envs: Envs, monkeypatch: pytest.MonkeyPatch) -> None:
    old = envs.add("old")
    envs.add("new")
    monkeypatch.setattr(environment_history, "file_system", lambda _path: "nfs4")
    assert "nfs4" in mounts.SHARED
    assert environment_history.prune(envs.wanted("new", keep=1)).kept == {str(old): "other nodes may use it (nfs4)"}


# --- going back -----------------------------------------------------------------------------------------------------


def test_back_by_one_rename(envs: Envs) -> None:
    envs.add("old")
    envs.add("new")
    step = Step(str(envs.folder / "old"), str(envs.link))
    assert environment_back.switch_all([step], check_mode=True) == [(step, str(envs.folder / "new"))]
    assert os.readlink(envs.link) == "new"
    environment_back.switch_all([step])
    assert os.readlink(envs.link) == "old"
    assert environment_back.switch_all([step]) == []


@pytest.mark.parametrize(
    ("damage", "code"),
    [("gone", "GF-ENVIRONMENT-MISSING"), ("unfinished", "GF-ENVIRONMENT-MISSING"), ("python", "GF-TORCH-IMPORT")],
)
def test_all_go_back_or_none(envs: Envs, tmp_path: Path, damage: str, code: str) -> None:
    other = Envs(tmp_path / "more")
    for each in (envs, other):
        each.add("old")
        each.add("new")
    old = other.folder / "old"
    {
        "gone": lambda: old.rename(tmp_path / "away"),
        "unfinished": (old / COMPLETE).unlink,
        "python": (old / "bin/python").unlink,
    }[damage]()
    steps = [Step(str(each.folder / "old"), str(each.link)) for each in (envs, other)]
    with pytest.raises(GpufleetError) as caught:
        environment_back.switch_all(steps)
    assert caught.value.code == code
    assert [os.readlink(each.link) for each in (envs, other)] == ["new", "new"]


def test_a_link_that_cannot_be_set_takes_the_others_back(envs: Envs, tmp_path: Path) -> None:
    other = Envs(tmp_path / "more")
    for each in (envs, other):
        each.add("old")
        each.add("new")
    other.link.unlink()
    other.link.mkdir()
    steps = [Step(str(each.folder / "old"), str(each.link)) for each in (envs, other)]
    with pytest.raises(GpufleetError) as caught:
        environment_back.switch_all(steps)
    assert caught.value.code == "GF-PATH-OCCUPIED"
    assert os.readlink(envs.link) == "new"
