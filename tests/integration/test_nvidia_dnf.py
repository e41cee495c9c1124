"""NVIDIA's repository with dnf: streams (Rocky 9) and the layout without them (Rocky 10).

Stand-ins: the nodes are Debian roots dressed as Rocky (tests/tools/dressing.py), the repositories come from tests/tools/vendor_repository.
dnf, rpm and DKMS are real.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .conftest import ROOT, Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOOL = ROOT / "tests/tools/vendor_repository"
# Of each node's GPUs: the one is served by a release that the other is too new for.
TORCH = {"rocky9": "2.6.0", "rocky10": "2.9.0"}
LIST = "/etc/yum.repos.d/cuda-rhel9.repo"
# Everything that the driver's role may touch and the package manager's own noise is not in.
STATE = (
    "rpm -qa | sort; find /etc/yum.repos.d /etc/pki/rpm-gpg /etc/dnf /etc/modprobe.d -type f | sort | xargs sha256sum;"
    " find /lib/modules -name 'nvidia*'"
)


class Vendor(NamedTuple):
    """A node and the stand-in repository that it reaches."""

    world: World
    folder: Path
    base: str
    suite: str

    def build(self, *fault: str) -> None:
        command = [sys.executable, str(TOOL), "build", str(self.folder), "--for", self.suite, "--base", self.base]
        subprocess.run([*command, *fault], check=True)

    def play(self, tags: str = "nvidia_driver", **wanted: Any) -> Run:
        wishes = {
            "pytorch_version": TORCH[self.suite],
            "gpufleet_catalog_overlay": str(self.folder / "overlay.yml"),
            **wanted,
        }
        return self.world.play(cmdline=f"--tags {tags}", **wishes)

    def sh(self, command: str, *, check: bool = True) -> str:
        return self.world.sh("node", command, check=check)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's concern."""


@contextlib.contextmanager
def vendor_of(factory: pytest.TempPathFactory, suite: str, recording: str) -> Iterator[Vendor]:
    recorded = {"node_recording": recording, "gpufleet_gpu_sysroot": f"/opt/recorded/{recording}"}
    with fresh(f"dnf-{suite}", factory.mktemp(suite), suite=suite, **recorded) as world:
        address, folder = world.sh("node", "ip route show default").split()[2], factory.mktemp("repository")
        server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Quiet, directory=str(folder)))
        this = Vendor(world, folder, f"http://{address}:{server.server_address[1]}", suite)
        this.build()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield this
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_of(tmp_path_factory, "rocky9", "rocky9-l40s-x4") as this:
        yield this


@pytest.fixture(scope="module")
def streamless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_of(tmp_path_factory, "rocky10", "alma10-rtx5090") as this:
        yield this


def modules(vendor: Vendor) -> list[str]:
    """Version and licence of every NVIDIA module that the node has."""
    return vendor.sh(
        "find /lib/modules -name 'nvidia.ko*' | while read f; do modinfo -F version $f; modinfo -F license $f; done"
    ).split("\n")


def driver_packages(vendor: Vendor) -> str:
    return vendor.sh("rpm -qa | grep -E 'nvidia|cuda' | sort", check=False)


def locks(vendor: Vendor) -> str:
    return vendor.sh("cat /etc/dnf/plugins/versionlock.list")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("--wrong-key", "GF-REPOSITORY-UNTRUSTED"),
        ("--unsigned", "GF-REPOSITORY-UNTRUSTED"),
        ("--foreign-key", "GF-KEY-WRONG"),
        ("--expired-key", "GF-KEY-EXPIRED"),
        ("", "GF-REPOSITORY-UNREACHABLE"),
    ],
)
def test_a_repository_at_fault_leaves_the_node_as_it_was(vendor: Vendor, fault: str, code: str) -> None:
    before = vendor.sh(STATE)
    try:
        if fault:
            vendor.build(fault)
        elsewhere = {} if fault else {"nvidia_repository_url": vendor.base + "/nowhere"}
        run = vendor.play(nvidia_driver_version="570", **elsewhere)
    finally:
        vendor.build()
    assert run.rc != 0
    assert code in run.stdout, run.stdout
    assert vendor.sh(STATE) == before, run.stdout


def test_a_node_whose_repositories_have_no_dkms_is_told_of_epel(vendor: Vendor) -> None:
    before = vendor.sh(STATE)
    vendor.sh("sed -i '/^.epel/,$s/enabled=1/enabled=0/' /etc/yum.repos.d/stand-in.repo")
    try:
        run = vendor.play(nvidia_driver_version="570")
    finally:
        vendor.sh("sed -i s/enabled=0/enabled=1/ /etc/yum.repos.d/stand-in.repo")
    assert run.rc != 0
    assert "GF-DKMS-MISSING" in run.stdout, run.stdout
    assert vendor.sh(STATE) == before


