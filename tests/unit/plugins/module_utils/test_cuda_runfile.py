"""A toolkit of NVIDIA's installer: in its own directory alone, whole or as before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_runfile
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "a" * 64


class Installer:
    """What the installer does with a directory, on a node below ``root``."""

    def __init__(self, root: Path, fails: bool = False) -> None:
        self.root, self.fails = root, fails
        self.command: list[str] = []
        (root / "etc/ld.so.conf.d").mkdir(parents=True, exist_ok=True)
        (root / "usr/local").mkdir(parents=True, exist_ok=True)

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.command = command
        to = next(each for each in command if each.startswith("--toolkitpath=")).partition("=")[2]
        self._write(f"{to}/bin/nvcc", "nvcc")
        self._write(f"{self.root}/etc/ld.so.conf.d/cuda-12-6.conf", f"{to}/lib64\n")
        self._write(f"{self.root}/usr/local/other", "somebody came meanwhile")
        (self.root / "usr/local/cuda").symlink_to(to)
        self._write(f"{self.root}/var/log/cuda-installer.log", "[ERROR]: Install of cuda-nvcc failed\n")
        return (1, "", "") if self.fails else (0, "", "")

    def _write(self, name: str, text: str) -> None:
        from pathlib import Path

        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_it_is_told_to_leave_the_driver_alone_and_tidied_up_after(tmp_path: Path) -> None:
    run, path = Installer(tmp_path), str(tmp_path / "opt/cuda/12.6")
    cuda_runfile.install(run, "/cache/cuda.run", path, DIGEST, str(tmp_path))
    assert run.command[:6] == ["sh", "/cache/cuda.run", "--silent", "--toolkit", "--override", "--no-man-page"]
    assert "--driver" not in run.command
    assert cuda_runfile.is_installed(path, DIGEST)
    assert not cuda_runfile.is_installed(path, "b" * 64)
    left = sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if not each.is_dir())
    assert left == [
        "opt/cuda/12.6/.gpufleet-runfile",
        "opt/cuda/12.6/bin/nvcc",
        "usr/local/other",
        "var/log/cuda-installer.log",
    ]


def test_a_file_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "opt/cuda/12.6"
    cuda_runfile.install(Installer(tmp_path), "/cache/cuda.run", str(path), DIGEST, str(tmp_path))
    (path / "bin/nvcc").write_text("edited", encoding="utf-8")
    assert not cuda_runfile.is_installed(str(path), DIGEST)


def test_where_it_fails_the_toolkit_before_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "opt/cuda/12.6"
    path.mkdir(parents=True)
    (path / "before").write_text("x", encoding="utf-8")
    with pytest.raises(GpufleetError) as caught:
        cuda_runfile.install(Installer(tmp_path, fails=True), "/cache/cuda.run", str(path), DIGEST, str(tmp_path))
    assert caught.value.code == "GF-CUDA-RUNFILE"
    assert "cuda-nvcc failed" in caught.value.message
    assert [each.name for each in path.iterdir()] == ["before"]
    assert [each.name for each in path.parent.iterdir()] == ["12.6"]


def test_one_that_was_cut_off_is_made_anew_and_the_one_before_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "opt/cuda/12.6"
    (tmp_path / "opt/cuda/12.6.gpufleet-old/bin").mkdir(parents=True)
    path.mkdir()
    (path / "half").write_text("x", encoding="utf-8")
    cuda_runfile.install(Installer(tmp_path), "/cache/cuda.run", str(path), DIGEST, str(tmp_path))
    assert sorted(each.name for each in path.iterdir()) == [".gpufleet-runfile", "bin"]
    assert [each.name for each in path.parent.iterdir()] == ["12.6"]
