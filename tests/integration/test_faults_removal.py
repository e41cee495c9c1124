"""A node in use keeps everything, its holds too, when somebody would remove the collection from it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from .conftest import NODES, ROOT
from .faults import difference, state, stopped
from .vendor import Vendor, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

# A recorded node whose driver is loaded, and a process of a user that has its device open.
LOADED = "h100-x8-nvswitch"
JOB = (
    "cd /opt/recorded/busy && mkdir -p proc/4711/fd && ln -s /dev/nvidia0 proc/4711/fd/3 && echo python > proc/4711/comm && "
    "printf 'Uid:\\t1001\\t1001\\t1001\\t1001\\n' > proc/4711/status"
)


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("inuse", tmp_path_factory) as this:
        yield this


def test_holds_stay_where_the_removal_is_refused(vendor: Vendor) -> None:
    before = state(vendor)
    run = vendor.play(nvidia_driver_version="570", gpufleet_hold=True)
    assert run.rc == 0, run.stdout
    with_us = state(vendor)
    container = subprocess.run(
        [str(NODES), "name", vendor.world.name, "node"], capture_output=True, text=True, check=True
    ).stdout.strip()
    subprocess.run(
        ["podman", "cp", str(ROOT / "tests/fixtures/nodes" / LOADED), f"{container}:/opt/recorded/busy"], check=True
    )

    vendor.sh(JOB)
    run = vendor.world.play(playbook="playbooks/remove.yml", gpufleet_gpu_sysroot="/opt/recorded/busy")

    stopped(run, "GF-GPU-BUSY")
    vendor.sh("rm -rf /opt/recorded/busy")
    assert difference(with_us, state(vendor)) == []
    assert "nvidia-open-570" in vendor.sh("apt-mark showhold")

    run = vendor.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert difference(before, state(vendor)) == []
