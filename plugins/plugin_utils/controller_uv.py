# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's uv: where it is, and which one. Private to the collection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

UV_INSTALL = "pip install uv"


def uv_path() -> str:
    """The controller's uv: beside the Python that runs Ansible, or on ``PATH``."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    found = beside if os.access(beside, os.X_OK) else shutil.which("uv")
    if found is None:
        raise GpufleetError(
            "GF-UV-MISSING",
            f"uv is neither beside {sys.executable} nor on PATH of the controller",
            "the controller's requirements are not installed",
            f"{sys.executable} -m {UV_INSTALL}",
        )
    return found


def uv_version() -> str:
    """Version of the controller's uv."""
    answer = subprocess.run([uv_path(), "--version"], check=False, capture_output=True, text=True, timeout=60)
    match = re.match(r"uv (\S+)", answer.stdout)
    if match is None:
        raise GpufleetError(
            "GF-UV-MISSING",
            f"{uv_path()} --version does not answer with a version: {(answer.stderr or answer.stdout).strip()[:200]}",
            "the uv of the controller is damaged or made for another architecture",
            f"{sys.executable} -m pip install --force-reinstall uv",
        )
    return match.group(1)
