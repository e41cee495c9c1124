"""A node that is lost in the middle of a run: the others go on, and its next run heals it."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

import ansible_runner
import pytest

from .vendor import Vendor, modules, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CUT_SECONDS = 400
# dpkg has begun with the driver's packages, or with what they need.
AT_WORK = "pgrep -x dpkg"
DRIVER = ["580.178.04", "Dual MIT/GPL"]


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("lost", tmp_path_factory, nodes=("node", "other")) as this:
        yield this


def test_a_lost_node_stops_no_other_and_is_healed(vendor: Vendor) -> None:
    settings = vendor.world.settings(cmdline="--tags nvidia_driver", **vendor.wishes(nvidia_driver_version="580"))
    thread, runner = ansible_runner.run_async(**settings)
    deadline, seen = time.monotonic() + CUT_SECONDS, ""
    while thread.is_alive() and not seen and time.monotonic() < deadline:
        seen = vendor.sh(f"timeout 5 sh -c {shlex.quote(f'while ! {AT_WORK}; do sleep 0.02; done')}", check=False)
    assert seen, runner.stdout.read()
    vendor.world.tool("kill", "node")
    thread.join(timeout=CUT_SECONDS)

    assert not thread.is_alive()
    assert runner.rc != 0
    stats = runner.stats or {}
    assert stats["dark"] == {"node": 1}
    assert "other" not in {**stats["failures"], **stats["dark"]}
    other = vendor.on("other")
    assert modules(other) == DRIVER

    vendor.world.tool("start", "node")
    run = vendor.play(nvidia_driver_version="580")
    assert run.rc == 0, run.stdout
    assert modules(vendor) == DRIVER
    assert vendor.sh("dpkg --audit") == ""
    assert run.changed("other") == 0
    again = vendor.play(nvidia_driver_version="580")
    assert (again.changed("node"), again.changed("other")) == (0, 0)
