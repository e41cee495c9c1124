# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small reader of ELF files, on files that the tests build and on real ones."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import elf, record_elf

CONTENT = b"\0first\0sm_80 sm_90\0"


def test_what_was_built_is_read(tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(record_elf.build(".rodata", CONTENT))
    assert elf.section(str(path), ".rodata") == CONTENT
    assert elf.section(str(path), ".text") is None
    assert elf.section(str(path), ".rodat") is None


def test_32_bits_and_the_other_byte_order(tmp_path: Path) -> None:
    names = b"\0.rodata\0"
    header = struct.pack(">16sHHIIIIIHHHHHH", b"\x7fELF\1\2\1", 3, 20, 1, 0, 0, 52, 0, 52, 0, 0, 40, 2, 1)
    table = 52
    rows = struct.pack(">10I", 1, 1, 0, 0, table + 80 + len(names), len(CONTENT), 0, 0, 1, 0)
    rows += struct.pack(">10I", 0, 3, 0, 0, table + 80, len(names), 0, 0, 1, 0)
    path = tmp_path / "library.so"
    path.write_bytes(header + rows + names + CONTENT)
    assert elf.section(str(path), ".rodata") == CONTENT


def test_a_real_program() -> None:
    found = elf.section(str(Path(sys.executable).resolve()), ".rodata")
    assert found  # a program that is linked with libpython holds a few bytes only


@pytest.mark.parametrize("length", [0, 3, 40, 63, 64, 100, 150])
def test_a_file_that_was_cut_off_is_none(tmp_path: Path, length: int) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(record_elf.build(".rodata", CONTENT)[:length])
    assert elf.section(str(path), ".rodata") is None


def test_numbers_that_lie(tmp_path: Path) -> None:
    whole = bytearray(record_elf.build(".rodata", CONTENT))
    path = tmp_path / "library.so"
    for offset in range(0x28, 0x40):  # where the table stands, how many rows it has
        broken = bytearray(whole)
        broken[offset] = 0xFF
        path.write_bytes(broken)
        assert elf.section(str(path), ".rodata") in (None, CONTENT)
    assert elf.section(str(path), ".rodata", limit=4) is None


def test_no_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        elf.section(str(tmp_path / "nothing"), ".rodata")
