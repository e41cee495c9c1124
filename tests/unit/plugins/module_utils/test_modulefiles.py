"""Modulefiles as text and as files; the real Lmod and Environment Modules read them in tests/integration/test_modulefiles.py."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.modulefiles import Wish, apply, render, search_path

CUDA = Wish(
    "cuda",
    "NVIDIA CUDA toolkit",
    {"13.0": "/opt/gpufleet/cuda/13.0", "13.1": "/opt/gpufleet/cuda/13.1"},
    "13.1",
    {"CUDA_HOME": "{path}"},
    {"PATH": ["{path}/bin", "{path}/extra"], "LD_LIBRARY_PATH": ["{path}/lib64"]},
)
CUDNN = CUDA._replace(name="cudnn", versions={"9-cuda13": "/opt/gpufleet/cudnn/9-cuda13"}, default="9-cuda13")
DIRECTORY = "/opt/gpufleet/modulefiles"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_modulefile_says_what_it_sets() -> None:
    lines = render(CUDA, "13.0").splitlines()
    assert lines[0] == "#%Module1.0"
    assert lines[-5:] == [
        "conflict cuda",
        "setenv CUDA_HOME /opt/gpufleet/cuda/13.0",
        # Each is put before the one put last, so the first of the list goes last.
        "prepend-path PATH /opt/gpufleet/cuda/13.0/extra",
        "prepend-path PATH /opt/gpufleet/cuda/13.0/bin",
        "prepend-path LD_LIBRARY_PATH /opt/gpufleet/cuda/13.0/lib64",
    ]


def test_two_programs_share_the_search_path_and_the_last_one_takes_it_along(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert apply(DIRECTORY, "cuda", CUDA, root, check_mode=True).diff
    assert files(tmp_path) == []
    first = apply(DIRECTORY, "cuda", CUDA, root)
    apply(DIRECTORY, "cudnn", CUDNN, root)
    own = [f"opt/gpufleet/modulefiles/cuda/{name}" for name in (".version", "13.0", "13.1")]
    more = [f"opt/gpufleet/modulefiles/cudnn/{name}" for name in (".version", "9-cuda13")]
    path = "etc/profile.d/zz-gpufleet-modules.sh"
    assert files(tmp_path) == sorted([path, *own, *more])
    assert sorted(first.files) == sorted(f"{tmp_path}/{name}" for name in [path, *own])
    assert apply(DIRECTORY, "cuda", CUDA, root).diff == []
    apply(DIRECTORY, "cuda", None, root)
    assert files(tmp_path) == sorted([path, *more])
    assert apply(DIRECTORY, "cudnn", None, root).files == []
    assert list((tmp_path / "opt/gpufleet").iterdir()) == []
    assert files(tmp_path) == []


def test_a_version_of_before_stays_with_its_directory_and_a_strangers_modulefile_does(tmp_path: Path) -> None:
    apply(DIRECTORY, "cuda", CUDA, str(tmp_path))
    folder = tmp_path / "opt/gpufleet/modulefiles/cuda"
    (folder / "12.0-site").write_text("#%Module1.0\nsetenv A 1\n")
    (tmp_path / "opt/gpufleet/cuda/13.0").mkdir(parents=True)
    apply(DIRECTORY, "cuda", CUDA._replace(versions={"13.1": "/x"}), str(tmp_path))
    assert (folder / "13.0").exists()
    (tmp_path / "opt/gpufleet/cuda/13.0").rmdir()
    again = apply(DIRECTORY, "cuda", CUDA._replace(versions={"13.1": "/x"}), str(tmp_path))
    assert files(folder) == [".version", "12.0-site", "13.1"], "nothing is there any more that it would lead to"
    assert [each["before_header"] for each in again.diff] == [str(folder / "13.0")]
    apply(DIRECTORY, "cuda", None, str(tmp_path))
    assert files(folder) == ["12.0-site"]


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")
def test_tcl_reads_whatever_is_in_a_path(tmp_path: Path) -> None:
    nasty = "/opt/a b/$x[y]{\"z\\;#'"
    text = render(CUDA._replace(versions={"1": nasty}), "1")
    words = "proc module-whatis x {}; proc conflict x {}; proc prepend-path {a b} {}; proc setenv {a b} {puts $b}"
    (tmp_path / "t.tcl").write_text(words + "\n" + text + "ModulesHelp\n")
    done = subprocess.run(["tclsh", str(tmp_path / "t.tcl")], capture_output=True, text=True, check=True)
    assert done.stdout == nasty + "\n"
    assert done.stderr == f"NVIDIA CUDA toolkit 1, in {nasty}\n"


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("shell", "command"), [("sh", ["sh"]), ("csh", ["tcsh", "-f"]), ("fish", ["fish", "--no-config"])]
)
def test_the_directory_is_added_where_a_module_system_has_begun(
    tmp_path: Path, shell: str, command: list[str], begun: bool
) -> None:
    path = tmp_path / "search"
    path.write_text(search_path(DIRECTORY)[shell])
    environment = {"PATH": "/usr/bin:/bin", "MODULEPATH": "/usr/share/modules"}
    environment.update({"MODULESHOME": "/usr/share/modules"} if begun else {})
    read = f". {path}" if shell == "sh" else f"source {path}"
    done = subprocess.run([*command, "-c", f"{read}\nenv"], env=environment, capture_output=True, text=True, check=True)
    expected = f"{DIRECTORY}:/usr/share/modules" if begun else "/usr/share/modules"
    assert f"MODULEPATH={expected}" in done.stdout.splitlines()


@pytest.mark.parametrize(
    "wish",
    [
        CUDA._replace(name="../cuda"),
        CUDA._replace(versions={"a/b": "/x"}, default="a/b"),
        CUDA._replace(versions={"1": "relative"}, default="1"),
        CUDA._replace(default="9"),
    ],
)
def test_what_is_no_modulefile_is_refused(tmp_path: Path, wish: Wish) -> None:
    with pytest.raises(GpufleetError) as caught:
        apply(DIRECTORY, wish.name, wish, str(tmp_path))
    assert caught.value.code == "GF-WISH-INVALID"
    assert files(tmp_path) == []
