#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a virtual environment with a real torch for the tests, once, under .cache/torch/<version>.

    tests/tools/torch_env.py 2.0.1     prints the path of its Python

uv is taken from the variable UV, from .venv/bin, or from PATH; where packages come from is uv's own setting.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.11"
# Old torch needs pkg_resources, which setuptools dropped later. NumPy 2 can't be used by these builds.
PACKAGES = {
    "2.0.1": ["torch==2.0.1", "torchvision==0.15.2", "torchaudio==2.0.2", "setuptools<80", "numpy<2"],
    "1.13.1": ["torch==1.13.1", "setuptools<80"],
}


def find_uv() -> str:
    """The uv to use."""
    beside = ROOT / ".venv" / "bin" / "uv"
    found = os.environ.get("UV") or (str(beside) if beside.exists() else shutil.which("uv"))
    if not found:
        sys.exit("torch_env.py: uv was not found: make .venv/test.stamp installs it, or set UV")
    return found


def make(version: str) -> Path:
    """The environment's Python; made where it is not there or was not finished."""
    folder = ROOT / ".cache" / "torch" / version
    python, complete = folder / "bin" / "python", folder / ".complete"
    wanted = "\n".join(PACKAGES[version])
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return python
    uv = find_uv()
    # The cache of the test nodes: what one of them fetched is not fetched again.
    environment = {"UV_SYSTEM_CERTS": "1", "UV_CACHE_DIR": str(ROOT / ".cache" / "uv"), **os.environ}
    for arguments in (
        ["venv", "--quiet", "--clear", "--python", PYTHON, str(folder)],
        ["pip", "install", "--quiet", "--python", str(python), *PACKAGES[version]],
    ):
        subprocess.run([uv, *arguments], check=True, env=environment)
    complete.write_text(wanted, encoding="utf-8")
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PACKAGES:
        sys.exit(f"usage: torch_env.py {'|'.join(PACKAGES)}")
    print(make(sys.argv[1]))
