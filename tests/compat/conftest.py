"""Interpreters of this machine, and an environment for each ansible-core that the collection promises to run on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# meta/runtime.yml promises 2.19 on; each with a Python that it runs on.
CORES = {"2.19": "3.11", "2.20": "3.12", "2.21": "3.13"}
TARGETS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def interpreter(version: str) -> str:
    """A Python of this version; the test is skipped where the machine has none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*sorted(pyenv.glob(f"{version}.*/bin/python{version}")), shutil.which(f"python{version}")]
    for candidate in filter(None, found):
        if subprocess.run([str(candidate), "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    pytest.skip(f"this machine has no Python {version}")


def core(version: str) -> Path:
    """The bin directory of an environment with this ansible-core; made once below .cache."""
    folder = ROOT / ".cache" / "compat" / version
    complete = folder / ".complete"
    if not complete.exists():
        uv = str(ROOT / ".venv/bin/uv")
        python = interpreter(CORES[version])
        lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        needs = [line for line in lines if line[:1] not in ("#", "") and not line.startswith("ansible-core")]
        test = (ROOT / "requirements-test.txt").read_text(encoding="utf-8").splitlines()
        needs += [line for line in test if line.startswith(("pytest=", "jsonschema=", "markdown-it-py="))]
        needs += [f"ansible-core=={version}.*"]
        environment = {"UV_SYSTEM_CERTS": "1", **os.environ}
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, str(folder)], check=True, env=environment)
        target = str(folder / "bin/python")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", target, *needs], check=True, env=environment)
        complete.touch()
    return folder / "bin"
