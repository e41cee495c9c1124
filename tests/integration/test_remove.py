"""A node without a GPU gets everything and is rid of it again: it is as if this collection had never been there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import World, fresh
from .removal import PLAYBOOK, difference, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = "/opt/gpufleet/envs/default/current/bin/python"
COUNT = "/var/log/module-executions"
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y -q"
# Debian's package that needs two of ours (libc6-dev, zlib1g-dev), and a library of its own.
USERS_PACKAGES = ("libpng-dev", "libpng16-16")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("removal", tmp_path_factory.mktemp("removal"), gpufleet_cache_dir="/srv/wheels/cache") as world:
        yield world


@pytest.fixture(scope="module")
def before(node: World) -> set[str]:
    """What the bare node had; site.yml has run since."""
    found = snapshot(node, "node")
    run = node.play()
    assert run.rc == 0, run.stdout
    assert node.sh("node", "ls /srv/wheels/cache") != ""
    return found


def test_nothing_goes_while_a_process_runs_from_the_environment(node: World, before: set[str]) -> None:
    node.sh("node", f"nohup {PYTHON} -c 'import time; time.sleep(600)' >/dev/null 2>&1 & echo $! > /root/pid")
    with_us = snapshot(node, "node")

    run = node.play(playbook=PLAYBOOK)

    node.sh("node", "kill $(cat /root/pid)")
    assert run.rc != 0
    assert "GF-ENVIRONMENT-IN-USE" in run.stdout
    assert difference(with_us, snapshot(node, "node")) == []
    assert difference(before, with_us) != []


def test_a_dry_run_shows_what_would_go_and_removes_nothing(node: World, before: set[str]) -> None:
    with_us = snapshot(node, "node")
    run = node.play(playbook=PLAYBOOK, cmdline="--check --diff")
    assert run.rc == 0, run.stdout
    for line in ("-package python3.11-venv ", "-directory /opt/gpufleet/envs/default/", "-receipt pytorch"):
        assert line in run.stdout
    assert difference(with_us, snapshot(node, "node")) == []


def test_two_executions_remove_all_but_what_others_need(node: World, before: set[str]) -> None:
    node.sh("node", f"{INSTALL} {USERS_PACKAGES[0]} && rm -f {COUNT}")

    run = node.play(playbook=PLAYBOOK)

    assert run.rc == 0, run.stdout
    assert node.sh("node", f"wc -l < {COUNT}") == "2"
    assert "package zlib1g-dev: libpng-dev needs it" in run.stdout
    assert node.sh("node", "apt-get check -q && dpkg --audit") == node.sh("node", "apt-get check -q")
    assert node.sh("node", "dpkg-query -W -f '${Status}' zlib1g-dev libpng-dev | grep -o ' installed' | wc -l") == "2"
    assert node.sh("node", "ls -d /opt/gpufleet /srv /srv/wheels 2>/dev/null || true") == "/srv"
    again = node.play(playbook=PLAYBOOK)
    assert (again.rc, again.changed("node")) == (0, 0)


def test_what_nobody_needs_any_more_goes_and_the_node_is_as_it_was(node: World, before: set[str]) -> None:
    node.sh("node", f"DEBIAN_FRONTEND=noninteractive apt-get purge -y -q {' '.join(USERS_PACKAGES)}")

    run = node.play(playbook=PLAYBOOK)

    assert run.changed("node") == 1
    assert difference(before, snapshot(node, "node")) == []
    assert node.play(playbook=PLAYBOOK).changed("node") == 0
