"""A run that is cut off anywhere leaves what was active active, and the next run converges."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ansible_runner
import pytest

from .conftest import World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

CURRENT = "/opt/gpufleet/envs/default/current"
VERSION = f"{CURRENT}/bin/python -c 'import torch; print(torch.__version__)'"
# Notes each look, and each moment at which the link does not lead to an environment with a Python.
WATCH = f"while :; do echo >> /root/looks; [ -x {CURRENT}/bin/python ] || echo >> /root/gone; sleep 0.05; done"
LOOKS_OF_A_RUN = 100
BUILD_SECONDS = 600


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # The cache where it is by default, on the prefix's own file system: it is cut off too, and the second environment
    # shares its files with the first.
    with fresh("cut", tmp_path_factory.mktemp("cut"), gpufleet_cache_dir="/opt/gpufleet/cache") as world:
        yield world


def cut_while_building(world: World, **variables: Any) -> None:
    """Starts site.yml, waits until uv installs packages on the node, and cuts the node's power."""
    thread, runner = ansible_runner.run_async(**world.settings(**variables))
    deadline = time.monotonic() + BUILD_SECONDS
    building = False
    while thread.is_alive() and time.monotonic() < deadline and not building:
        building = bool(world.sh("node", "pgrep -f 'uv.* pip (install|sync)'", check=False))
        time.sleep(0.2)
    assert building, f"no environment was being built: {runner.stdout.read()}"
    time.sleep(4)
    world.tool("kill", "node")
    thread.join(timeout=120)
    assert not thread.is_alive()
    assert runner.rc != 0
    world.tool("start", "node")


def test_first_run_is_cut_off(node: World) -> None:
    cut_while_building(node)
    assert node.sh("node", f"[ ! -e {CURRENT} ] || {VERSION}") == ""

    run = node.play()

    assert run.rc == 0, run.stdout
    assert node.sh("node", VERSION).startswith("2.0.1")
    assert node.play().changed("node") == 0


def watch(world: World) -> None:
    world.sh("node", f"rm -f /root/looks; nohup sh -c '{WATCH}' >/dev/null 2>&1 &")


def looks(world: World) -> int:
    return int(world.sh("node", "wc -l < /root/looks"))


def test_change_of_version_is_cut_off(node: World) -> None:
    """The environment that was active is there all the time: before, during and after the cut, and in the switch."""
    assert node.sh("node", VERSION).startswith("2.0.1")
    watch(node)

    cut_while_building(node, pytorch_version="2.0.0")

    assert looks(node) > LOOKS_OF_A_RUN
    assert node.sh("node", VERSION).startswith("2.0.1")
    watch(node)
    run = node.play(pytorch_version="2.0.0")
    assert run.rc == 0, run.stdout
    assert looks(node) > LOOKS_OF_A_RUN
    assert node.sh("node", VERSION).startswith("2.0.0")
    assert node.sh("node", "ls /root/gone 2>/dev/null || true") == ""
