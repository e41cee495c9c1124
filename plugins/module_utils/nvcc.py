# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that a CUDA toolkit compiles and links. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import Callable, List, Tuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Runs a command, gives (status, stdout, stderr). An alias is evaluated when it is read, so typing's names (3.8).
Run = Callable[[List[str]], Tuple[int, str, str]]
# Needs no GPU and no driver when it is run; cuBLAS proves that lib64 is good for linking and its libraries for loading.
PROGRAM = """\
#include <cstdio>
#include <cublas_v2.h>
#include <cuda_runtime.h>
__global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }
int main(int count, char **) {
    int cublas = 0;
    if (count > 1) twice<<<1, 1>>>(nullptr);  // never: a launch needs a GPU; compiled and linked all the same
    cublasGetProperty(MAJOR_VERSION, &cublas);
    std::printf("%d %d", CUDART_VERSION, cublas);
    return 0;
}
"""


def release(text: str) -> str | None:
    """The release in the output of ``nvcc --version``."""
    match = re.search(r"\brelease (\d+\.\d+)", text)
    return match[1] if match else None


def flags(architectures: list[str]) -> list[str]:
    """nvcc's options to compile for these compute capabilities (``8.0``), each into code of its own."""
    numbers = [each.replace(".", "") for each in architectures]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]


def check(path: str, version: str, architectures: list[str], folder: str, run: Run) -> int:
    """Compile, link and run a small program with the toolkit in ``path``; the version in its headers as CUDA writes it.

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
    return int(out.split()[0])


def _failed(message: str) -> GpufleetError:
    return GpufleetError(
        "GF-NVCC-FAILED",
        f"the CUDA toolkit does not compile: {message}",
        "a package of the toolkit or the host compiler that it wants is missing or damaged",
        "install the toolkit's packages and g++ again (a toolkit made of wheels: remove its directory), then run this play again",
    )
