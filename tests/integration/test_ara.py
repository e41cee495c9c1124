"""ARA Records Ansible, the real one, records runs of this collection as it does any other, beside the callback progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
ARA = "ara[server]==1.8.0"


class Recorder:
    """A virtual environment with ARA, and the database that it keeps in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "venv/bin"
        uv = str(Path(sys.executable).with_name("uv"))
        made = {"UV_SYSTEM_CERTS": "1", **os.environ}
        subprocess.run(
            [uv, "venv", "--quiet", "--python", sys.executable, str(directory / "venv")], check=True, env=made
        )
        needs = ["-r", str(ROOT / "requirements.txt"), ARA]
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(self.bin / "python"), *needs], check=True, env=made
        )
        self.plugins = self.of("python", "-m", "ara.setup.callback_plugins").strip()

    def of(self, program: str, *arguments: str) -> str:
        environment = {**os.environ, "ARA_BASE_DIR": str(self.directory / "ara")}
        return subprocess.run(
            [str(self.bin / program), *arguments], check=True, capture_output=True, text=True, env=environment
        ).stdout

    def known(self, what: str, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self.of("ara", what, "list", "-f", "json", "--limit", "1000", *arguments)
        )
        return found

    def play(self, playbook: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A playbook on two nodes that are this machine; it is only looked at."""
        local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
        wishes = {
            f"gpufleet_{name}": str(self.directory / name) for name in ("prefix", "facts_directory", "lock_directory")
        }
        inventory = self.directory / "hosts.json"
        every = {"hosts": {"n1": None, "n2": None}, "vars": {**local, **wishes, **variables}}
        inventory.write_text(json.dumps({"all": every}), encoding="utf-8")
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": self.plugins,
            "ARA_BASE_DIR": str(self.directory / "ara"),
        }
        command = [str(self.bin / "ansible-playbook"), "-i", str(inventory), str(ROOT / "playbooks" / playbook)]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_playbooks_hosts_and_results_are_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    planned = recorder.play("plan.yml")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    stopped = recorder.play("site.yml", pytorch_index_url="http://127.0.0.1:1/simple")
    assert stopped.returncode == 2, stopped.stdout + stopped.stderr
    assert "gpufleet 0 of 2 nodes got through, 2 failed" in stopped.stderr

    playbooks = {Path(each["path"]).name: each for each in recorder.known("playbook")}
    assert {name: each["status"] for name, each in playbooks.items()} == {"plan.yml": "completed", "site.yml": "failed"}
    for name, playbook in playbooks.items():
        of_it = ("--playbook", str(playbook["id"]))
        hosts = {each["id"]: each["name"] for each in recorder.known("host", *of_it)}
        tasks = {each["id"]: each["name"] for each in recorder.known("task", *of_it)}
        results = [
            (tasks[each["task"]].rpartition(" : ")[2], hosts[each["host"]], each["status"])
            for each in recorder.known("result", *of_it)
        ]
        looks = {(host, status) for task, host, status in results if task == "Look at the node and decide"}
        assert looks == {("n1", "ok"), ("n2", "ok")}, name
        failed = {host for _task, host, status in results if status == "failed"}
        assert failed == ({"n1", "n2"} if name == "site.yml" else set())
