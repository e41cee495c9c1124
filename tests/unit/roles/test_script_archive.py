"""The scripts as Ansible really sends them: a module brings only what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_fleet import main as fleet_script
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import main as check_script

ROOT = Path(__file__).resolve().parents[3]


def execute(module: str, **arguments: Any) -> dict[str, Any]:
    """What the module returns when Ansible has sent it to this machine."""
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", f"gpufleet.stack.{module}"]
    variables = ["-e", f"ansible_python_interpreter={sys.executable}", "-i", "localhost,", "-c", "local"]
    quiet = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    done = subprocess.run(
        [*command, "-a", json.dumps(arguments), *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=quiet,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def test_all_of_the_check_script_reaches_the_node(tmp_path: Path) -> None:
    path = tmp_path / "gpufleet_verify.pyz"
    found = execute(
        "torch_check",
        environments=[{"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1"}],
        script=str(path),
        gpus=0,
        plan_digest="abc",
        state_dir=str(tmp_path / "state"),
        prefix=str(tmp_path / "prefix"),
    )
    # The Python of the tests has no torch, and the script itself says so.
    assert "cannot import torch" in found["verdict"]["environments"][0]["checks"][0]["message"]
    assert path.read_bytes() == script_archive.archive(check_script)


def test_all_of_the_fleet_script_reaches_the_node(tmp_path: Path) -> None:
    path = tmp_path / "gpufleet_fleet.pyz"
    found = execute(
        "fleet_check",
        interpreter=sys.executable,
        script=str(path),
        port=29511,
        address="127.0.0.1",
        ranks=[0],
        world_size=2,
        timeout=60,
        state_dir=str(tmp_path / "state"),
    )
    assert found["ranks"][0]["answer"]["error"]["text"] == "ModuleNotFoundError: No module named 'torch'"
    assert path.read_bytes() == script_archive.archive(fleet_script)
