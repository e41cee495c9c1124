"""The nodes of the integration tests: what Molecule's default scenario left up, and fresh ones where a test asks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ansible_runner
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "tests" / "tools" / "nodes"
SHARED_INVENTORY = ROOT / "molecule" / "inventory"
# site.yml of a run that is to be stopped or watched is given this long.
SECONDS = 1500
# A slow line of the machine that tests is not what is tested.
PATIENT = {"UV_HTTP_TIMEOUT": "60", "UV_HTTP_CONNECT_TIMEOUT": "30", "UV_HTTP_RETRIES": "5"}


@dataclass
class Run:
    """What a run of a playbook came to."""

    rc: int
    stats: dict[str, Any]
    stdout: str

    def changed(self, host: str) -> int:
        return int(self.stats.get("changed", {}).get(host, 0))


class World:
    """A group of nodes with the inventory that reaches them."""

    def __init__(self, name: str, inventory: Path, work: Path) -> None:
        self.name = name
        self.inventory = [str(inventory), str(SHARED_INVENTORY)]
        self.work = work

    def settings(self, *more: Path, playbook: str = "site.yml", cmdline: str = "", **variables: Any) -> dict[str, Any]:
        """The arguments of ansible_runner for one run."""
        return {
            # A folder for each run: ansible-runner would take up what a former one left there, such as --check.
            "private_data_dir": tempfile.mkdtemp(dir=self.work),
            "project_dir": str(ROOT),
            "playbook": str(ROOT / playbook),
            "inventory": [*self.inventory, *map(str, more)],
            "extravars": variables,
            "cmdline": cmdline,
            "quiet": True,
            "timeout": SECONDS,
            "envvars": {
                "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                **PATIENT,
            },
        }

    def play(self, *more: Path, playbook: str = "site.yml", cmdline: str = "", **variables: Any) -> Run:
        """Runs a playbook to its end; `variables` go in as extra variables, `more` are further inventories."""
        done = ansible_runner.run(**self.settings(*more, playbook=playbook, cmdline=cmdline, **variables))
        return Run(rc=done.rc, stats=done.stats or {}, stdout=done.stdout.read())

    def sh(self, node: str, command: str, *, check: bool = True) -> str:
        """Runs a command on a node past Ansible, so that nothing is counted."""
        container = subprocess.run(
            [str(NODES), "name", self.name, node], capture_output=True, text=True, check=True
        ).stdout.strip()
        done = subprocess.run(
            ["podman", "exec", container, "sh", "-c", command], capture_output=True, text=True, check=False
        )
        if check and done.returncode != 0:
            pytest.fail(f"{node}: {command}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def tool(self, action: str, *arguments: str) -> None:
        subprocess.run([str(NODES), action, self.name, *arguments], check=True)


@contextlib.contextmanager
def fresh(
    name: str,
    work: Path,
    *options: str,
    suite: str = "bookworm",
    nodes: tuple[str, ...] = ("node",),
    **variables: Any,
) -> Iterator[World]:
    """A world with bare, prepared nodes, one named `node` by default; `options` go to tests/tools/nodes, `variables` are the nodes'."""
    inventory = work / "nodes.yml"
    rows = {node: {"node_suite": suite, **variables} for node in nodes}
    hosts = {"nodes": {"hosts": rows, "vars": {"node_world": name}}}
    inventory.write_text(yaml.safe_dump(hosts), encoding="utf-8")
    world = World(name, inventory, work)
    try:
        world.tool("up", *(f"{node}={suite}" for node in nodes), *options)
        prepared = world.play(playbook="molecule/shared/prepare.yml")
        assert prepared.rc == 0, prepared.stdout
        yield world
    finally:
        if not os.environ.get("KEEP"):
            world.tool("down")


@pytest.fixture(scope="session")
def converged(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The nodes of the default scenario, cpu and a100, as Molecule left them."""
    if not (ROOT / ".cache" / "nodes" / "default" / "ssh_config").exists():
        pytest.fail("the nodes of the default scenario are not up: make molecule KEEP=1, then make integration")
    return World("default", ROOT / "molecule" / "default" / "inventory.yml", tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A node on which nothing may ever be installed: every test that has it checks that it is still bare."""
    with fresh("bare", tmp_path_factory.mktemp("bare")) as world:
        yield world
