"""Debian 12's own driver, real, gives way to NVIDIA's packages, which are stand-ins, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .removal import PLAYBOOK, difference, snapshot
from .test_runfile import Machine, own_driver
from .test_zz_remove import LEFT_BY_DEBIAN

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

DEBIAN = {"nvidia_driver_source": "distro", "nvidia_driver_version": "535"}
# Every package of a driver with its version; what the toolkit and others bring under like names is not installed here.
PACKAGES = "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' | grep -e nvidia -e libcuda"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with own_driver("sources", tmp_path_factory) as this:
        yield this


def versions(machine: Machine) -> set[str]:
    """Of every module of NVIDIA's that some kernel has."""
    return set(machine.sh("find /lib/modules -name 'nvidia*.ko*' | xargs -n1 modinfo -F version").split())


def test_debians_driver_gives_way_to_nvidias(machine: Machine) -> None:
    run = machine.play(DEBIAN)
    assert run.rc == 0, run.stdout
    (debians,) = versions(machine)
    assert debians.startswith("535.")
    run = machine.play(machine.packages("590"))
    assert run.rc == 0, run.stdout
    assert versions(machine) == {"590.48.01"}
    assert debians not in machine.sh(PACKAGES)
    assert "590.48.01" in machine.driver()[-1]
    assert machine.play(machine.packages("590")).changed("node") == 0


def test_debians_driver_comes_back_where_nvidias_entry_goes(machine: Machine) -> None:
    run = machine.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
    assert run.rc == 0, run.stdout
    (debians,) = versions(machine)
    assert debians.startswith("535.")
    assert "590.48.01" not in machine.sh(PACKAGES)
    assert machine.play(DEBIAN).rc == 0
    assert machine.sh("ls /etc/apt/sources.list.d | grep -c gpufleet-nvidia || true") == "0"
    assert machine.play(DEBIAN).changed("node") == 0


def test_removal_leaves_the_node_as_it_was(machine: Machine) -> None:
    run = machine.world.play(playbook=PLAYBOOK)
    assert run.rc == 0, run.stdout
    before = set(machine.sh("cat /root/before.txt").splitlines())
    # The recording's links to the node itself are the fixture's.
    left = [line for line in difference(before, snapshot(machine.world, "node")) if "/opt/recorded/" not in line]
    assert left == LEFT_BY_DEBIAN
