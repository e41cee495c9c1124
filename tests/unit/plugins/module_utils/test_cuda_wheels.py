# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import os
import zipfile

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_wheels
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

VERSION = "13.0.2"
DIGESTS = ["b" * 64, "a" * 64]


def make_wheel(path, files):
    """A wheel with its own list of files, as pip's build tools write it."""
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(data)}\n"
        archive.writestr("part-1.dist-info/RECORD", record)
    return str(path)


@pytest.fixture
def wheels(tmp_path):
    compiler = {
        "nvidia/cu13/__init__.py": b"",
        "nvidia/cu13/bin/nvcc": b"compiler",
        "nvidia/cu13/bin/nvcc.profile": b"TOP",
        "nvidia/cu13/include/meta.h": b"the earlier one, longer",
        "nvidia/cu13/nvvm/bin/cicc": b"cicc",
        "nvidia/cu13/../../../evil.h": b"evil",
    }
    runtime = {
        "nvidia/cu13/include/cuda_runtime.h": b"#pragma once\n",
        "nvidia/cu13/include/meta.h": b"the later one",
        "nvidia/cu13/lib/libcudart.so.13": b"runtime",
        "nvidia/cu12/lib/libcudart.so.12": b"of another major",
    }
    return [make_wheel(tmp_path / "nvcc.whl", compiler), make_wheel(tmp_path / "cudart.whl", runtime)]


def test_the_wheels_become_a_toolkit_in_nvidias_layout(wheels, tmp_path):
    path = tmp_path / "cuda/13.0"
    path.parent.mkdir()
    cuda_wheels.unpack(wheels, str(path), VERSION, DIGESTS)
    assert cuda_wheels.is_installed(str(path), VERSION, DIGESTS)
    assert sorted(os.listdir(path)) == ["RECORD", "bin", "include", "lib", "lib64", "nvvm", "version.json"]
    assert (path / "lib64/libcudart.so").read_bytes() == b"runtime"
    assert os.access(path / "bin/nvcc", os.X_OK)
    assert os.access(path / "nvvm/bin/cicc", os.X_OK)
    assert not os.access(path / "bin/nvcc.profile", os.X_OK)
    assert (path / "include/meta.h").read_bytes() == b"the later one"
    assert not list(tmp_path.rglob("evil.h"))
    assert not list(path.rglob("__init__.py"))


@pytest.mark.parametrize(
    ("version", "digests"), [("13.0.1", DIGESTS), (VERSION, ["a" * 64]), (VERSION, [*DIGESTS, "c" * 64])]
)
def test_another_version_or_another_wheel_is_not_the_same(wheels, tmp_path, version, digests):
    path = str(tmp_path / "13.0")
    cuda_wheels.unpack(wheels, path, VERSION, DIGESTS)
    assert not cuda_wheels.is_installed(path, version, digests)


@pytest.mark.parametrize("damage", ["edit", "remove"])
def test_a_damaged_file_is_found_and_mended(wheels, tmp_path, damage):
    path = tmp_path / "13.0"
    cuda_wheels.unpack(wheels, str(path), VERSION, DIGESTS)
    library = path / "lib/libcudart.so.13"
    library.write_bytes(b"runtimE") if damage == "edit" else library.unlink()
    assert not cuda_wheels.is_installed(str(path), VERSION, DIGESTS)
    cuda_wheels.unpack(wheels, str(path), VERSION, DIGESTS)
    assert cuda_wheels.is_installed(str(path), VERSION, DIGESTS)


@pytest.mark.parametrize(
    "files",
    [
        {"nvidia/cu13/lib/libcudart.so.13": b"no nvcc"},
        {"nvidia/cu12/bin/nvcc": b"another major", "nvidia/cu12/lib/l.so.12": b""},
    ],
)
def test_what_is_no_toolkit_leaves_the_former_one(wheels, tmp_path, files):
    path = tmp_path / "13.0"
    cuda_wheels.unpack(wheels, str(path), VERSION, DIGESTS)
    with pytest.raises(GpufleetError) as caught:
        cuda_wheels.unpack([make_wheel(tmp_path / "bad.whl", files)], str(path), VERSION, ["c" * 64])
    assert caught.value.code == "GF-CUDA-WHEELS"
    assert cuda_wheels.is_installed(str(path), VERSION, DIGESTS)
    assert sorted(os.listdir(tmp_path)) == ["13.0", "bad.whl", "cudart.whl", "nvcc.whl"]


def test_a_file_that_is_no_wheel(tmp_path):
    (tmp_path / "text.whl").write_text("<html>proxy</html>")
    with pytest.raises(GpufleetError) as caught:
        cuda_wheels.unpack([str(tmp_path / "text.whl")], str(tmp_path / "13.0"), VERSION, DIGESTS)
    assert caught.value.code == "GF-CUDA-WHEELS"
    assert os.listdir(tmp_path) == ["text.whl"]
