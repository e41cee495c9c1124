# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that a CUDA toolkit compiles and links. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Callable, List, NamedTuple, Tuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Runs a command, gives (status, stdout, stderr). An alias is evaluated when it is read, so typing's names (3.8).
Run = Callable[[List[str]], Tuple[int, str, str]]
# Without an argument it needs neither GPU nor driver; cuBLAS proves that lib64 is good for linking and its libraries for loading. With one
# it computes on every GPU that CUDA shows and compares: exit status 2 where there is none to be had, 3 where a result is wrong.
PROGRAM = """\
#include <cstdio>
#include <cublas_v2.h>
#include <cuda_runtime.h>
__global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }
static int say(cudaError_t error, int status) { std::printf(" %s", cudaGetErrorString(error)); return status; }
static int compute(int device) {
    const int size = 256 * (int)sizeof(float);
    float host[256], *x = nullptr;
    for (int i = 0; i < 256; i++) host[i] = (float)i;
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess) error = cudaMalloc((void **)&x, size);
    if (error != cudaSuccess) return say(error, 2);  // in use by somebody alone, or without memory
    cudaMemcpy(x, host, size, cudaMemcpyHostToDevice);
    twice<<<1, 256>>>(x);
    error = cudaGetLastError();
    if (error == cudaSuccess) error = cudaMemcpy(host, x, size, cudaMemcpyDeviceToHost);
    cudaFree(x);
    if (error != cudaSuccess) return say(error, 3);
    for (int i = 0; i < 256; i++) if (host[i] != 2.0f * (float)i) { std::printf(" GPU %d computes wrongly", device); return 3; }
    return 0;
}
int main(int count, char **) {
    int cublas = 0, devices = 0;
    cublasGetProperty(MAJOR_VERSION, &cublas);
    std::printf("%d %d", CUDART_VERSION, cublas);
    if (count < 2) return 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess) return say(error, 2);
    for (int i = 0; i < devices; i++) { int status = compute(i); if (status) return status; }
    std::printf(" %d", devices);
    return 0;
}
"""
DRIVER = "proc/driver/nvidia/version"
NO_DRIVER = "no NVIDIA driver is loaded"


class Proof(NamedTuple):
    """What was proved: the version of CUDA, the GPUs that computed, and why none did."""

    runtime: int
    gpus: int
    skipped: str | None


def release(text: str) -> str | None:
    """The release in the output of ``nvcc --version``."""
    match = re.search(r"\brelease (\d+\.\d+)", text)
    return match[1] if match else None


def flags(architectures: list[str]) -> list[str]:
    """nvcc's options to compile for these compute capabilities (``8.0``), each into code of its own."""
    numbers = [each.replace(".", "") for each in architectures]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def check(path: str, version: str, architectures: list[str], folder: str, run: Run, root: str = "/") -> Proof:
    """Compile, link and run a small program with the toolkit in ``path``, on the GPUs too where a driver is loaded.

    :param version: what ``nvcc --version`` must say, such as ``11.8``.
    :param architectures: compute capabilities that the program is compiled for, such as ``8.0``.
    :param folder: an empty directory for the program.
    :raises GpufleetError: GF-NVCC-FAILED when any of it does not work.
    """
    nvcc = os.path.join(path, "bin/nvcc")
    code, out, err = run([nvcc, "--version"])
    if code != 0 or release(out) != version:
        raise _failed(f"{nvcc} --version does not say {version}: {(err or out).strip()}")
    source, program = os.path.join(folder, "check.cu"), os.path.join(folder, "check")
    with open(source, "w", encoding="utf-8") as stream:
        stream.write(PROGRAM)
    places = [f"-I{path}/include", f"-L{path}/lib64"]
    command = [nvcc, *flags(architectures), *places, "-o", program, source, "-lcublas"]
    code, out, err = run(command)
    if code != 0:
        raise _failed(f"{' '.join(command)}:\n{(err or out).strip()}")
    # As the login shells of users have it; a toolkit of wheels is not known to the loader otherwise.
    code, out, err = run(["env", f"LD_LIBRARY_PATH={path}/lib64", program])
    major, minor = (int(part) for part in version.split(".")[:2])
    if code != 0 or out.split() != [str(major * 1000 + minor * 10), str(major)]:
        raise _failed(f"the compiled program reports CUDA and cuBLAS {out or err.strip()}, {version} is expected")
    return Proof(int(out.split()[0]), *_on_gpus(path, program, run, root))


def _on_gpus(path: str, program: str, run: Run, root: str) -> tuple[int, str | None]:
    """How many GPUs computed, or why none did."""
    if not os.path.exists(os.path.join(root, DRIVER)):
        return 0, NO_DRIVER
    code, out, err = run(["env", f"LD_LIBRARY_PATH={path}/lib64", program, "gpu"])
    said = " ".join(out.split()[2:])
    if code == 0 and said.isdigit():
        return int(said), None
    if code == 2:
        return 0, f"CUDA gives no GPU: {said or err.strip()}"
    raise _failed(f"the compiled program does not compute on the GPU: {said or err.strip() or f'exit status {code}'}")


def _failed(message: str) -> GpufleetError:
    return GpufleetError(
        "GF-NVCC-FAILED",
        f"the CUDA toolkit does not compile: {message}",
        "a package of the toolkit or the host compiler that it wants is missing or damaged",
        "install the toolkit's packages and g++ again (a toolkit made of wheels: remove its directory), then run this play again",
    )
