"""Debian 13, whose Python is too new for torch 2.0.1: uv's managed build from a mirror, and the node afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT, Run, World, fresh
from .removal import PLAYBOOK, difference, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

COUNT = "/var/log/module-executions"
ENVIRONMENT = "/opt/gpufleet/envs/default/current/bin/python"
SYSTEM = "dpkg --verify python3.13 python3.13-minimal libpython3.13-minimal libpython3.13-stdlib"
# What there is of the system's Python besides packages, but for what it compiles by itself.
LIBRARIES = "find /usr/lib/python3 /usr/local/lib -not -path '*/__pycache__*' | sort | md5sum"
PASSWORD = "hunter2-of-the-mirror"  # noqa: S105 - of a stand-in that asks for none


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("pythons", tmp_path_factory.mktemp("pythons"), suite="trixie", node_managed_python="3.11") as world:
        serve = "python3 -m http.server --bind 127.0.0.1 --directory /srv/pythons 8900"
        world.sh("node", f"useradd -m user && systemd-run --unit=mirror {serve} && sleep 1")
        yield world


@pytest.fixture(scope="module")
def before(node: World) -> tuple[set[str], str, str]:
    found = snapshot(node, "node"), node.sh("node", SYSTEM), node.sh("node", LIBRARIES)
    run = play(node)
    assert run.rc == 0, run.stdout
    return found


def play(world: World, **wanted: str) -> Run:
    mirror = f"http://reader:{PASSWORD}@127.0.0.1:8900"
    run = world.play(cmdline="-v", python_mirror=mirror, **wanted)
    assert PASSWORD not in run.stdout
    return run


def test_torch_runs_on_the_managed_python(node: World, before: tuple[set[str], str, str]) -> None:
    about = "import sys, torch; print(torch.__version__, sys.version_info[:2], sys.base_prefix)"
    assert node.sh("node", f"{ENVIRONMENT} -c '{about}'").startswith("2.0.1+cu117 (3, 11) /opt/gpufleet/python/3.11.")
    assert "GET /2026" in node.sh("node", "journalctl -u mirror --no-pager")


def test_the_environment_has_its_bill_of_materials(node: World, before: tuple[set[str], str, str]) -> None:
    bill = json.loads(node.sh("node", f"cat {ENVIRONMENT.removesuffix('bin/python')}gpufleet-bom.cdx.json"))
    found = {component["name"]: component["version"] for component in bill["components"]}
    assert found["torch"] == "2.0.1"
    assert found["cpython"] == node.sh("node", f"{ENVIRONMENT} -c 'import platform; print(platform.python_version())'")


def test_a_second_run_is_one_module_execution(node: World, before: tuple[set[str], str, str]) -> None:
    node.sh("node", f"rm -f {COUNT}")
    run = play(node)
    assert (run.rc, run.changed("node")) == (0, 0), run.stdout
    assert node.sh("node", f"wc -l < {COUNT}") == "1"
    # Nor is another mirror another plan.
    assert play(node, gpufleet_prefix="/opt/gpufleet").changed("node") == 0


def test_pip_and_setuptools_work(node: World, before: tuple[set[str], str, str]) -> None:
    for name in ("pip", "setuptools", "ensurepip"):
        node.sh("node", f"{ENVIRONMENT} -c 'import {name}'")
    node.sh("node", f"{ENVIRONMENT} -m ensurepip --version && {ENVIRONMENT} -m pip check")
    node.sh("node", f"su user -c '{ENVIRONMENT} -m venv ~/mine'")
    assert "/home/user/mine/" in node.sh("node", "su user -c '~/mine/bin/python -m pip --version'")


def test_the_system_python_was_never_written_to(node: World, before: tuple[set[str], str, str]) -> None:
    assert node.sh("node", SYSTEM) == before[1]
    assert node.sh("node", LIBRARIES) == before[2]


def test_users_write_nothing_and_passwords_are_nowhere(node: World, before: tuple[set[str], str, str]) -> None:
    assert node.sh("node", "find /opt/gpufleet/python -perm /022 ! -type l") == ""
    assert (
        node.sh("node", f"grep -rl {PASSWORD} /opt/gpufleet /var/lib/gpufleet /var/log /etc /root /tmp || true") == ""
    )
    assert node.sh("node", f"journalctl --no-pager | grep -v 'podman exec' | grep -c {PASSWORD} || true") == "0"


def test_a_python_that_was_removed_under_the_environment_is_healed(
    node: World, before: tuple[set[str], str, str]
) -> None:
    active = node.sh("node", "readlink /opt/gpufleet/envs/default/current")
    node.sh("node", "rm -rf /opt/gpufleet/python")
    run = play(node)
    assert run.rc == 0, run.stdout
    assert "is gone" in run.stdout
    assert node.sh("node", f"{ENVIRONMENT} -c 'import torch; print(torch.__version__)'") == "2.0.1+cu117"
    # The environment itself was not made again.
    assert node.sh("node", "readlink /opt/gpufleet/envs/default/current") == active
    assert play(node).changed("node") == 0


def test_the_wheelhouse_brings_it_where_there_is_no_mirror(
    node: World, before: tuple[set[str], str, str], tmp_path: Path
) -> None:
    (archive,) = (ROOT / ".cache/pythons/3.11/mirror").glob("*/*.tar.gz")
    (tmp_path / hashlib.sha256(archive.read_bytes()).hexdigest()).mkdir()
    shutil.copy(archive, next(tmp_path.iterdir()))
    node.sh("node", "systemctl stop mirror && rm -rf /opt/gpufleet/python")
    ways = {"gpufleet_wheelhouse": "copy", "gpufleet_wheelhouse_directory": str(tmp_path), "python_mirror": ""}
    run = node.play(cmdline="--tags python", **ways)
    assert run.rc == 0, run.stdout
    assert node.sh("node", f"{ENVIRONMENT} -c 'import torch; print(torch.__version__)'") == "2.0.1+cu117"
    # The way is no part of the plan.
    assert play(node).changed("node") == 0


def test_removal_leaves_the_node_as_it_was(node: World, before: tuple[set[str], str, str]) -> None:
    run = node.play(playbook=PLAYBOOK)
    assert run.rc == 0, run.stdout
    assert node.sh("node", "ls -d /opt/gpufleet /var/lib/gpufleet 2>/dev/null || true") == ""
    assert difference(before[0], snapshot(node, "node")) == []
