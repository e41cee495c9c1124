"""NVIDIA's installer beside dnf, on a node dressed as Rocky 9.

Installers, node and base repositories are stand-ins; dnf, rpm and DKMS are real.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import ROOT
from .test_nvidia_dnf import Vendor, modules, vendor_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOOL = ROOT / "tests/tools/installers"
OLD, NEW = "570.211.01", "580.178.04"
# The recording has the GPU; everything of a driver is the node's own.
OWN = "lib/modules usr/bin usr/lib usr/lib64 usr/src var/lib/dkms var/lib/nvidia"
SYSROOT = "/opt/recorded/rocky9-l40s-x4"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_of(tmp_path_factory, "rocky9", "rocky9-l40s-x4") as this:
        this.sh(
            f"for each in {OWN}; do mkdir -p $(dirname {SYSROOT}/$each); rm -rf {SYSROOT}/$each; ln -s /$each {SYSROOT}/$each; done"
        )
        yield this


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("installers")


def wishes(folder: Path, version: str, *options: str) -> dict[str, str]:
    """The wishes for a stand-in installer of this version."""
    command = [sys.executable, str(TOOL), "driver", str(folder / "-".join(options)), version, *options]
    path, digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {
        "nvidia_driver_source": "runfile",
        "nvidia_driver_runfile": path,
        "nvidia_driver_runfile_sha256": digest,
        "cuda_toolkit_version": "none",
    }


def left(node: Vendor) -> str:
    """How the node differs from what it was before the first run; the recording's links are the fixture's."""
    return node.sh("/root/snapshot.sh | diff /root/before.txt - | grep '^[<>]' | grep -v /opt/recorded/", check=False)


def test_one_that_does_not_compile_leaves_the_node_as_it_was(node: Vendor, folder: Path) -> None:
    run = node.play(**wishes(folder, OLD, "--fault", "no-compile"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    node.sh("rm -rf /var/cache/gpufleet-runfiles")
    assert left(node) == ""


def test_it_is_installed_and_the_next_run_changes_nothing(node: Vendor, folder: Path) -> None:
    run = node.play(**wishes(folder, OLD))
    assert run.rc == 0, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]
    assert node.play(**wishes(folder, OLD)).changed("node") == 0


def test_the_version_before_comes_back_and_another_takes_its_place(node: Vendor, folder: Path) -> None:
    run = node.play(**wishes(folder, NEW, "--fault", "no-compile"))
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]
    run = node.play(**wishes(folder, NEW))
    assert run.rc == 0, run.stdout
    assert modules(node) == [NEW, "Dual MIT/GPL"]
    run = node.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
    assert run.rc == 0, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]


def test_packages_do_not_go_over_it(node: Vendor) -> None:
    run = node.play(nvidia_driver_source="nvidia", nvidia_driver_version="580", cuda_toolkit_version="none")
    assert run.rc != 0
    assert "GF-NOT-YET" in run.stdout, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]


def test_removal_leaves_the_node_as_it_was(node: Vendor) -> None:
    run = node.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert left(node) == ""
