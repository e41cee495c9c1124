# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file the loader takes, compared with the loader's own tools where this machine has them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import loader_cache, loader_path
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

LIBRARIES = [("libcudnn.so.9", "/usr/lib64/libcudnn.so.9"), ("libcudnn.so.8", "/opt/cudnn/lib/libcudnn.so.8")]


def write(root: Path, path: str, content: bytes = b"") -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def takes(root: Path, name: str = "libcudnn.so.8", wished: tuple[str, ...] = ()) -> str | None:
    return loader_path.Loader(Sysroot(str(root)), wished).takes(name)


def test_the_cache_of_this_machine_is_what_ldconfig_prints() -> None:
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    cache = loader_cache.read("/etc/ld.so.cache")
    if ldconfig is None or cache is None:
        pytest.skip("no ldconfig here, or it was never run")
    printed = subprocess.run([ldconfig, "-p"], check=True, capture_output=True, text=True).stdout
    expected = []
    for line in printed.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and ("x86-64" in name or "AArch64" in name) and "hwcap" not in name:
            expected.append((name.split()[0], path))
    assert cache == expected
    assert len(cache) > 10


def test_a_cache_behind_one_of_the_old_format() -> None:
    data = loader_cache.build(LIBRARIES)
    old = b"ld.so-1.7.0\0" + struct.pack("<I", 3) + bytes(3 * 12)
    assert loader_cache.entries(old + bytes(-len(old) % 8) + data) == LIBRARIES


def test_variants_and_32_bit_libraries_are_passed_over() -> None:
    data = bytearray(loader_cache.build(LIBRARIES))
    data[48 + 1] = 0x08  # the first entry becomes one of x32
    assert loader_cache.entries(bytes(data)) == LIBRARIES[1:]
    data = bytearray(loader_cache.build(LIBRARIES))
    data[48 + 16] = 1  # the first entry is for certain processors
    assert loader_cache.entries(bytes(data)) == LIBRARIES[1:]


@pytest.mark.parametrize("cut", [0, 10, 47, 60, 100])
def test_a_damaged_cache_holds_nothing(cut: int) -> None:
    assert loader_cache.entries(loader_cache.build(LIBRARIES)[:cut]) == []


def test_ld_library_path_then_the_cache_then_the_default_directories(tmp_path: Path) -> None:
    write(tmp_path, "/usr/lib64/libcudnn.so.8")
    assert takes(tmp_path) == "/usr/lib64/libcudnn.so.8"
    write(tmp_path, "/opt/cudnn/lib/libcudnn.so.8")
    assert takes(tmp_path) == "/usr/lib64/libcudnn.so.8"
    write(tmp_path, "/etc/ld.so.cache", loader_cache.build(LIBRARIES))
    assert takes(tmp_path) == "/opt/cudnn/lib/libcudnn.so.8"
    write(tmp_path, "/srv/libcudnn.so.8")
    assert takes(tmp_path, wished=("/nowhere", "/srv")) == "/srv/libcudnn.so.8"
    assert takes(tmp_path, "libcudnn.so.7") is None


def test_a_cached_library_that_is_gone_is_not_taken(tmp_path: Path) -> None:
    write(tmp_path, "/etc/ld.so.cache", loader_cache.build(LIBRARIES))
    assert takes(tmp_path) is None


def test_with_a_cache_the_configuration_is_not_read_by_the_loader(tmp_path: Path) -> None:
    write(tmp_path, "/etc/ld.so.conf.d/new.conf", b"/srv/new\n")
    write(tmp_path, "/srv/new/libcudnn.so.8")
    assert takes(tmp_path) == "/srv/new/libcudnn.so.8"
    write(tmp_path, "/etc/ld.so.cache", loader_cache.build(LIBRARIES))
    assert takes(tmp_path) is None  # ldconfig was not run since


def test_configured_directories_and_files_that_include_each_other(tmp_path: Path) -> None:
    write(tmp_path, "/etc/ld.so.conf", b"# first\ninclude ld.so.conf.d/*.conf\n/last # of all\n")
    write(tmp_path, "/etc/ld.so.conf.d/b.conf", b"/b=libc6\ninclude /etc/ld.so.conf\n")
    write(tmp_path, "/etc/ld.so.conf.d/a.conf", b"/a\nnot-absolute\n")
    found = loader_path.configured_dirs(Sysroot(str(tmp_path)))
    assert found[:2] == ["/a", "/b"]
    assert found[-1] == "/last"
    assert "not-absolute" not in found