def fails_to_compile(vendor: Vendor, branch: str, **wanted: Any) -> None:
    vendor.build("--no-compile", branch)
    try:
        run = vendor.play(nvidia_driver_version=branch, **wanted)
    finally:
        vendor.build()
    assert run.rc != 0
    assert "GF-DKMS-FAILED" in run.stdout, run.stdout
    assert "not for this kernel" in run.stdout, run.stdout


def test_a_node_without_a_driver_is_as_before_where_the_module_does_not_compile(vendor: Vendor) -> None:
    before = vendor.sh(STATE)
    fails_to_compile(vendor, "580")
    assert vendor.sh(STATE) == before


def test_a_branch_is_installed_and_the_former_entry_makes_way(vendor: Vendor) -> None:
    vendor.sh(
        f"printf '[cuda-rhel9]\\nname=cuda\\nbaseurl={vendor.base}/rhel9/x86_64\\nenabled=1\\ngpgcheck=0\\n' > {LIST}"
    )
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]
    assert "570-open [e]" in vendor.sh(f"test ! -e {LIST} && dnf -q module list --enabled")
    assert vendor.sh("rpm -q nvidia-driver", check=False) == "package nvidia-driver is not installed"
    assert vendor.play(nvidia_driver_version="570").changed("node") == 0


def test_the_driver_before_comes_back_where_the_new_one_does_not_compile(vendor: Vendor) -> None:
    assert vendor.play(nvidia_driver_version="570", gpufleet_hold=True).rc == 0
    before, held = driver_packages(vendor), locks(vendor)
    assert "nvidia-driver-cuda-3:570.211.01" in held
    fails_to_compile(vendor, "580", nvidia_driver_flavour="proprietary", gpufleet_hold=True)
    assert driver_packages(vendor) == before
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]
    assert locks(vendor) == held
    assert "570-open" in vendor.sh("cat /etc/dnf/modules.d/nvidia-driver.module")
    assert vendor.play(nvidia_driver_version="570", gpufleet_hold=True).changed("node") == 0


def test_a_package_that_lost_its_hold_is_drift(vendor: Vendor) -> None:
    held = locks(vendor)
    vendor.sh("dnf -q versionlock delete nvidia-driver-cuda")
    assert locks(vendor) != held
    run = vendor.play(nvidia_driver_version="570", gpufleet_hold=True)
    assert "package nvidia-driver-cuda was held, is not" in run.stdout, run.stdout
    assert locks(vendor) == held
    # The hold is one against everybody's upgrades: 580 would be there for the asking.
    vendor.sh("dnf -q -y module reset nvidia-driver; dnf -q -y module enable nvidia-driver:580-open; dnf -q -y upgrade")
    assert modules(vendor) == ["570.211.01", "Dual MIT/GPL"]


def test_flavour_and_branch_change_and_one_driver_is_left(vendor: Vendor) -> None:
    for branch, flavour, expected in (
        ("570", "proprietary", ["570.211.01", "NVIDIA"]),
        ("580", "open", ["580.178.04", "Dual MIT/GPL"]),
        ("590", "open", ["590.48.01", "Dual MIT/GPL"]),
    ):
        run = vendor.play(nvidia_driver_version=branch, nvidia_driver_flavour=flavour)
        assert run.rc == 0, run.stdout
        assert modules(vendor) == expected
    assert "nvidia" not in locks(vendor)
    # 595 is in the repository too: the stream keeps the branch in everybody's upgrade.
    vendor.sh("dnf -q -y --refresh upgrade")
    assert modules(vendor) == ["590.48.01", "Dual MIT/GPL"]


def test_going_back_and_forth_downloads_nothing(vendor: Vendor) -> None:
    vendor.sh("echo proxy=http://127.0.0.1:9 >> /etc/dnf/dnf.conf")
    try:
        for version in ("580.178.04", "590.48.01"):
            run = vendor.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
            assert run.rc == 0, run.stdout
            assert modules(vendor) == [version, "Dual MIT/GPL"]
    finally:
        vendor.sh("sed -i /^proxy=/d /etc/dnf/dnf.conf")
    assert "590-open" in vendor.sh("cat /etc/dnf/modules.d/nvidia-driver.module")
    assert vendor.play(nvidia_driver_version="590", nvidia_driver_flavour="open").changed("node") == 0


