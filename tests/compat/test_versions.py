"""Every ansible-core that is promised runs the playbooks, and every Python that is promised runs what goes to nodes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from .conftest import CORES, ROOT, TARGETS, core, interpreter

if TYPE_CHECKING:
    from pathlib import Path

OLDEST = min(CORES, key=lambda version: [int(part) for part in version.split(".")])


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        # What is found here must be the interpreter's own, not that of the one that runs the tests.
        env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **environment},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.parametrize("version", CORES)
def test_a_dry_run_of_the_site(version: str, tmp_path: Path) -> None:
    """On this machine itself; nothing is installed."""
    binaries = core(version)
    out = run(
        [
            str(binaries / "ansible-playbook"),
            "site.yml",
            "--check",
            "-e",
            json.dumps(
                {
                    "gpufleet_prefix": str(tmp_path / "prefix"),
                    "gpufleet_facts_directory": "",
                    "gpufleet_lock_directory": str(tmp_path / "locks"),
                    "python_version": "3.11",
                }
            ),
        ]
    )
    assert "failed=0" in out
    assert "torch 2.0.1" in out


@pytest.mark.parametrize("version", [version for version in CORES if version != max(CORES)])
def test_the_unit_tests(version: str) -> None:
    """The newest one runs them in make unit."""
    run([str(core(version) / "python"), "-m", "pytest", "tests/unit/plugins", "tests/unit/roles", "-q", "-x"])


@pytest.mark.parametrize("python", TARGETS)
def test_every_module_is_read_by_every_python(python: str) -> None:
    names = [
        f"ansible_collections.gpufleet.stack.plugins.{kind}.{path.stem}"
        for kind in ("module_utils", "modules")
        for path in sorted((ROOT / "plugins" / kind).glob("*.py"))
    ]
    code = (
        "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\nprint(len(sys.argv) - 1)"
    )
    libraries = next((core(OLDEST).parent / "lib").glob("python3*/site-packages"))
    out = run(
        [interpreter(python), "-B", "-c", code, *names],
        PYTHONPATH=f"{ROOT / 'collections'}:{libraries}",
        PYTHONWARNINGS="",
    )
    assert int(out) == len(names) > 100


@pytest.mark.parametrize("python", TARGETS)
def test_a_look_with_every_python(python: str, tmp_path: Path) -> None:
    """The probe as Ansible sends it, under each Python that a node may have."""
    out = run(
        [
            str(core(OLDEST) / "ansible"),
            "localhost",
            "-m",
            "gpufleet.stack.stack_probe",
            "-a",
            f"state_dir={tmp_path}",
            "-e",
            f"ansible_python_interpreter={interpreter(python)}",
        ],
        ANSIBLE_CALLBACK_RESULT_FORMAT="json",
    )
    found = json.loads(out.partition("=>")[2])
    assert found["node"]["errors"] == [] and found["gpu"]["errors"] == []
    assert found["node"]["pythons"]
