"""Pythons with a real torch. GPUFLEET_TEST_TORCH and GPUFLEET_TEST_TORCH_1_13 name ready ones; else they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import main as check_script

ROOT = Path(__file__).resolve().parents[2]


def _python(variable: str, version: str) -> str:
    if os.environ.get(variable):
        return os.environ[variable]
    made = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "tools" / "torch_env.py"), version],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return made.stdout.strip()


@pytest.fixture(scope="session")
def torch_2_0() -> str:
    """A Python with torch 2.0.1+cu117, torchvision and torchaudio."""
    return _python("GPUFLEET_TEST_TORCH", "2.0.1")


@pytest.fixture(scope="session")
def torch_1_13() -> str:
    """A Python with torch 1.13.1+cu117 alone."""
    return _python("GPUFLEET_TEST_TORCH_1_13", "1.13.1")


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The check script as the node has it."""
    path = tmp_path_factory.mktemp("script") / "gpufleet_verify.pyz"
    script_archive.write(str(path), check_script)
    return path
