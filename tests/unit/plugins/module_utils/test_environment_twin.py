"""A second environment of the same lock, made of links; and what every Python of an environment does at its start."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_clone,
    environment_hook,
    environment_proof,
    environment_survey,
)
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import run_in, site, want
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel


@pytest.fixture
def twin(wanted: Wanted, index: Index, tmp_path: Path) -> Wanted:
    """The same wish under another name; the first one stands."""
    ensure(wanted)
    index.requests.clear()
    # Neither index nor cache: only the other environment has the files.
    shutil.rmtree(wanted.cache_dir)
    index.mode = "503"
    return dataclasses.replace(
        wanted,
        name="course",
        path=str(tmp_path / "opt/envs/course/2.0.1-cu117-one"),
        link=str(tmp_path / "opt/envs/course/current"),
    )


def test_a_twin_is_made_of_links_and_stands_by_itself(twin: Wanted, wanted: Wanted, index: Index) -> None:
    assert ensure(twin)["action"] == "built"
    assert [each for each in index.requests if "/files/" in each] == []
    for name in ("leaf.py", "torch/version.py"):
        assert os.path.samefile(site(twin) / name, site(wanted) / name)
    compiled = next((site(wanted) / "torch/__pycache__").glob("version.*.pyc"))
    assert os.path.samefile(compiled, site(twin) / "torch/__pycache__" / compiled.name)
    assert run_in(twin, "import torch; print(torch.__file__)").startswith(f"{twin.link}/lib/")
    program = subprocess.run([f"{twin.path}/bin/leaf"], capture_output=True, text=True, check=True)
    assert program.stdout.strip() == twin.path
    assert Path(wanted.path, "bin/leaf").read_text() != Path(twin.path, "bin/leaf").read_text()
    assert environment_survey.survey(twin).healthy()
    assert ensure(twin)["changed"] is False
    assert ensure(wanted)["changed"] is False
    prompt = Path(twin.path, "pyvenv.cfg").read_text()
    assert "prompt = course" in prompt


@pytest.mark.parametrize("how", ["edited", "added", "interpreter", "companions", "torch"])
def test_an_environment_that_differs_is_no_twin(twin: Wanted, wanted: Wanted, how: str) -> None:
    if how == "edited":
        (site(wanted) / "leaf.py").write_text("x = 2\n")
    elif how == "added":
        (site(wanted) / "black").mkdir()
        (site(wanted) / "black/__init__.py").touch()
    elif how == "interpreter":
        twin = dataclasses.replace(twin, interpreter="/usr/bin/python3.99")
    elif how == "companions":
        twin = dataclasses.replace(twin, companions={})
    else:
        twin = dataclasses.replace(twin, torch_version="2.0.1+cu118")
    assert environment_clone.source(twin) is None


@pytest.mark.parametrize("how", ["another file system", "changed meanwhile"])
def test_where_links_cannot_be_made_it_is_installed(
    twin: Wanted, wanted: Wanted, index: Index, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    index.mode = "ok"
    made: list[str] = []

    def link(source: str, place: str, **_named: bool) -> None:
        made.append(place)
        if how == "another file system" and len(made) == 5:
            raise OSError(18, "Invalid cross-device link", place)
        shutil.copyfile(source, place, follow_symlinks=False)

    monkeypatch.setattr(os, "link", link)
    assert ensure(twin)["action"] == "built"
    monkeypatch.undo()
    assert not os.path.samefile(site(twin) / "leaf.py", site(wanted) / "leaf.py")
    assert environment_survey.survey(twin).healthy()


def test_a_twin_whose_python_does_not_start(twin: Wanted) -> None:
    ensure(twin)
    os.unlink(f"{twin.path}/bin/python")
    with pytest.raises(GpufleetError) as caught:
        environment_proof.prove_start(twin.name, twin.path)
    assert caught.value.code == "GF-TORCH-IMPORT"


# --- what is compiled, and what uv leaves ---------------------------------------------------------------------------


def test_every_module_is_compiled_when_the_environment_is_built(wanted: Wanted) -> None:
    ensure(wanted)
    for module in ("leaf", "torch/__init__", "torchvision/__init__"):
        path = site(wanted) / f"{module}.py"
        assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), module


def test_what_a_killed_uv_was_unpacking_goes_and_nothing_is_writable(wanted: Wanted) -> None:
    left = Path(wanted.cache_dir, ".tmpAbCdEf/torch")
    ensure(wanted)
    left.mkdir(parents=True)
    (left / "half").touch()
    ensure(wanted)
    assert not left.parent.exists()
    writable = [
        path for path in Path(wanted.prefix).rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022
    ]
    assert writable == []


def test_a_cache_in_which_uv_works_is_left_alone(wanted: Wanted) -> None:
    import fcntl

    ensure(wanted)
    left = Path(wanted.cache_dir, ".tmpAbCdEf")
    left.mkdir()
    with open(os.path.join(wanted.cache_dir, ".lock")) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        uv_tool.tidy_cache(wanted.cache_dir)
    assert left.exists()


# --- the start of an environment's Python ---------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["edited", "gone", "list gone"])
def test_a_damaged_start_is_mended(wanted: Wanted, damage: str) -> None:
    ensure(wanted)
    hook = site(wanted) / environment_hook.HOOK
    if damage == "edited":
        hook.write_text("")
    else:
        (hook if damage == "gone" else Path(wanted.path, environment_hook.LIBRARIES)).unlink()
    assert ensure(wanted)["action"] == "repaired"
    assert hook.read_text() == environment_hook.HOOKS[environment_hook.HOOK]
    assert ensure(wanted)["changed"] is False


def compile_library(path: Path, name: str, answer: int, *needs: str) -> None:
    """A shared library with one function, which looks for what it needs as NVIDIA's do: beside itself, after LD_LIBRARY_PATH."""
    path.mkdir(parents=True, exist_ok=True)
    source = path / f"{name}.c"
    source.write_text(f"int {name}_answer(void) {{ return {answer}; }}\n")
    options = [
        "-shared",
        "-fPIC",
        f"-Wl,-soname,lib{name}.so.8",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN",
        "-L",
        str(path),
    ]
    libraries = ["-Wl,--no-as-needed", *(f"-l:lib{each}.so.8" for each in needs)]
    subprocess.run(["gcc", *options, "-o", str(path / f"lib{name}.so.8"), str(source), *libraries], check=True)
    source.unlink()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_libraries_of_another_directory_are_never_taken(index: Index, tmp_path: Path, wanted: Wanted) -> None:
    ensure(wanted)
    own, foreign = site(wanted) / "nvidia/cudnn/lib", tmp_path / "foreign"
    for folder, answer in ((own, 1), (foreign, 2)):
        compile_library(folder, "cudnn_ops", answer)
        compile_library(folder, "cudnn", answer, "cudnn_ops")
    environment_hook.write(wanted.path, str(site(wanted)))
    order = Path(wanted.path, environment_hook.LIBRARIES).read_text().splitlines()
    assert order == ["nvidia/cudnn/lib/libcudnn_ops.so.8", "nvidia/cudnn/lib/libcudnn.so.8"]
    ask = "import ctypes, {}; print(ctypes.CDLL('libcudnn.so.8').cudnn_answer(), ctypes.CDLL('libcudnn_ops.so.8').cudnn_ops_answer())"
    for module, answer in (("torch", "1 1"), ("json", "2 2")):
        said = subprocess.run(
            [f"{wanted.path}/bin/python", "-c", ask.format(module)],
            env={"LD_LIBRARY_PATH": f"/nowhere:{foreign}"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.strip() == answer, "without torch nobody's libraries are loaded"


def test_libraries_that_need_each_other_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "nvidia/x/lib"
    folder.mkdir(parents=True)
    for name in ("liba.so", "libb.so"):
        (folder / name).touch()
    monkeypatch.setattr(
        environment_hook, "needed", lambda path: ["libb.so", "libc.so.6"] if path.endswith("liba.so") else ["liba.so"]
    )
    assert environment_hook.load_order(str(tmp_path)) == ["nvidia/x/lib/libb.so", "nvidia/x/lib/liba.so"]


def test_a_file_that_is_no_library_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_text("INPUT(-lx)")
    assert environment_hook.needed(str(tmp_path / "x.so")) == []
    assert environment_hook.needed(str(tmp_path / "nowhere.so")) == []


@pytest.mark.parametrize("options", [["--system-site-packages"], []])
def test_a_users_environment_on_top(wanted: Wanted, tmp_path: Path, options: list[str]) -> None:
    ensure(wanted)
    mine = tmp_path / "mine"
    subprocess.run([f"{wanted.path}/bin/python", "-m", "venv", "--without-pip", *options, str(mine)], check=True)
    tell = "import leaf; print(leaf.__file__)"
    said = subprocess.run([f"{mine}/bin/python", "-c", tell], capture_output=True, text=True, check=False)
    if not options:
        assert "No module named 'leaf'" in said.stderr
        return
    assert said.stdout.startswith(f"{wanted.link}/lib/"), said.stderr
    own = next(mine.glob("lib/python3*/site-packages"))
    (own / "leaf.py").write_text("x = 3\n")
    said = subprocess.run([f"{mine}/bin/python", "-c", tell], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(own / "leaf.py"), "the user's own comes first"


def test_a_users_environment_on_top_has_a_pip_that_installs_into_it(
    wanted: Wanted, index: Index, tmp_path: Path
) -> None:
    ensure(wanted)
    build_wheel(tmp_path, "mine", "1.0", {"mine.py": "x = 1\n"})
    mine = tmp_path / "own"
    before = sorted(Path(wanted.path).rglob("*"))
    subprocess.run([f"{wanted.path}/bin/python", "-m", "venv", "--system-site-packages", str(mine)], check=True)
    install = [f"{mine}/bin/pip", "install", "-q", "--no-index", str(tmp_path / "mine-1.0-py3-none-any.whl")]
    subprocess.run(install, check=True)

    tell = [f"{mine}/bin/python", "-c", "import mine, torch; print(mine.__file__, torch.__file__)"]
    own, torch = subprocess.run(tell, capture_output=True, text=True, check=True).stdout.split()

    assert own.startswith(f"{mine}/lib/") and torch.startswith(f"{wanted.link}/lib/")
    assert sorted(Path(wanted.path).rglob("*")) == before, "the node's environment is as it was"


def test_a_users_environment_on_one_that_is_not_active_stays_with_it(
    wanted: Wanted, index: Index, tmp_path: Path
) -> None:
    ensure(wanted)
    build_wheel(index.folder, "twig", "1.0", {"twig.py": "x = 1\n"})
    ensure(want(index, tmp_path, "torch==2.0.1", "twig==1.0", directory="2.0.1-cu117-two"))
    mine = ["-m", "venv", "--without-pip", "--system-site-packages", str(tmp_path / "mine")]
    subprocess.run([f"{wanted.path}/bin/python", *mine], check=True)
    tell = [f"{tmp_path}/mine/bin/python", "-c", "import leaf; print(leaf.__file__)"]
    assert subprocess.run(tell, capture_output=True, text=True, check=True).stdout.startswith(f"{wanted.path}/lib/")