def test_a_toolkit_stands_in_its_own_place_and_brings_no_driver(vendor: Vendor) -> None:
    before = modules(vendor)
    run = vendor.play(
        "nvidia_driver,cuda_toolkit",
        nvidia_driver_version="590",
        nvidia_driver_flavour="open",
        cuda_toolkit_version="12.6",
    )
    assert run.rc == 0, run.stdout
    assert modules(vendor) == before
    assert vendor.sh("readlink -f /usr/local/cuda") == "/usr/local/cuda-12.6"
    assert "release 12.6" in vendor.sh("bash -lc 'nvcc --version'")
    assert "not installed" in vendor.sh("rpm -q cuda", check=False)


def test_cudnn_of_packages_is_locked_and_what_somebody_moved_comes_back(vendor: Vendor) -> None:
    wishes = {
        "nvidia_driver_version": "590",
        "nvidia_driver_flavour": "open",
        "cuda_toolkit_version": "12.6",
        "cudnn_source": "nvidia",
    }
    run = vendor.play("cudnn", cudnn_version="8.9.2", **wishes)
    assert run.rc == 0, run.stdout
    assert vendor.sh("rpm -q libcudnn8").startswith("libcudnn8-8.9.2.26-1.cuda12.1")
    assert vendor.play("cudnn", cudnn_version="8.9.2", **wishes).changed("node") == 0
    vendor.sh("dnf -q -y --refresh upgrade")
    assert vendor.sh("rpm -q libcudnn8").startswith("libcudnn8-8.9.2.26-1.cuda12.1")
    vendor.sh("dnf -q -y --disableplugin=versionlock upgrade libcudnn8 libcudnn8-devel")
    run = vendor.play("cudnn", cudnn_version="8.9.2", **wishes)
    assert run.rc == 0, run.stdout
    assert vendor.sh("rpm -q libcudnn8").startswith("libcudnn8-8.9.2.26-1.cuda12.1")
    locked = locks(vendor)
    with_both = vendor.play("cudnn", cudnn_version=["9.17", "8.9.2"], **wishes)
    # The stand-in's headers of both lie in one place: rpm refuses, and the node keeps what it had.
    assert "GF-DNF-FAILED" in with_both.stdout, with_both.stdout
    assert locks(vendor) == locked
    run = vendor.play("cudnn", cudnn_version=["9.17", "8.9.2"], cudnn_headers=False, **wishes)
    assert run.rc == 0, run.stdout
    names = vendor.sh("rpm -qa --qf '%{NAME}-%{VERSION}\\n' | grep -e '^libcudnn.-[0-9]' -e cuda-12-9 | sort").split()
    assert names == ["libcudnn8-8.9.2.26", "libcudnn9-cuda-12-9.17.1.4"]
    assert vendor.sh(". /etc/profile.d/gpufleet-cudnn.sh; ls $CUDNN_HOME/lib/libcudnn.so.9")
    assert vendor.play("cudnn", cudnn_version=["9.17", "8.9.2"], cudnn_headers=False, **wishes).changed("node") == 0


def test_removal_leaves_the_node_as_it_was_with_the_former_entry(vendor: Vendor) -> None:
    run = vendor.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert vendor.base in vendor.sh(f"cat {LIST}")
    vendor.sh(f"rm {LIST}")
    assert vendor.sh("/root/snapshot.sh | diff /root/before.txt -", check=False) == ""


def test_without_streams_dnfs_plugin_keeps_the_branch(streamless: Vendor) -> None:
    before = streamless.sh(STATE)
    fails_to_compile(streamless, "580")
    assert streamless.sh(STATE) == before
    run = streamless.play(nvidia_driver_version="580")
    assert run.rc == 0, run.stdout
    assert modules(streamless) == ["580.178.04", "Dual MIT/GPL"]
    # 590 and 595 are there for everybody's upgrade.
    streamless.sh("dnf -q -y --refresh upgrade")
    assert modules(streamless) == ["580.178.04", "Dual MIT/GPL"]
    assert "580.178.04" in driver_packages(streamless)
    assert streamless.play(nvidia_driver_version="580").changed("node") == 0


def test_without_streams_a_branch_changes_and_goes_back(streamless: Vendor) -> None:
    fails_to_compile(streamless, "590")
    assert modules(streamless) == ["580.178.04", "Dual MIT/GPL"]
    assert "-580.*-*" in locks(streamless)
    run = streamless.play(nvidia_driver_version="590")
    assert run.rc == 0, run.stdout
    assert modules(streamless) == ["590.48.01", "Dual MIT/GPL"]
    back = streamless.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
    assert back.rc == 0, back.stdout
    assert modules(streamless) == ["580.178.04", "Dual MIT/GPL"]
    assert "-580.*-*" in locks(streamless)


def test_without_streams_removal_leaves_the_node_as_it_was(streamless: Vendor) -> None:
    run = streamless.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    assert streamless.sh("/root/snapshot.sh | diff /root/before.txt -", check=False) == ""
