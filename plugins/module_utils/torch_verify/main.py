# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the PyTorch of this Python computes what it should.

Run it with the Python of the environment that is to be checked; it needs that environment's torch and nothing else::

    . /opt/gpufleet/envs/default/current/bin/activate
    python /opt/gpufleet/libexec/gpufleet_verify.pyz                      # a table for people
    python /opt/gpufleet/libexec/gpufleet_verify.pyz --json               # the same as one JSON document
    python /opt/gpufleet/libexec/gpufleet_verify.pyz --expect plan.json   # measured against what was planned
    python /opt/gpufleet/libexec/gpufleet_verify.pyz --level standard     # more than the first checks

It changes nothing on the machine. It exits 0 when no check failed, 1 when one did, 2 when it could not run at all.

``--expect`` names a JSON object, in which every key may be left out::

    {"torch_version": "2.0.1+cu117",      what torch.__version__ must be, to the letter
     "cuda": "11.7",                      what torch.version.cuda must be; null: built without CUDA
     "cudnn": "8.5",                      what the version of cuDNN must begin with; null: nothing expected
     "torchvision": "0.15.2",             what they must be; null: any version, or none
     "torchaudio": "2.0.2",
     "gpus": 1,                           how many GPUs torch must see
     "devices": [{"name": "NVIDIA A100-SXM4-80GB", "memory_mib": 81920}],   which ones
     "compute_capabilities": ["8.0"],     what they must be (in any order)
     "gpu_checks": "run",                 "skip": no check on a GPU, because of gpu_skip_reason
     "gpu_skip_reason": null,
     "driver_pending": false,             true: the driver is installed, not loaded; a reboot is needed
     "toolkit": "/usr/local/cuda",        the CUDA toolkit that users build with; null: none
     "soak_seconds": 60,                  how long level health repeats its work
     "seed": 0}

A check without an expectation reports what it measured and is "skipped", never "passed".

The network that is trained is the tutorial's: 2 inputs, 5 hidden neurons, 1 output, the points x = [[1, 2], [2, 3],
[3, 4]] with y = [[3], [5], [7]], the loss L = 1/2 * sum (y - a2)^2, and Adam. The tutorial writes a2 = sigma(z2) for
the output, but a sigmoid never leaves (0, 1) and so never reaches 3, 5 or 7. Therefore the gradients are checked for
both forms (a2 = sigma(z2) as printed, and a2 = z2), and the network that is trained has a linear output, a2 = z2.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from typing import Any

from . import expectations, levels, table

# The package is called so in the archive.
NAME = "gpufleet_verify"

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_COULD_NOT_RUN = 2


def quiet_stdout() -> Any:
    """Standard output for the result alone: what libraries print there goes to standard error instead."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def say(text: str, where: Any) -> None:
    """One line or more, for whoever runs the script: it is no module of Ansible's."""
    where.write(text + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and print what came of them; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", metavar="FILE.json", help="what the plan says; see above")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--level", choices=levels.LEVELS, default="quick", help="how much is checked (default: quick)")
    options = parser.parse_args(arguments)
    try:
        wanted = expectations.read(options.expect)
    except (OSError, ValueError) as error:
        say(f"{NAME}: {error}", sys.stderr)
        return EXIT_COULD_NOT_RUN
    # As NVML and the facts count them; CUDA itself begins with the fastest.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    out = quiet_stdout()
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a half-removed environment raises anything
        say(f"{NAME}: {sys.executable} cannot import torch: {error}", sys.stderr)
        return EXIT_COULD_NOT_RUN
    result = levels.report(torch, wanted, options.level)
    say(json.dumps(result, allow_nan=False, sort_keys=True) if options.json else table.table(result), out)
    out.close()
    return EXIT_PASSED if result["ok"] else EXIT_FAILED
