"""A repository that cannot be trusted or read: the run stops with a code, and the node is as it was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import yaml

from .faults import difference, state, stopped
from .vendor import Vendor, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("repofault", tmp_path_factory) as this:
        yield this


@contextlib.contextmanager
def built(vendor: Vendor, *fault: str) -> Iterator[None]:
    vendor.build(*fault)
    try:
        yield
    finally:
        vendor.build()


@contextlib.contextmanager
def short_id(vendor: Vendor) -> Iterator[None]:
    """The pinned fingerprint ends as the served key's does (its short id), and is another one."""
    overlay = vendor.folder / "overlay.yml"
    content = yaml.safe_load(overlay.read_text(encoding="utf-8"))
    for row in content["repository"]["keys"]:
        row["fingerprint"] = "0" * 32 + row["fingerprint"][-8:]
    overlay.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        yield
    finally:
        vendor.build()


@contextlib.contextmanager
def gone(vendor: Vendor) -> Iterator[None]:
    with vendor.spoiled(lambda _path, _content: None):
        yield


FAULTS = {
    "another key's file": (lambda vendor: built(vendor, "--foreign-key"), "GF-KEY-WRONG"),
    "right short id, another fingerprint": (short_id, "GF-KEY-WRONG"),
    "expired key": (lambda vendor: built(vendor, "--expired-key"), "GF-KEY-EXPIRED"),
    "signed by a stranger": (lambda vendor: built(vendor, "--wrong-key"), "GF-REPOSITORY-UNTRUSTED"),
    "not signed": (lambda vendor: built(vendor, "--unsigned"), "GF-REPOSITORY-UNTRUSTED"),
    "not reachable": (gone, "GF-REPOSITORY-UNREACHABLE"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_without_a_driver_is_as_it_was(vendor: Vendor, fault: str) -> None:
    during, code = FAULTS[fault]
    before = state(vendor)
    with during(vendor):
        run = vendor.play(nvidia_driver_version="570")
    stopped(run, code)
    assert difference(before, state(vendor)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_toolkit_that_cannot_come_leaves_nothing_either(vendor: Vendor, fault: str) -> None:
    during, code = FAULTS[fault]
    before = state(vendor)
    with during(vendor):
        run = vendor.play("cuda_toolkit", cuda_toolkit_version="12.6", cuda_toolkit_source="nvidia")
    stopped(run, code)
    assert difference(before, state(vendor)) == []


def test_a_driver_that_is_there_stays_with_its_hold(vendor: Vendor) -> None:
    run = vendor.play(nvidia_driver_version="570", gpufleet_hold=True)
    assert run.rc == 0, run.stdout
    before = state(vendor)
    # A node that has the good key does not look at the file with the other one.
    for fault, (during, code) in list(FAULTS.items())[1:]:
        with during(vendor):
            # Another address, so that the repository is read again.
            run = vendor.play(
                nvidia_driver_version="580", gpufleet_hold=True, nvidia_repository_url=vendor.base + "/./"
            )
        stopped(run, code)
        assert difference(before, state(vendor)) == [], fault
