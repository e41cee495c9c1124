"""A disk that is full while packages are installed: the node ends as it was, and the file system is named."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from .faults import difference, said, state, stopped
from .vendor import Vendor, modules, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    small = ("--tmpfs", "/usr/src:size=400m", "--tmpfs", "/var/lib/dkms:size=4m")
    with vendor_world("fulldisk", tmp_path_factory, *small) as this:
        yield this


@contextlib.contextmanager
def full(vendor: Vendor, folder: str) -> Iterator[None]:
    vendor.sh(f"dd if=/dev/zero of={folder}/fill bs=64k 2>/dev/null", check=False)
    try:
        yield
    finally:
        vendor.sh(f"rm {folder}/fill")


def test_no_room_to_unpack(vendor: Vendor) -> None:
    with full(vendor, "/usr/src"):
        before = state(vendor)
        run = vendor.play(nvidia_driver_version="570")
        stopped(run, "GF-DISK-FULL")
        assert "/usr/src" in said(run)
        assert difference(before, state(vendor)) == []


def test_no_room_to_build_the_module(vendor: Vendor) -> None:
    with full(vendor, "/var/lib/dkms"):
        before = state(vendor)
        run = vendor.play(nvidia_driver_version="570")
        stopped(run, "GF-D")
        assert "No space left on device" in said(run)
        assert difference(before, state(vendor)) == []


def test_with_room_again_the_next_run_installs(vendor: Vendor) -> None:
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]
