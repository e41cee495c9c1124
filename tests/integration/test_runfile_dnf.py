"""NVIDIA's installer beside dnf, and in the place of packages, on a node dressed as Rocky 9.

Installers, node and repositories are stand-ins; dnf, rpm and DKMS are real.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Run
from .test_nvidia_dnf import STATE, Vendor, locks, modules, vendor_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOOL = ROOT / "tests/tools/installers"
OLD, NEW, PACKAGED = "570.211.01", "580.178.04", "590.48.01"
# The recording has the GPU; everything of a driver is the node's own.
OWN = "lib/modules usr/bin usr/lib usr/lib64 usr/src var/lib/dkms var/lib/nvidia"
LINK = "for each in {own}; do mkdir -p $(dirname {root}/$each); rm -rf {root}/$each; ln -s /$each {root}/$each; done"
# rpm looks into a tree from within, so that a link to the node's database would lead nowhere: what it says is recorded before each run.
RECORD = """
mkdir -p {root}/var/lib/rpm {root}/.gpufleet
rpm -qa --qf '"%{{NAME}}": "%{{EVR}}",\\n' | grep -v gpg-pubkey | sed '1s/^/{{/; $s/,$/}}/' > {root}/.gpufleet/rpm.json
"""
REPOSITORY = "/etc/yum.repos.d/gpufleet-nvidia.repo"
STREAM = "/etc/dnf/modules.d/nvidia-driver.module"
OPEN = "Dual MIT/GPL"
NVIDIA = {"nvidia_driver_source": "nvidia", "cuda_toolkit_version": "none"}
PACKAGES = {**NVIDIA, "nvidia_driver_version": "590"}


class Node(Vendor):
    """A node with its own driver beside the recorded GPU."""

    __slots__ = ()

    def play(self, tags: str = "nvidia_driver", **wanted: Any) -> Run:
        self.record()
        return super().play(tags, **wanted)

    def book(self, name: str, **variables: Any) -> None:
        """Another playbook than site.yml, which has to succeed."""
        self.record()
        run = self.world.play(playbook=f"playbooks/{name}.yml", **variables)
        assert run.rc == 0, run.stdout

    def record(self) -> None:
        self.sh(RECORD.format(root="/opt/recorded/$(ls /opt/recorded)"))


@contextlib.contextmanager
def own_driver(factory: pytest.TempPathFactory, suite: str, recording: str) -> Iterator[Node]:
    with vendor_of(factory, suite, recording) as this:
        this.sh(LINK.format(own=OWN, root=f"/opt/recorded/{recording}"))
        yield Node(*this)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with own_driver(tmp_path_factory, "rocky9", "rocky9-l40s-x4") as this:
        yield this


@pytest.fixture(scope="module")
def streamless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with own_driver(tmp_path_factory, "rocky10", "alma10-rtx5090") as this:
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


def left(node: Node) -> str:
    """How the node differs from what it was before the first run; the recording's links are the fixture's."""
    return node.sh("/root/snapshot.sh | diff /root/before.txt - | grep '^[<>]' | grep -v /opt/recorded/", check=False)


def test_one_that_does_not_compile_leaves_the_node_as_it_was(node: Node, folder: Path) -> None:
    run = node.play(**wishes(folder, OLD, "--fault", "no-compile"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    node.sh("rm -rf /var/cache/gpufleet-runfiles")
    assert left(node) == ""


def test_it_is_installed_and_the_next_run_changes_nothing(node: Node, folder: Path) -> None:
    run = node.play(**wishes(folder, OLD))
    assert run.rc == 0, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]
    assert node.play(**wishes(folder, OLD)).changed("node") == 0


def test_the_version_before_comes_back_and_another_takes_its_place(node: Node, folder: Path) -> None:
    run = node.play(**wishes(folder, NEW, "--fault", "no-compile"))
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert modules(node) == [OLD, "Dual MIT/GPL"]
    run = node.play(**wishes(folder, NEW))
    assert run.rc == 0, run.stdout
    assert modules(node) == [NEW, "Dual MIT/GPL"]
    back(node)
    assert modules(node) == [OLD, "Dual MIT/GPL"]


def whole(node: Node) -> str:
    """What a run that stops must leave: packages with their keys, settings, locks, and the driver."""
    return node.sh(f"{STATE}; rpm -qa gpg-pubkey; dkms status; ls -d /usr/bin/nvidia-uninstall /var/lib/nvidia || true")


def back(node: Node) -> None:
    node.book("rollback", gpufleet_rollback="nvidia_driver")


def packages_fail(node: Node, code: str, *fault: str) -> None:
    """Packages that were to take an installer's place, and their repository at fault."""
    before = whole(node)
    node.build(*fault)
    try:
        run = node.play(**PACKAGES)
    finally:
        node.build()
    assert run.rc != 0
    assert code in run.stdout, run.stdout
    assert whole(node) == before


