# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CUDA facts from small trees that stand for a node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda, record_elf
from ansible_collections.gpufleet.stack.plugins.module_utils.shell_variables import read
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

ENVIRONMENT = "opt/gpufleet/envs/default"
VERSION_PY = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.0.1+cu117'
debug = False
cuda: Optional[str] = '11.7'
git_version = 'e9ebda29d87ce0916ab08c06ab26fd3766a870e5'
hip: Optional[str] = None
"""


def write(root: Path, path: str, text: str = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def link(root: Path, path: str, target: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)


def package(root: Path, name: str, version: str) -> None:
    write(root, "var/lib/dpkg/status", f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n")


def facts(root: Path) -> dict[str, Any]:
    found = cuda.collect(str(root))
    assert json.loads(json.dumps(found)) == found
    return found


def test_nothing_is_there(tmp_path: Path) -> None:
    assert facts(tmp_path) == {
        "toolkits": [],
        "cudnn": [],
        "environment": {"cuda_home": None, "path": [], "ld_library_path": [], "set_by": []},
        "torch": [],
        "shadowed": [],
        "errors": [],
    }


def test_nvidias_toolkits_side_by_side_and_the_default(tmp_path: Path) -> None:
    write(tmp_path, "usr/local/cuda-12.4/version.json", '{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}}')
    write(tmp_path, "usr/local/cuda-12.4/bin/nvcc")
    write(tmp_path, "usr/local/cuda-10.2/version.txt", "CUDA Version 10.2.89\n")
    link(tmp_path, "usr/local/cuda-12", "/etc/alternatives/cuda-12")
    link(tmp_path, "etc/alternatives/cuda-12", "/usr/local/cuda-12.4")
    link(tmp_path, "usr/local/cuda", "/etc/alternatives/cuda")
    link(tmp_path, "etc/alternatives/cuda", "/usr/local/cuda-12.4")
    package(tmp_path, "cuda-nvcc-12-4", "12.4.131-1")
    old = {"version": "10.2.89", "path": "/usr/local/cuda-10.2", "nvcc": None, "source": "runfile", "default": False}
    new = {
        "version": "12.4.1",
        "path": "/usr/local/cuda-12.4",
        "nvcc": "/usr/local/cuda-12.4/bin/nvcc",
        "source": "nvidia",
        "default": True,
    }
    assert facts(tmp_path)["toolkits"] == [old, new]


@pytest.mark.parametrize(
    ("path", "text", "version"),
    [
        ("version.json", "{broken", "12.4"),  # the directory's name is left
        ("include/cuda.h", "#define CUDA_VERSION 12040\n", "12.4"),
        ("targets/x86_64-linux/include/cuda.h", "#define CUDA_VERSION 11080\n", "11.8"),
        ("bin/nvcc", "\x7fELF\0Cuda compilation tools, release 12.6, V12.6.20\0", "12.6"),
        ("bin/nvcc", "", "12.4"),
    ],
)
def test_where_a_toolkits_version_stands(tmp_path: Path, path: str, text: str, version: str) -> None:
    write(tmp_path, f"usr/local/cuda-12.4/{path}", text)
    assert [toolkit["version"] for toolkit in facts(tmp_path)["toolkits"]] == [version]


def test_debians_toolkit_and_the_link_of_ours_to_it(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/nvidia-cuda-toolkit/bin/nvcc")
    write(tmp_path, "usr/lib/cuda/nvvm/libdevice/libdevice.10.bc")
    package(tmp_path, "nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1")
    link(tmp_path, "opt/gpufleet/cuda/11.8", "/usr/lib/cuda")
    link(tmp_path, "usr/local/cuda", "/opt/gpufleet/cuda/11.8")
    ours, debians = facts(tmp_path)["toolkits"]
    assert (ours["version"], ours["source"], ours["default"]) == ("11.8", "gpufleet", True)
    assert debians == {
        "version": "11.8.0",
        "path": "/usr/lib/cuda",
        "nvcc": "/usr/lib/nvidia-cuda-toolkit/bin/nvcc",
        "source": "distro",
        "default": False,
    }


def test_a_directory_instead_of_the_default_link(tmp_path: Path) -> None:
    write(tmp_path, "usr/local/cuda/version.txt", "CUDA Version 9.0.176\n")
    (toolkit,) = facts(tmp_path)["toolkits"]
    assert (toolkit["version"], toolkit["path"], toolkit["default"]) == ("9.0.176", "/usr/local/cuda", True)


def test_cudnn_below_the_prefix(tmp_path: Path) -> None:
    folder = "/opt/gpufleet/cudnn/8.9.6.50-cuda11"
    write(tmp_path, f"{folder[1:]}/lib/libcudnn.so.8")
    expected = {
        "version": "8.9.6.50",
        "path": folder,
        "cuda_major": 11,
        "source": "gpufleet",
        "on_loader_path": False,
        "loader_takes": False,
    }
    assert facts(tmp_path)["cudnn"] == [expected]
    write(tmp_path, "etc/ld.so.conf.d/cudnn.conf", f"# ours\n{folder}/lib\n")
    assert facts(tmp_path)["cudnn"] == [{**expected, "on_loader_path": True, "loader_takes": True}]


@pytest.mark.parametrize(
    ("package_name", "package_version", "version", "major"),
    [
        ("libcudnn8", "8.9.7.29-1+cuda12.2", "8.9.7", 12),
        ("libcudnn9-cuda-13", "9.28.0.1-1", "9.28.0", 13),
        ("unrelated", "1", "9.1.0", None),
    ],
)
def test_cudnn_of_the_system(
    tmp_path: Path, package_name: str, package_version: str, version: str, major: int | None
) -> None:
    package(tmp_path, package_name, package_version)
    write(tmp_path, f"usr/lib/x86_64-linux-gnu/libcudnn.so.{version[0]}")
    write(tmp_path, f"usr/lib/x86_64-linux-gnu/libcudnn.so.{version}")
    (copy,) = facts(tmp_path)["cudnn"]
    assert (copy["version"], copy["cuda_major"], copy["on_loader_path"]) == (version, major, True)
    assert copy["source"] == ("copy" if major is None else "package")
    assert copy["loader_takes"] is True


def test_old_and_new_cudnn_in_one_directory(tmp_path: Path) -> None:
    folder, includes = "usr/lib/x86_64-linux-gnu", "usr/include/x86_64-linux-gnu"
    status = "".join(
        f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n"
        for name, version in (("libcudnn8", "8.9.7.29-1+cuda12.2"), ("libcudnn9-cuda-13", "9.13.0.50-1"))
    )
    write(tmp_path, "var/lib/dpkg/status", status)
    write(tmp_path, f"{folder}/libcudnn.so.8")
    write(tmp_path, f"{folder}/libcudnn.so.9")
    header = "#define CUDNN_MAJOR {}\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 7\n"
    write(tmp_path, f"{includes}/cudnn_version_v9.h", header.format(9))
    write(tmp_path, f"{includes}/cudnn_version.h", header.format(8))
    found = [(copy["version"], copy["cuda_major"], copy["loader_takes"]) for copy in facts(tmp_path)["cudnn"]]
    assert found == [("8.9.7", 12, True), ("9.9.7", 13, True)]


def test_the_loader_takes_one_copy_of_several(tmp_path: Path) -> None:
    for folder in ("usr/lib/x86_64-linux-gnu", "usr/local/cuda-11.8/lib64", "opt/gpufleet/cudnn/8.9.6.50-cuda11/lib"):
        write(tmp_path, f"{folder}/libcudnn.so.8")
    write(tmp_path, "usr/local/cuda-11.8/version.txt", "CUDA Version 11.8.89\n")

    def taken() -> list[str]:
        return [copy["path"] for copy in facts(tmp_path)["cudnn"] if copy["loader_takes"]]

    assert taken() == ["/usr/lib/x86_64-linux-gnu"]
    write(tmp_path, "etc/ld.so.conf.d/cuda.conf", "/usr/local/cuda-11.8/lib64\n")
    assert taken() == ["/usr/local/cuda-11.8"]
    write(tmp_path, "etc/profile.d/x.sh", "export LD_LIBRARY_PATH=/opt/gpufleet/cudnn/8.9.6.50-cuda11/lib\n")
    assert taken() == ["/opt/gpufleet/cudnn/8.9.6.50-cuda11"]


def test_cudnn_copied_into_a_toolkit(tmp_path: Path) -> None:
    write(tmp_path, "usr/local/cuda-11.8/lib64/libcudnn.so.8")
    header = "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 6\n#define CUDNN_PATCHLEVEL 0\n"
    write(tmp_path, "usr/local/cuda-11.8/include/cudnn_version.h", header)
    (copy,) = facts(tmp_path)["cudnn"]
    assert copy == {
        "version": "8.6.0",
        "path": "/usr/local/cuda-11.8",
        "cuda_major": 11,
        "source": "copy",
        "on_loader_path": False,
        "loader_takes": False,
    }


@pytest.mark.parametrize(
    ("text", "home", "path", "libraries"),
    [
        ("export CUDA_HOME=/usr/local/cuda\n", "/usr/local/cuda", ["/bin"], []),
        ("CUDA_PATH='/a b'\n", "/a b", ["/bin"], []),
        ('export CUDA_HOME=/c\nexport PATH="$CUDA_HOME/bin${PATH:+:${PATH}}"\n', "/c", ["/c/bin", "/bin"], []),
        ('case ":$PATH:" in *":/cuda/bin:"*) ;; *) PATH="/cuda/bin:$PATH" ;; esac\n', None, ["/cuda/bin", "/bin"], []),
        ("export LD_LIBRARY_PATH=/x:${LD_LIBRARY_PATH:-/y}::/x\n", None, ["/bin"], ["/x", "/y"]),
        ("  # export CUDA_HOME=/no\n", None, ["/bin"], []),
        ("export CUDA_HOME=$(dirname $(which nvcc))\n", None, ["/bin"], []),
        ("export CUDA_HOME='$HOME'\n", "$HOME", ["/bin"], []),
    ],
)
def test_profile(tmp_path: Path, text: str, home: str | None, path: list[str], libraries: list[str]) -> None:
    write(tmp_path, "etc/environment", 'PATH="/bin"\n')
    write(tmp_path, "etc/profile.d/cuda.sh", text)
    found = read(Sysroot(str(tmp_path)))
    assert (found["cuda_home"], found["path"], found["ld_library_path"]) == (home, path, libraries)
    assert found["set_by"] == (["/etc/profile.d/cuda.sh"] if home or libraries or len(path) > 1 else [])


def test_only_who_adds_cuda_to_path_is_named(tmp_path: Path) -> None:
    write(tmp_path, "etc/profile.d/a.sh", "export PATH=/usr/local/cuda/bin:$PATH\n")
    write(tmp_path, "etc/profile.d/b.sh", "export PATH=$PATH:/snap/bin\n")
    assert read(Sysroot(str(tmp_path)))["set_by"] == ["/etc/profile.d/a.sh"]


def environment(root: Path, name: str, version_py: str = VERSION_PY) -> str:
    site = f"{ENVIRONMENT}/{name}/lib/python3.11/site-packages"
    write(root, f"{site}/torch/version.py", version_py)
    (root / site / "torch/lib").mkdir()
    library = record_elf.build(".rodata", b"\0sm_37 sm_86\0")
    (root / site / "torch/lib/libtorch_python.so").write_bytes(library)
    write(root, f"{ENVIRONMENT}/{name}/pyvenv.cfg", "home = /usr/bin\nversion_info = 3.11.2\n")
    return site


def test_torch(tmp_path: Path) -> None:
    site = environment(tmp_path, "2.0.1-cu117-py311-aaaaaaaa")
    (tmp_path / site / "nvidia_cudnn_cu11-8.5.0.96.dist-info").mkdir()
    environment(tmp_path, "2.0.0-cpu-py311-bbbbbbbb", "__version__ = '2.0.0+cpu'\ncuda = None\n")
    (tmp_path / ENVIRONMENT / "half-made").mkdir()
    link(tmp_path, f"{ENVIRONMENT}/current", "2.0.1-cu117-py311-aaaaaaaa")
    old, new = facts(tmp_path)["torch"]
    assert new == {
        "environment": "default",
        "path": f"/{ENVIRONMENT}/2.0.1-cu117-py311-aaaaaaaa",
        "current": True,
        "version": "2.0.1+cu117",
        "cuda": "11.7",
        "cudnn": "8.5.0.96",
        "python": "3.11.2",
        "arch_list": ["3.7", "8.6"],
    }
    assert (old["version"], old["cuda"], old["cudnn"], old["current"]) == ("2.0.0+cpu", None, None, False)
    assert old["arch_list"] == []


def test_what_a_killed_run_left_is_no_torch(tmp_path: Path) -> None:
    for name in ("half", "whole", ".building-gone"):
        site = tmp_path / "opt/gpufleet/envs/default" / name / "lib/python3.11/site-packages/torch"
        site.mkdir(parents=True)
        (site / "version.py").write_text("__version__ = '2.0.1+cu117'\ncuda = '11.7'\n")
        (tmp_path / "opt/gpufleet/envs/default" / name / ".gpufleet-building").touch()
    (tmp_path / "opt/gpufleet/envs/default/whole/.complete").write_text("{}")
    found = cuda.collect(str(tmp_path))["torch"]
    assert [torch["path"] for torch in found] == ["/opt/gpufleet/envs/default/whole"]


def test_a_torch_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    environment(tmp_path, "x", "")
    found = facts(tmp_path)
    assert [error["code"] for error in found["errors"]] == ["GF-TORCH-UNREADABLE"]
    assert found["torch"][0]["version"] is None


def test_shadowed_libraries(tmp_path: Path) -> None:
    site = environment(tmp_path, "x")
    write(tmp_path, f"{site}/nvidia/cublas/lib/libcublas.so.11")
    write(tmp_path, f"{site}/nvidia/cudnn/lib/libcudnn.so.8")
    write(tmp_path, "usr/local/cuda-11.8/lib64/libcublas.so.11")
    write(tmp_path, "srv/old/libcublas.so.11")
    assert facts(tmp_path)["shadowed"] == []
    value = f"/usr/local/cuda-11.8/lib64:/srv/old:/{site}/nvidia/cudnn/lib"
    write(tmp_path, "etc/profile.d/cuda.sh", f"export LD_LIBRARY_PATH={value}\n")
    assert facts(tmp_path)["shadowed"] == [
        {
            "library": "libcublas.so.11",
            "path": f"/{site}/nvidia/cublas/lib/libcublas.so.11",
            "by": "/usr/local/cuda-11.8/lib64/libcublas.so.11",
        }
    ]


def test_links_stay_inside_the_sysroot(tmp_path: Path) -> None:
    node = Sysroot(str(tmp_path))
    link(tmp_path, "a", "/b/c")
    link(tmp_path, "b", "../../../d")
    link(tmp_path, "loop", "loop")
    assert node.real("/a/x") == "/d/c/x"
    assert node.real("/loop") == "/loop"
    assert node.text("/loop") is None
