# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cudnn
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

VERSION = "8.9.6.50"
HEADER = b"#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 9\n#define CUDNN_PATCHLEVEL 6\n#define CUDNN_VERSION 8906\n"


def make_wheel(path, files):
    """A wheel with its own list of files, as pip's build tools write it."""
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record += f"{name},sha256={digest},{len(data)}\n"
        record += "nvidia_cudnn_cu11-8.9.6.50.dist-info/RECORD,,\n"
        archive.writestr("nvidia_cudnn_cu11-8.9.6.50.dist-info/RECORD", record)
    return str(path)


@pytest.fixture
def wheel(tmp_path):
    return make_wheel(
        tmp_path / "cudnn.whl",
        {
            "nvidia/__init__.py": b"",
            "nvidia/cudnn/include/__init__.py": b"",
            "nvidia/cudnn/include/cudnn_version.h": HEADER,
            "nvidia/cudnn/lib/libcudnn.so.8": b"main",
            "nvidia/cudnn/lib/libcudnn_ops_infer.so.8": b"ops",
            "nvidia/cudnn/lib/../../../evil.h": b"evil",
        },
    )


@pytest.mark.parametrize(("version", "number"), [("8.9.6.50", 8906), ("9.10.2.21", 91002), ("8.5.0.96", 8500)])
def test_versions_as_cudnn_writes_them(version, number):
    assert cudnn.number(version) == number


def test_unpack_leaves_headers_libraries_and_plain_names(wheel, tmp_path):
    path = tmp_path / "cudnn/8"
    cudnn.unpack(wheel, str(path), VERSION)
    assert cudnn.is_installed(str(path), VERSION)
    assert sorted(os.listdir(path / "include")) == ["cudnn_version.h"]
    assert os.readlink(path / "lib/libcudnn.so") == "libcudnn.so.8"
    assert os.readlink(path / "lib/libcudnn_ops_infer.so") == "libcudnn_ops_infer.so.8"
    assert os.listdir(tmp_path / "cudnn") == ["8"]
    assert not (tmp_path / "evil.h").exists()


@pytest.mark.parametrize("damage", ["lib/libcudnn_ops_infer.so.8", "include/cudnn_version.h", "RECORD"])
def test_a_damaged_directory_is_not_taken_for_installed(wheel, tmp_path, damage):
    path = tmp_path / "cudnn"
    cudnn.unpack(wheel, str(path), VERSION)
    (path / damage).unlink()
    assert not cudnn.is_installed(str(path), VERSION)
    cudnn.unpack(wheel, str(path), VERSION)
    assert cudnn.is_installed(str(path), VERSION)


def test_a_changed_byte_is_found(wheel, tmp_path):
    path = tmp_path / "cudnn"
    cudnn.unpack(wheel, str(path), VERSION)
    (path / "lib/libcudnn.so.8").write_bytes(b"mail")
    assert not cudnn.is_installed(str(path), VERSION)


def test_another_version_is_refused_and_nothing_stays(wheel, tmp_path):
    with pytest.raises(GpufleetError) as caught:
        cudnn.unpack(wheel, str(tmp_path / "cudnn"), "8.9.7.29")
    assert caught.value.code == "GF-CUDNN-WRONG"
    assert os.listdir(tmp_path) == ["cudnn.whl"]


def test_a_file_that_is_no_wheel_is_refused(tmp_path):
    (tmp_path / "page.whl").write_text("<html>")
    with pytest.raises(GpufleetError) as caught:
        cudnn.unpack(str(tmp_path / "page.whl"), str(tmp_path / "cudnn"), VERSION)
    assert caught.value.code == "GF-CUDNN-WRONG"


def shell(command, environment):
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def library(tmp_path):
    """A directory like an installed cuDNN whose library really loads and says 8906."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = tmp_path / "cudnn"
    (path / "include").mkdir(parents=True)
    (path / "lib").mkdir()
    (path / "include/cudnn_version.h").write_bytes(HEADER)
    (tmp_path / "fake.c").write_text("unsigned long cudnnGetVersion(void) { return 8906; }\n")
    name = "libcudnn.so.8"
    subprocess.run(
        [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", path / "lib" / name, tmp_path / "fake.c"],
        check=True,
    )
    (path / "lib/libcudnn.so").symlink_to(name)
    return str(path), compiler


@pytest.mark.parametrize("compiled", [True, False])
def test_the_library_itself_is_asked(library, tmp_path, compiled):
    path, compiler = library
    assert cudnn.check(path, VERSION, str(tmp_path), compiler if compiled else None, shell) == 8906


@pytest.mark.parametrize("compiled", [True, False])
def test_a_library_of_another_version_is_found(library, tmp_path, compiled):
    path, compiler = library
    with pytest.raises(GpufleetError) as caught:
        cudnn.check(path, "8.9.7.29", str(tmp_path), compiler if compiled else None, shell)
    assert caught.value.code == "GF-CUDNN-WRONG"
    assert "8906" in caught.value.message


def test_without_headers_the_libraries_alone_are_there_and_proved(wheel, tmp_path):
    path = tmp_path / "cudnn"
    cudnn.unpack(wheel, str(path), VERSION, headers=False)
    assert cudnn.is_installed(str(path), VERSION, headers=False)
    assert not (path / "include").exists()
    assert not cudnn.is_installed(str(path), VERSION)
    assert not cudnn.is_installed(str(path), "8.9.7.29", headers=False)
    # With them back, what is there is not what was asked for without.
    cudnn.unpack(wheel, str(path), VERSION)
    assert not cudnn.is_installed(str(path), VERSION, headers=False)