def test_packages_that_do_not_compile_leave_the_installers_driver(node: Node) -> None:
    packages_fail(node, "GF-DKMS-FAILED", "--no-compile", "590")


def test_packages_that_cannot_be_fetched_leave_the_installers_driver(node: Node) -> None:
    packages_fail(node, "could not fetch", "--damage", "missing", "--package", "kmod-nvidia-open-dkms")


def test_packages_take_the_installers_place_and_nothing_of_it_is_left(node: Node) -> None:
    run = node.play(**PACKAGES)
    assert run.rc == 0, run.stdout
    assert modules(node) == [PACKAGED, OPEN]
    assert node.sh("ls -d /var/lib/nvidia /usr/bin/nvidia-uninstall /usr/src/nvidia-5[78]* || true") == ""
    assert node.play(**PACKAGES).changed("node") == 0


def test_an_installer_that_fails_leaves_the_packages_with_stream_hold_and_reasons(node: Node, folder: Path) -> None:
    assert node.play(**PACKAGES, gpufleet_hold=True).rc == 0
    reasons = "dnf -q repoquery --userinstalled | grep -e nvidia | sort"
    before, asked = whole(node), node.sh(reasons)
    assert "nvidia-driver-cuda-3:590" in locks(node)
    run = node.play(**wishes(folder, NEW, "--fault", "no-compile"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert whole(node) == before
    assert node.sh(reasons) == asked
    assert "590-open" in node.sh(f"cat {STREAM}")
    assert node.play(**PACKAGES, gpufleet_hold=True).changed("node") == 0


def test_an_installer_takes_the_packages_place_and_entry_key_and_stream_go_with_them(node: Node, folder: Path) -> None:
    run = node.play(**wishes(folder, NEW))
    assert run.rc == 0, run.stdout
    assert modules(node) == [NEW, OPEN]
    (key,) = {path.stem.lower() for path in node.folder.glob("rhel*/x86_64/*.pub")}
    assert node.sh(f"rpm -qa | grep -e nvidia -e gpg-pubkey-{key} || true") == ""
    assert node.sh(f"ls {REPOSITORY} || true") == ""
    assert "590" not in node.sh(f"cat {STREAM} || true")
    assert "nvidia" not in locks(node)
    assert node.play(**wishes(folder, NEW)).changed("node") == 0


def test_going_back_and_forth_between_them_downloads_nothing(node: Node, folder: Path) -> None:
    node.sh("echo proxy=http://127.0.0.1:9 >> /etc/dnf/dnf.conf")
    try:
        back(node)
        assert modules(node) == [PACKAGED, OPEN]
        back(node)
        assert modules(node) == [NEW, OPEN]
        back(node)
    finally:
        node.sh("sed -i /^proxy=/d /etc/dnf/dnf.conf")
    assert modules(node) == [PACKAGED, OPEN]
    # The packages came back without their repository: the next run that wants them brings it too.
    run = node.play(**PACKAGES)
    assert run.rc == 0, run.stdout
    assert node.sh(f"ls {REPOSITORY}") == REPOSITORY
    assert "590-open" in node.sh(f"cat {STREAM}")
    assert node.play(**PACKAGES).changed("node") == 0
    back(node)
    assert modules(node) == [NEW, OPEN]


def test_removal_leaves_the_node_as_it_was(node: Node) -> None:
    node.book("remove")
    assert left(node) == ""


def test_without_streams_the_source_changes_there_and_back(streamless: Node, folder: Path) -> None:
    for wanted in ({**NVIDIA, "nvidia_driver_version": "580"}, PACKAGES):
        assert streamless.play(**wanted).rc == 0
    assert modules(streamless) == [PACKAGED, OPEN]
    before = whole(streamless)
    run = streamless.play(**wishes(folder, NEW, "--fault", "no-compile"))
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert whole(streamless) == before
    assert "-590.*-*" in locks(streamless)
    run = streamless.play(**wishes(folder, NEW))
    assert run.rc == 0, run.stdout
    assert modules(streamless) == [NEW, OPEN]
    assert "nvidia" not in locks(streamless)
    back(streamless)
    assert modules(streamless) == [PACKAGED, OPEN]
    assert "-590.*-*" in locks(streamless)
    packaged = streamless.play(**wishes(folder, NEW))
    assert packaged.rc == 0, packaged.stdout
    packages_fail(streamless, "GF-DKMS-FAILED", "--no-compile", "590")


def test_without_streams_removal_leaves_the_node_as_it_was(streamless: Node) -> None:
    assert streamless.play(**PACKAGES).rc == 0
    streamless.book("remove")
    assert left(streamless) == ""
