"""The check script as Ansible really sends it: a module brings only what it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_all_of_the_script_reaches_the_node(tmp_path: Path) -> None:
    environment = {"name": "default", "interpreter": sys.executable, "torch_version": "2.0.1"}
    arguments = {
        "environments": [environment],
        "script": str(tmp_path / "gpufleet_verify.pyz"),
        "gpus": 0,
        "plan_digest": "abc",
        "state_dir": str(tmp_path / "state"),
        "prefix": str(tmp_path / "prefix"),
    }
    command = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "-m",
        "gpufleet.stack.torch_check",
        "-a",
        json.dumps(arguments),
    ]
    variables = ["-e", f"ansible_python_interpreter={sys.executable}", "-i", "localhost,", "-c", "local"]
    quiet = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run([*command, *variables], cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "state" / "verdict.json").read_text(encoding="utf-8"))
    # The Python of the tests has no torch, and the script itself says so.
    assert "cannot import torch" in verdict["environments"][0]["checks"][0]["message"]
