# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPU architectures that are compiled into a torch, read from its library alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import record_elf, torch_arch
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

FLAGS_2_0_1 = b"sm_37 sm_50 sm_60 sm_70 sm_75 sm_80 sm_86"  # as torch 2.0.1 from the package index has it


def arch_list(root: Path, constants: bytes | None, cuda: str | None = "11.7") -> list[str] | None:
    if constants is not None:
        library = root / "site/torch/lib/libtorch_python.so"
        library.parent.mkdir(parents=True)
        library.write_bytes(record_elf.build(".rodata", constants))
    return torch_arch.arch_list(Sysroot(str(root)), "/site", cuda)


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        (b"\0" + FLAGS_2_0_1 + b"\0", ["3.7", "5.0", "6.0", "7.0", "7.5", "8.0", "8.6"]),
        # torch 2.8.0: the text before it does not end with a zero byte
        (b"std::string ipc_hsm_70 sm_90 sm_100 sm_120\0", ["7.0", "9.0", "10.0", "12.0"]),
        (b"\0sm_90a\0sm_80 sm_90 sm_90a compute_90\0", ["8.0", "9.0", "9.0a"]),
        (b"\0sm_80\0", ["8.0"]),
        (b"\0sm_80 sm_86 and no end", None),
        (b"\0nothing of the kind\0", None),
    ],
)
def test_list(tmp_path: Path, constants: bytes, expected: list[str] | None) -> None:
    assert arch_list(tmp_path, constants) == expected


def test_a_build_for_the_cpu_has_none(tmp_path: Path) -> None:
    assert arch_list(tmp_path, b"\0" + FLAGS_2_0_1 + b"\0", cuda=None) == []


def test_a_library_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert arch_list(tmp_path, None) is None


def test_a_library_that_is_none(tmp_path: Path) -> None:
    library = tmp_path / "site/torch/lib/libtorch_python.so"
    library.parent.mkdir(parents=True)
    library.write_text("version https://git-lfs\n")
    assert arch_list(tmp_path, None) is None
