"""The package manager in the way: locks, a power cut, a mirror that dies, a damaged package. A real Debian 12 with apt and DKMS."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any

import ansible_runner
import pytest

from .faults import difference, said, state, stopped
from .vendor import Vendor, modules, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

LOCK_SECONDS = 120
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
HOLD_LOCKS = """
import fcntl, sys, time
kept = [open(path, 'w') for path in sys.argv[2:]]
for each in kept:
    fcntl.lockf(each, fcntl.LOCK_EX)
print('held', flush=True)
time.sleep(float(sys.argv[1]))
"""
CUT_SECONDS = 300
DRIVER_570 = ["570.211.01", "Dual MIT/GPL"]
# dpkg notes each step in its journal; headers are what takes the longest.
HALF_UNPACKED = "grep -hA1 '^Package: linux-headers' /var/lib/dpkg/updates/* 2>/dev/null | grep half-installed"
BUILDING = "pgrep -f '[d]kms build'"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("pkgfault", tmp_path_factory) as this:
        yield this


def whole(vendor: Vendor) -> None:
    """The driver is there, nothing is half done, and the next run has nothing to do."""
    assert modules(vendor) == DRIVER_570
    assert vendor.sh("dpkg --audit; apt-get check -q 2>&1 | grep ^E: || true") == ""
    assert vendor.play(nvidia_driver_version="570").changed("node") == 0


def removed(vendor: Vendor, before: set[str]) -> None:
    run = vendor.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert difference(before, state(vendor)) == []


@pytest.fixture(scope="module")
def untouched(vendor: Vendor) -> set[str]:
    return state(vendor)


@pytest.fixture
def bare(vendor: Vendor, untouched: set[str]) -> set[str]:
    """A node without a driver, whatever the test before left, and without one in apt's cache."""
    if difference(untouched, state(vendor)):
        vendor.sh("dpkg --purge theirs >/dev/null 2>&1 || true")
        removed(vendor, untouched)
    vendor.sh("rm -f /var/cache/apt/archives/*nvidia*")
    return untouched


def test_a_mirror_that_dies_halfway(vendor: Vendor, bare: set[str]) -> None:
    served: list[str] = []

    def dying(path: str, content: bytes) -> bytes | None:
        served.append(path)
        return content if sum(each.endswith(".deb") for each in served) <= 1 else None

    with vendor.spoiled(dying):
        run = vendor.play(nvidia_driver_version="570")
    stopped(run, "GF-PACKAGE-UNREACHABLE")
    assert sum(path.endswith(".deb") for path in served) > 1
    assert difference(bare, state(vendor)) == []


def test_a_damaged_package(vendor: Vendor, bare: set[str]) -> None:
    def damaged(path: str, content: bytes) -> bytes:
        return content if "libnvidia-compute" not in path else content[:-1] + bytes([content[-1] ^ 1])

    with vendor.spoiled(damaged):
        run = vendor.play(nvidia_driver_version="570")
    stopped(run, "GF-PACKAGE-DAMAGED")
    assert difference(bare, state(vendor)) == []


def lock(vendor: Vendor, seconds: int, *paths: str) -> None:
    vendor.sh(f'nohup python3 -c "{HOLD_LOCKS}" {seconds} {" ".join(paths)} >/root/held 2>&1 & echo $! >/root/locker')
    while vendor.sh("cat /root/held") != "held":
        time.sleep(0.2)


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_that_nobody_lets_go(vendor: Vendor, bare: set[str], path: str) -> None:
    lock(vendor, 600, path)
    try:
        run = vendor.play(nvidia_driver_version="570", apt_packages_lock_timeout=5)
    finally:
        vendor.sh("kill $(cat /root/locker); rm /root/locker /root/held")
    stopped(run, "GF-APT-LOCKED")
    assert difference(bare, state(vendor)) == []


def test_somebody_elses_package_that_cannot_be_finished(vendor: Vendor, bare: set[str]) -> None:
    vendor.sh(
        "mkdir -p /tmp/p/DEBIAN && cd /tmp && "
        "printf 'Package: theirs\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: d\\n' > p/DEBIAN/control && "
        "printf '#!/bin/sh\\nexit 1\\n' > p/DEBIAN/postinst && chmod 755 p/DEBIAN/postinst && dpkg-deb -b p theirs.deb && "
        "! dpkg -i theirs.deb"
    )
    before = state(vendor)
    run = vendor.play(nvidia_driver_version="570")
    stopped(run, "GF-DPKG-UNFINISHED")
    assert "theirs" in said(run)
    assert difference(before, state(vendor)) == []
    vendor.sh("dpkg --purge theirs")
    assert difference(bare, state(vendor)) == []


def cut(vendor: Vendor, moment: str, **wanted: Any) -> None:
    """Starts the driver's installation and cuts the node's power at a moment that a command on the node tells."""
    settings = vendor.world.settings(cmdline="--tags nvidia_driver", **vendor.wishes(**wanted))
    thread, runner = ansible_runner.run_async(**settings)
    deadline, seen = time.monotonic() + CUT_SECONDS, ""
    while thread.is_alive() and not seen and time.monotonic() < deadline:
        seen = vendor.sh(f"timeout 5 sh -c {shlex.quote(f'while ! {{ {moment}; }}; do sleep 0.02; done')}", check=False)
    assert seen, f"the moment never came: {runner.stdout.read()}"
    vendor.world.tool("kill", "node")
    thread.join(timeout=CUT_SECONDS)
    assert not thread.is_alive()
    assert runner.rc != 0
    vendor.world.tool("start", "node")


@pytest.mark.parametrize("moment", [HALF_UNPACKED, BUILDING])
def test_a_power_cut_while_dpkg_works(vendor: Vendor, bare: set[str], moment: str) -> None:
    cut(vendor, moment, nvidia_driver_version="570")
    assert vendor.sh("dpkg --audit") != ""
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    whole(vendor)
    removed(vendor, bare)


@pytest.mark.parametrize("moment", [HALF_UNPACKED, BUILDING])
def test_a_node_that_lost_its_power_is_cleaned(vendor: Vendor, bare: set[str], moment: str) -> None:
    """Nobody has to finish what was begun: removal copes with half of it."""
    cut(vendor, moment, nvidia_driver_version="570")
    removed(vendor, bare)


def test_a_lock_held_for_two_minutes_is_waited_for(vendor: Vendor) -> None:
    lock(vendor, LOCK_SECONDS, *LOCKS)
    begun = time.monotonic()
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert time.monotonic() - begun > LOCK_SECONDS - 30
    vendor.sh("rm /root/locker /root/held")
    whole(vendor)
