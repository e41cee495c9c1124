# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_layout
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

LIB = "/usr/lib/x86_64-linux-gnu/"
SOURCE = "nvidia-cuda-toolkit (11.8.0-5~deb12u1)"
# Name, source, depends, files: the shape of Debian 12's packages, shortened.
PACKAGES = [
    ("nvidia-cuda-toolkit", SOURCE, "nvidia-cuda-dev (= 1), nvidia-profiler, g++-11 | clang-14, libc6",
     ["/usr/bin/nvcc", "/usr/include/nvvm.h", "/usr/lib/nvidia-cuda-toolkit/bin/cicc",
      "/usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc", "/usr/share/doc/nvidia-cuda-toolkit/copyright"]),
    ("nvidia-cuda-dev", SOURCE, "libcudart11.0, libthrust-dev, libcuda1",
     ["/usr/include/cuda.h", "/usr/include/crt/host_defines.h", "/usr/include/shared/ours.h",
      LIB + "libcudart.so", LIB + "stubs/libcuda.so", LIB + "libcudart_static.a"]),
    ("libcudart11.0", SOURCE, "libc6", [LIB + "libcudart.so.11.0", LIB + "libcudart.so.11.8.89"]),
    ("libthrust-dev", "libthrust", "", ["/usr/include/thrust/sort.h"]),
    ("libcuda1", "nvidia-graphics-drivers", "libc6", [LIB + "libcuda.so.1"]),
    ("libc6", "glibc", "", [LIB + "libc.so.6"]),
    ("g++-11", "gcc-11", "libc6", ["/usr/bin/g++-11"]),
    ("nvidia-cudnn", "nvidia-cudnn", "", [LIB + "libcudnn.so.8"]),
]  # fmt: skip


@pytest.fixture
def node(tmp_path):
    """A Debian root with the toolkit installed."""
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    stanzas = []
    for name, source, depends, files in PACKAGES:
        stanzas.append(
            f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {source}\n"
            f"Version: 11.8.89~11.8.0-5~deb12u1\nDepends: {depends}\nDescription: x\n more\n"
        )
        for path in files:
            inside = tmp_path / path[1:]
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        suffix = ":amd64" if name.startswith("lib") else ""
        (info / f"{name}{suffix}.list").write_text("/.\n/usr\n/usr/include\n" + "\n".join(files) + "\n")
    (tmp_path / "usr/include/shared/theirs.h").touch()
    (tmp_path / "var/lib/dpkg/status").write_text("\n".join(stanzas))
    return str(tmp_path)


def test_layout_is_that_of_a_cuda_toolkit(node):
    wanted = cuda_layout.wanted_layout(["nvidia-cuda-toolkit"], node)
    version = json.loads(wanted.pop("version.json"))
    assert wanted == {
        "bin/nvcc": "/usr/bin/nvcc",
        "include/crt": "/usr/include/crt",
        "include/cuda.h": "/usr/include/cuda.h",
        "include/nvvm.h": "/usr/include/nvvm.h",
        "include/shared/ours.h": "/usr/include/shared/ours.h",
        "include/thrust": "/usr/include/thrust",
        "lib64/libcudart.so": LIB + "libcudart.so",
        "lib64/libcudart.so.11.0": LIB + "libcudart.so.11.0",
        "lib64/libcudart.so.11.8.89": LIB + "libcudart.so.11.8.89",
        "lib64/libcudart_static.a": LIB + "libcudart_static.a",
        "lib64/stubs/libcuda.so": LIB + "stubs/libcuda.so",
        "nvvm/bin/cicc": "/usr/lib/nvidia-cuda-toolkit/bin/cicc",
        "nvvm/libdevice/libdevice.10.bc": "/usr/lib/nvidia-cuda-toolkit/libdevice/libdevice.10.bc",
    }
    assert version["cuda"]["version"] == "11.8.0"
    assert version["cuda_nvcc"]["version"] == "11.8.89"


def test_libraries_of_others_stay_out(node):
    wanted = cuda_layout.wanted_layout(["nvidia-cuda-toolkit", "g++-11"], node)
    assert not [place for place in wanted if any(name in place for name in ("libc.so", "libcuda.so.1", "cudnn", "g++"))]


def test_toolkit_that_is_not_installed_is_an_error(tmp_path):
    with pytest.raises(GpufleetError) as caught:
        cuda_layout.wanted_layout(["nvidia-cuda-toolkit"], str(tmp_path))
    assert caught.value.code == "GF-CUDA-LAYOUT"


def test_what_was_made_is_found_again(node, tmp_path):
    wanted = cuda_layout.wanted_layout(["nvidia-cuda-toolkit"], node)
    path = str(tmp_path / "opt/cuda/11.8")
    cuda_layout.make(path, wanted)
    assert cuda_layout.present(path) == wanted
    assert os.listdir(os.path.dirname(path)) == ["11.8"]


def test_damaged_layout_is_replaced(node, tmp_path):
    wanted = cuda_layout.wanted_layout(["nvidia-cuda-toolkit"], node)
    path = tmp_path / "opt/cuda/11.8"
    cuda_layout.make(str(path), wanted)
    (path / "bin/nvcc").unlink()
    (path / "lib64/libz.so.1").symlink_to("/lib/libz.so.1")
    assert cuda_layout.present(str(path)) != wanted
    cuda_layout.make(str(path), wanted)
    assert cuda_layout.present(str(path)) == wanted


def test_link_that_is_not_there_may_be_set(tmp_path):
    assert cuda_layout.check_link(str(tmp_path / "cuda"), ["/opt/gpufleet/cuda"]) is None


@pytest.mark.parametrize("target", ["/opt/gpufleet/cuda/11.8", "/nowhere/at/all"])
def test_our_own_and_broken_links_may_be_set(tmp_path, target):
    (tmp_path / "cuda").symlink_to(target)
    assert cuda_layout.check_link(str(tmp_path / "cuda"), ["/opt/gpufleet/cuda"]) == target


def test_a_link_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "cuda-12.4").mkdir()
    (tmp_path / "cuda").symlink_to("cuda-12.4")
    with pytest.raises(GpufleetError) as caught:
        cuda_layout.check_link(str(tmp_path / "cuda"), ["/opt/gpufleet/cuda"])
    assert caught.value.code == "GF-CUDA-LINK"


def test_a_directory_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "cuda").mkdir()
    with pytest.raises(GpufleetError) as caught:
        cuda_layout.check_link(str(tmp_path / "cuda"), ["/opt/gpufleet/cuda"])
    assert caught.value.code == "GF-CUDA-LINK"
    assert "a directory" in caught.value.message
