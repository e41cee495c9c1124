# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""torch.compile against eager, and an extension built with the node's own toolkit. Private to the collection."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from typing import Any

from . import devices
from .expectations import Expectations
from .outcomes import outcome, skipped

# A compiled function may sum in another order: float32 over 64 products, then differentiated.
BOUND = 1e-4
COMPILERS = ("c++", "g++", "clang++")
# What torch says where it can't compile at all: torch 2.0 on Python 3.11, 2.3 on 3.12.
NOT_FOR_THIS_PYTHON = "not yet supported"
EXTENSION_SECONDS = 600
EXTENSION = r"""
#include <torch/library.h>
#include <ATen/ATen.h>
#include <cuda_runtime.h>
__global__ void twice_plus(const float *x, float *y, float add, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i] + add;
}
at::Tensor run(const at::Tensor &x, double add) {
    at::Tensor y = at::empty_like(x);
    if (!x.is_cuda()) return y.copy_(x).mul_(2.0).add_(add);
    twice_plus<<<(x.numel() + 255) / 256, 256>>>(x.data_ptr<float>(), y.data_ptr<float>(), (float)add, x.numel());
    TORCH_CHECK(cudaGetLastError() == cudaSuccess, "the kernel was not launched");
    return y;
}
TORCH_LIBRARY(gpufleet_verify, m) { m.def("twice_plus", &run); }
"""


def model(torch: Any, seed: int) -> Any:
    """Something that is worth fusing."""
    torch.manual_seed(seed)
    nn = torch.nn
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8))


def answers(torch: Any, function: Any, inputs: Any, weights: Any) -> list[Any]:
    """What the model gives, and the gradients of its weights."""
    for weight in weights:
        weight.grad = None
    result = function(inputs)
    (result**2).sum().backward()
    return [result.detach().clone(), *(weight.grad.clone() for weight in weights)]


def unable(torch: Any, device: Any) -> str | None:
    """Why nothing can be compiled here, or None."""
    if not hasattr(torch, "compile"):
        return "this torch has no torch.compile: it came with PyTorch 2.0"
    if not any(shutil.which(name) for name in COMPILERS):
        return "the node has no C++ compiler, with which torch.compile builds: install g++ where users want it"
    header = os.path.join(sysconfig.get_path("include") or "", "Python.h")
    if torch.device(device).type == "cuda" and not os.path.isfile(header):
        return f"{header} is missing, with which Triton builds: install the headers of this Python where users want it"
    return None


def check_compile(torch: Any, wanted: Expectations, device: Any = "cpu") -> dict[str, Any]:
    """A compiled model gives what the eager one does, and so do its gradients."""
    reason = unable(torch, device)
    if reason is not None:
        return skipped(None, reason)
    net = model(torch, wanted.seed).to(device)
    inputs = torch.randn(32, 64, generator=torch.Generator().manual_seed(wanted.seed)).to(device)
    weights = list(net.parameters())
    eager = answers(torch, net, inputs, weights)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(TORCHINDUCTOR_CACHE_DIR=folder, TRITON_CACHE_DIR=folder)
        try:
            compiled = answers(torch, torch.compile(net), inputs, weights)
        except RuntimeError as error:
            if NOT_FOR_THIS_PYTHON not in str(error):
                raise
            return skipped(None, f"torch {torch.__version__} says of this Python: {str(error).splitlines()[0]}")
        built = sum(name.endswith((".so", ".cubin")) for _place, _folders, names in os.walk(folder) for name in names)
    pairs = list(zip(compiled, eager))
    errors = [float(((a - b).abs().max() / b.abs().max()).item()) for a, b in pairs]
    measured = {"output_error": errors[0], "gradient_error": max(errors[1:]), "programs_built": built}
    problems = [] if max(errors) < BOUND else [f"compiled and eager differ by {max(errors):.3g}"]
    problems += [] if built else ["nothing was compiled: torch fell back to eager"]
    return outcome(not problems, measured, {"error_below": BOUND, "programs_built": "1 or more"}, "; ".join(problems))


def check_gpu_compile(torch: Any, wanted: Expectations, index: int) -> dict[str, Any]:
    """The same with Triton's kernels."""
    return check_compile(torch, wanted, devices.cuda_device(torch, index))


def extension_command(torch: Any, toolkit: str, source: str, library: str, capabilities: list[str]) -> list[str]:
    """nvcc's command for an extension of this torch: the architectures are the planned ones."""
    from torch.utils import cpp_extension

    numbers = [each.replace(".", "") for each in sorted(set(capabilities))] or ["80"]
    places = [f"-I{path}" for path in cpp_extension.include_paths()] + [f"-I{toolkit}/include"]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()] + ["-lc10", "-ltorch_cpu", "-ltorch"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    codes = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    command = [os.path.join(toolkit, "bin/nvcc"), "-std=c++17", "-shared", "-Xcompiler", "-fPIC", abi]
    return [*command, *codes, *places, "-o", library, source, *libraries]


def check_extension(torch: Any, wanted: Expectations) -> dict[str, Any]:
    """The planned toolkit's nvcc builds an operator against this torch, and the operator computes."""
    toolkit = wanted.get("toolkit")
    if toolkit is None:
        return skipped(None, "no CUDA toolkit is planned")
    if torch.version.cuda is None:
        return skipped(None, "this torch is built without CUDA, so it takes no CUDA extension")
    with tempfile.TemporaryDirectory() as folder:
        source, library = os.path.join(folder, "twice.cu"), os.path.join(folder, "twice.so")
        with open(source, "w", encoding="utf-8") as file:
            file.write(EXTENSION)
        command = extension_command(torch, toolkit, source, library, wanted.get("compute_capabilities", []))
        built = subprocess.run(  # pylint: disable=ansible-bad-function
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=EXTENSION_SECONDS
        )
        if built.returncode != 0:
            said = built.stdout.decode("utf-8", "replace").strip()[-1500:]
            return outcome(False, built.returncode, 0, f"nvcc does not build an extension of this torch: {said}")
        torch.ops.load_library(library)
    places = ["cpu", *(["cuda"] if torch.cuda.is_available() and wanted.skip_reason is None else [])]
    x = torch.arange(1000, dtype=torch.float32)
    measured = {
        place: torch.equal(torch.ops.gpufleet_verify.twice_plus(x.to(place), 3.0).cpu(), 2 * x + 3) for place in places
    }
    return outcome(
        all(measured.values()), measured, dict.fromkeys(places, True), f"the operator computes wrongly: {measured}"
    )
