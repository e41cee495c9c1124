# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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
    proof = nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), run, str(tmp_path))
    assert proof == nvcc.Proof(11080, 0, "no NVIDIA driver is loaded")
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
        nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), answers(*rows), str(tmp_path))
    assert caught.value.code == "GF-NVCC-FAILED"
    assert text in caught.value.message


def test_each_gpu_gets_code_of_its_own():
    assert nvcc.flags(["7.0", "12.0"]) == [
        "-gencode=arch=compute_70,code=sm_70",
        "-gencode=arch=compute_120,code=sm_120",
    ]


def loaded(root):
    """A tree that stands in for a node with a loaded driver."""
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX Open Kernel Module  580.95.05\n")
    return str(root)


@pytest.mark.parametrize(
    ("answer", "proof"),
    [
        ((0, "11080 11 2", ""), (11080, 2, None)),
        (
            (2, "11080 11 no CUDA-capable device is detected", ""),
            (11080, 0, "CUDA gives no GPU: no CUDA-capable device is detected"),
        ),
    ],
)
def test_with_a_loaded_driver_the_kernel_runs_or_says_why_not(tmp_path, answer, proof):
    run = answers((0, VERSION, ""), (0, "", ""), (0, "11080 11", ""), answer)
    assert nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), run, loaded(tmp_path)) == proof


@pytest.mark.parametrize("answer", [(3, "11080 11 GPU 1 computes wrongly", ""), (139, "", "")])
def test_a_wrong_result_fails(tmp_path, answer):
    run = answers((0, VERSION, ""), (0, "", ""), (0, "11080 11", ""), answer)
    with pytest.raises(GpufleetError, match="does not compute on the GPU") as caught:
        nvcc.check("/opt/cuda", "11.8", ["8.0"], str(tmp_path), run, loaded(tmp_path))
    assert caught.value.code == "GF-NVCC-FAILED"


# Two GPUs in the host's memory; the launch, which g++ cannot read, becomes a call for each thread.
GPUS = """\
#include <cstring>
#include <cstdlib>
#define CUDART_VERSION 11080
#define __global__
typedef int cudaError_t;
enum { cudaSuccess, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
static struct { int x; } threadIdx;
static inline const char *cudaGetErrorString(cudaError_t) { return "an error"; }
static inline cudaError_t cudaGetDeviceCount(int *count) { *count = 2; return 0; }
static inline cudaError_t cudaSetDevice(int) { return 0; }
static inline cudaError_t cudaMalloc(void **x, unsigned long size) { *x = malloc(size); return 0; }
static inline cudaError_t cudaMemcpy(void *to, const void *from, unsigned long size, int) { memcpy(to, from, size); return 0; }
static inline cudaError_t cudaGetLastError() { return LAUNCH; }
static inline cudaError_t cudaFree(void *x) { free(x); return 0; }
"""
CUBLAS = "enum { MAJOR_VERSION };\nstatic inline int cublasGetProperty(int, int *value) { *value = 11; return 0; }\n"


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize(
    ("launch", "factor", "status", "said"),
    [
        (0, "2.0f", 0, "11080 11 2"),
        (0, "3.0f", 3, "11080 11 GPU 0 computes wrongly"),
        (9, "2.0f", 3, "11080 11 an error"),
    ],
)
def test_the_program_itself_compares(tmp_path: Path, launch: int, factor: str, status: int, said: str) -> None:
    text = nvcc.PROGRAM.replace(
        "twice<<<1, 256>>>(x);", "for (threadIdx.x = 0; threadIdx.x < 256; threadIdx.x++) twice(x);"
    )
    assert text != nvcc.PROGRAM
    (tmp_path / "cuda_runtime.h").write_text(GPUS.replace("LAUNCH", str(launch)))
    (tmp_path / "cublas_v2.h").write_text(CUBLAS)
    (tmp_path / "check.cpp").write_text(text.replace("*= 2.0f", f"*= {factor}"))
    subprocess.run(
        ["g++", "-Wall", "-Werror", f"-I{tmp_path}", "-o", tmp_path / "check", tmp_path / "check.cpp"], check=True
    )
    done = subprocess.run([tmp_path / "check", "gpu"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, said)
    assert subprocess.run([tmp_path / "check"], capture_output=True, text=True, check=True).stdout == "11080 11"
