# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import nvcc
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

VERSION = """\
nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2022 NVIDIA Corporation
Built on Wed_Sep_21_10:33:58_PDT_2022
Cuda compilation tools, release 11.8, V11.8.89
Build cuda_11.8.r11.8/compiler.31833905_0
"""
NO_GCC = "gcc: No such file or directory\nnvcc fatal   : Failed to preprocess host compiler properties.\n"


def answers(*rows):
    """Gives one answer after the other."""
    left = list(rows)
    return lambda command: left.pop(0)


def test_release_of_nvcc():
    assert nvcc.release(VERSION) == "11.8"
    assert nvcc.release("nonsense") is None


def test_a_toolkit_that_works(tmp_path):
    run = answers((0, VERSION, ""), (0, "", ""), (0, "11080 11", ""))
    assert nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), run) == 11080
    assert "__global__" in (tmp_path / "check.cu").read_text()


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([(127, "", "/opt/cuda/bin/nvcc: No such file")], "No such file"),
        ([(0, VERSION.replace("11.8", "12.4"), "")], "does not say 11.8"),
        ([(0, VERSION, ""), (1, "", NO_GCC)], "host compiler properties"),
        ([(0, VERSION, ""), (0, "", ""), (127, "", "libcublas.so.11: cannot open")], "libcublas"),
        ([(0, VERSION, ""), (0, "", ""), (0, "11070 11", "")], "11070"),
    ],
)
def test_what_does_not_work_is_named(tmp_path, rows, text):
    with pytest.raises(GpufleetError) as caught:
        nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), answers(*rows))
    assert caught.value.code == "GF-NVCC-FAILED"
    assert text in caught.value.message


def test_each_gpu_gets_code_of_its_own():
    assert nvcc.flags(["7.0", "12.0"]) == [
        "-gencode=arch=compute_70,code=sm_70",
        "-gencode=arch=compute_120,code=sm_120",
    ]
