"""CUDA toolkits of NVIDIA's installers, side by side on a real Debian 12; the installers are stand-ins (tests/tools/installers)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT, World, fresh
from .removal import PLAYBOOK, difference, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOOL = ROOT / "tests/tools/installers"
PREFIX = "/opt/gpufleet/cuda"


def made(folder: Path, version: str, *options: str) -> dict[str, str]:
    command = [sys.executable, str(TOOL), "cuda", str(folder), version, *options]
    path, digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {"file": path, "sha256": digest}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("toolrun", tmp_path_factory.mktemp("toolrun")) as world:
        yield world


def wishes(*files: dict[str, str], versions: list[str]) -> dict[str, object]:
    return {"cuda_toolkit_source": "runfile", "cuda_toolkit_version": versions, "cuda_toolkit_runfiles": list(files)}


def test_one_that_fails_leaves_nothing(node: World, tmp_path: Path) -> None:
    run = node.play(
        cmdline="--tags cuda_toolkit", **wishes(made(tmp_path, "12.6.3", "--fault", "fails"), versions=["12.6"])
    )
    assert run.rc != 0
    assert "GF-CUDA-RUNFILE" in run.stdout, run.stdout
    assert "cuda-nvcc failed" in run.stdout, run.stdout
    assert node.sh("node", f"ls -d {PREFIX}/* /usr/local/cuda* /etc/ld.so.conf.d/cuda* 2>/dev/null || true") == ""


def test_two_stand_side_by_side_and_the_installers_go(node: World, tmp_path: Path) -> None:
    first, second = made(tmp_path, "12.6.3"), made(tmp_path, "13.0.2")
    run = node.play(cmdline="--tags cuda_toolkit", **wishes(first, versions=["12.6"]))
    assert run.rc == 0, run.stdout
    both = wishes(first, second, versions=["13.0", "12.6"])
    run = node.play(cmdline="--tags cuda_toolkit", **both)
    assert run.rc == 0, run.stdout
    assert node.sh("node", f"{PREFIX}/12.6/bin/nvcc --version; bash -lc 'nvcc --version'").splitlines() == [
        "Cuda compilation tools, release 12.6, V12.6.3",
        "Cuda compilation tools, release 13.0, V13.0.2",
    ]
    # Neither the loader's settings nor the default link are the installers' to write, and the installers have gone.
    assert node.sh("node", "ls /etc/ld.so.conf.d/ | grep -c cuda || true") == "0"
    assert node.sh("node", "readlink /usr/local/cuda") == f"{PREFIX}/13.0"
    kept = node.sh("node", "find /var/cache/gpufleet-runfiles -type f")
    assert not [each for each in (first, second) if each["sha256"] in kept]
    assert node.play(cmdline="--tags cuda_toolkit", **both).changed("node") == 0


def test_removal_leaves_the_node_as_it_was(node: World) -> None:
    run = node.play(playbook=PLAYBOOK)
    assert run.rc == 0, run.stdout
    before = set(node.sh("node", "cat /root/before.txt").splitlines())
    assert difference(before, snapshot(node, "node")) == []
