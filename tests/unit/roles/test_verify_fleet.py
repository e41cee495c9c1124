"""The fleet check of the role, with nodes that are this machine and environments without a torch that could be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
HOSTS = ("n1", "n2", "n3")


class Fleet:
    """An inventory of three nodes, each with an environment of its own below a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hosts = {host: self.variables(host, self.environment(host)) for host in HOSTS}
        inventory = {"all": {"hosts": hosts, "children": {"gpus": {"hosts": {host: {} for host in HOSTS}}}}}
        (folder / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")

    def environment(self, host: str, torch: str = "2.0.1+cu117") -> str:
        site = self.folder / host / "lib" / "python3.11" / "site-packages" / "torch"
        site.mkdir(parents=True, exist_ok=True)
        (site / "version.py").write_text(f"__version__ = '{torch}'\n", encoding="utf-8")
        python = self.folder / host / "bin" / "python"
        python.parent.mkdir(exist_ok=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        return str(python)

    def counting(self, host: str) -> str:
        """A Python for Ansible's modules that counts its starts: one is one module execution."""
        python = self.folder / f"{host}-python"
        count = self.folder / f"{host}-executions"
        python.write_text(f'#!/bin/sh\necho start >> {count}\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        return str(python)

    def executions(self, host: str) -> int:
        return len((self.folder / f"{host}-executions").read_text(encoding="utf-8").splitlines())

    def variables(self, host: str, interpreter: str) -> dict[str, Any]:
        stage = {
            "environments": [{"name": "default", "interpreter": interpreter}],
            "seed": 0,
            "user": "",
            "busy": False,
            "launcher": "direct",
        }
        stage.update(gpus=0, gpu_checks="skip", driver_pending=False)
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": self.counting(host),
            "gpufleet_prefix": str(self.folder / host / "prefix"),
            "gpufleet_plan": {"ok": True, "stages": {"verify": stage}},
        }

    def check(self, *options: str) -> tuple[int, str]:
        given = {
            "verify_level": "fleet",
            "verify_fleet_group": "gpus",
            "__verify_fleet_state": str(self.folder / "state"),
        }
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "local"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_BECOME_EXE": "env",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.json")]
        command += [str(ROOT / "playbooks/verify.yml"), "-e", json.dumps(given), *options]
        done = subprocess.run(
            command, env=environment, cwd=self.folder, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    def left(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.name in ("gpufleet_fleet.pyz", "fleet-verdict.json")]


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_what_stands_against_it_is_said_once_and_nothing_runs(fleet: Fleet) -> None:
    code, text = fleet.check("--forks", "2")
    assert code != 0
    assert "GF-FLEET-FORKS: 3 nodes" in text, text
    assert text.count("fatal: ") == 1
    assert fleet.left() == []


def test_a_dry_run_starts_nothing(fleet: Fleet) -> None:
    code, text = fleet.check("--check")
    assert code == 0, text
    assert text.count("would check 3 nodes with gloo") == 1
    assert fleet.left() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the script belongs to root")
def test_ranks_that_cannot_begin_are_named_and_the_verdict_is_left(fleet: Fleet) -> None:
    """This machine's Python has no torch."""
    code, text = fleet.check()
    assert code != 0
    assert "GF-FLEET-FAILED: the check of n[1-3] failed; suspected: n1, n2, n3" in text, text
    assert "No module named 'torch'" in text
    verdict = json.loads((fleet.folder / "state" / "fleet-verdict.json").read_text(encoding="utf-8"))
    assert (verdict["ok"], verdict["hosts"], len(verdict["suspects"])) == (False, list(HOSTS), 3)
    # The look, the ranks, and two for the copy of the verdict.
    assert [fleet.executions(host) for host in HOSTS] == [4, 4, 4]
