"""NVIDIA's installer as the driver's source, on a real Debian 12 with its DKMS; the installers are stand-ins (tests/tools/installers)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from .conftest import ROOT, Run, World
from .removal import PLAYBOOK, difference, snapshot
from .vendor import Vendor, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOOL = ROOT / "tests/tools/installers"
SYSROOT = "/opt/recorded/a100"
# The recording has the GPU; everything of a driver is the node's own.
OWN = ("lib/modules", "usr/bin", "usr/lib", "usr/lib64", "usr/src", "var/lib/dkms", "var/lib/dpkg", "var/lib/nvidia")
KERNEL = "apt-cache depends linux-headers-amd64 | sed -n 's/.*Depends: linux-headers-//p'"
OLD, NEW = "570.211.01", "580.178.04"
CACHE = "/var/cache/gpufleet-runfiles"


class Machine(NamedTuple):
    """A node that reaches a stand-in of NVIDIA's repository, and the directory of installers on the controller."""

    vendor: Vendor
    folder: Path

    @property
    def world(self) -> World:
        return self.vendor.world

    def build(self, *fault: str) -> None:
        self.vendor.build(*fault)

    def packages(self, branch: str) -> dict[str, str]:
        """The wishes for a branch of NVIDIA's repository."""
        overlay = str(self.vendor.folder / "overlay.yml")
        return {"nvidia_driver_source": "nvidia", "nvidia_driver_version": branch, "gpufleet_catalog_overlay": overlay}

    def make(self, version: str, *options: str, folder: str = "") -> dict[str, str]:
        """The wishes for a stand-in installer of this version."""
        command = [sys.executable, str(TOOL), "driver", str(self.folder / folder), version, *options]
        path, digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return {
            "nvidia_driver_source": "runfile",
            "nvidia_driver_runfile": path,
            "nvidia_driver_runfile_sha256": digest,
        }

    def play(self, wishes: dict[str, str], **more: object) -> Run:
        # A toolkit of NVIDIA's repository would keep its entry on the node.
        wanted = {"pytorch_version": "2.6.0", "cuda_toolkit_version": "none", **wishes, **more}
        return self.world.play(cmdline="--tags nvidia_driver", **wanted)

    def sh(self, command: str, *, check: bool = True) -> str:
        return self.world.sh("node", command, check=check)

    def driver(self) -> list[str]:
        """Version and licence of every NVIDIA module, what programs get as libcuda, and what DKMS has."""
        return self.sh(
            "find /lib/modules -name 'nvidia*.ko*' | while read f; do modinfo -F version $f; modinfo -F license $f; done;"
            'basename "$(readlink -f "$(ldconfig -p | sed -n \'s/.*libcuda.so.1 .*=> //p\')")"; dkms status'
        ).splitlines()


def installer_left(machine: Machine, more: str) -> str:
    """What the installer leaves on a node, and paths besides, that are still there."""
    paths = "/var/lib/nvidia /usr/bin/nvidia-installer /usr/bin/nvidia-uninstall"
    return machine.sh(f"ls -d {paths} {more} 2>/dev/null || true")


def drives(version: str, licence: str, lines: list[str]) -> bool:
    kernel = lines[-1].split(", ")[1] if lines else ""
    return lines == [version, licence, f"libcuda.so.{version}", f"nvidia/{version}, {kernel}, x86_64: installed"]


@contextlib.contextmanager
def own_driver(name: str, factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A node whose recording has the GPU, and nothing of a driver but the node's own."""
    with vendor_world(name, factory) as vendor:
        for each in OWN:
            place = f"{SYSROOT}/{each}"
            vendor.sh(f"mkdir -p $(dirname {place}); rm -rf {place}; ln -s /{each} {place}")
        # The kernel whose headers the node will get is the one that runs.
        vendor.sh(f"{KERNEL} > {SYSROOT}/proc/sys/kernel/osrelease")
        yield Machine(vendor, factory.mktemp(name))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with own_driver("installers", tmp_path_factory) as this:
        yield this


def whole(machine: Machine) -> tuple[set[str], str]:
    """What a run that stops must leave: the node's settings and packages, and its driver."""
    traces = machine.sh(
        "ls -d /usr/src/nvidia* /var/lib/dkms/nvidia* /var/lib/nvidia /usr/lib/x86_64-linux-gnu/libcuda* || true"
    )
    return snapshot(machine.world, "node"), traces


def test_a_file_that_is_not_the_promised_one_stops_before_anything_is_touched(machine: Machine) -> None:
    good = machine.make(NEW)
    cut = machine.folder / "cut" / f"NVIDIA-Linux-x86_64-{NEW}.run"
    cut.parent.mkdir()
    cut.write_bytes((machine.folder / cut.name).read_bytes()[:-1])
    machine.make(OLD, folder="other")
    renamed = machine.folder / "renamed" / cut.name
    renamed.parent.mkdir()
    renamed.write_bytes((machine.folder / "other" / f"NVIDIA-Linux-x86_64-{OLD}.run").read_bytes())
    other = machine.make(NEW, "--architecture", "aarch64", folder="arm")
    arm = machine.folder / "arm" / cut.name
    arm.write_bytes((machine.folder / "arm" / f"NVIDIA-Linux-aarch64-{NEW}.run").read_bytes())
    digest = subprocess.run(["sha256sum", str(renamed)], capture_output=True, text=True, check=True).stdout.split()[0]
    before = whole(machine)
    for wishes, code in (
        ({**good, "nvidia_driver_runfile_sha256": "0" * 64}, "GF-RUNFILE-HASH"),
        ({**good, "nvidia_driver_runfile": str(cut)}, "GF-RUNFILE-HASH"),
        ({**good, "nvidia_driver_runfile": str(renamed), "nvidia_driver_runfile_sha256": digest}, "GF-RUNFILE-FOREIGN"),
        ({**other, "nvidia_driver_runfile": str(arm)}, "GF-RUNFILE-FOREIGN"),
        ({**good, "nvidia_driver_runfile": f"/nowhere/{cut.name}"}, "GF-RUNFILE-NOWHERE"),
    ):
        run = machine.play(wishes)
        assert run.rc != 0, code
        assert code in run.stdout, run.stdout
        machine.sh(f"rm -rf {CACHE}")
        assert difference(before[0], whole(machine)[0]) == []
        assert whole(machine)[1] == before[1]


def test_a_module_that_does_not_compile_leaves_a_bare_node_bare(machine: Machine) -> None:
    before = whole(machine)
    run = machine.play(machine.make(NEW, "--fault", "no-compile", folder="broken"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert "not for this kernel" in run.stdout, run.stdout
    assert difference(before[0], whole(machine)[0]) == []
    assert whole(machine)[1] == before[1]


def test_it_is_installed_and_the_next_run_changes_nothing(machine: Machine) -> None:
    wishes = machine.make(OLD)
    run = machine.play(wishes)
    assert run.rc == 0, run.stdout
    assert drives(OLD, "Dual MIT/GPL", machine.driver()), machine.driver()
    started = machine.sh("wc -l < /var/log/module-executions")
    assert machine.play(wishes).changed("node") == 0
    assert int(machine.sh("wc -l < /var/log/module-executions")) - int(started) == 1


def test_another_version_takes_its_place_and_going_back_fetches_nothing(machine: Machine) -> None:
    wishes = machine.make(NEW)
    run = machine.play(wishes)
    assert run.rc == 0, run.stdout
    assert drives(NEW, "Dual MIT/GPL", machine.driver()), machine.driver()
    for version in (OLD, NEW):
        run = machine.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
        assert run.rc == 0, run.stdout
        assert drives(version, "Dual MIT/GPL", machine.driver()), machine.driver()
    assert machine.play(wishes).changed("node") == 0


def test_the_version_before_comes_back_where_the_new_one_does_not_compile(machine: Machine) -> None:
    before = machine.driver()
    run = machine.play(machine.make("590.48.01", "--fault", "no-compile", folder="broken"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert machine.driver() == before
    assert machine.play(machine.make(NEW)).changed("node") == 0


def test_what_somebody_changed_is_found_by_the_look_at_the_node_and_mended(machine: Machine) -> None:
    wishes = machine.make(NEW)
    machine.sh("rm /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    run = machine.play(wishes)
    assert run.rc == 0, run.stdout
    assert "libnvidia-ml.so.1" in run.stdout
    assert drives(NEW, "Dual MIT/GPL", machine.driver()), machine.driver()
    assert machine.play(wishes).changed("node") == 0


def test_packages_that_do_not_compile_leave_the_installers_driver(machine: Machine) -> None:
    before = machine.driver()
    machine.build("--no-compile", "590")
    try:
        run = machine.play(machine.packages("590"))
    finally:
        machine.build()
    assert run.rc != 0
    assert "GF-DKMS-FAILED" in run.stdout, run.stdout
    assert machine.driver() == before
    assert machine.sh("dpkg-query -W | grep -c -e nvidia-open -e nvidia-dkms || true") == "0"
    assert machine.sh("dpkg --audit") == ""


def test_a_mirror_that_is_dead_leaves_the_installers_driver(machine: Machine) -> None:
    before = machine.driver()
    packages = machine.vendor.folder / "debian12/x86_64"
    gone = [path for path in packages.glob("*590*.deb") if "pinning" not in path.name]
    for path in gone:
        path.rename(path.with_suffix(".away"))
    run = machine.play(machine.packages("590"))
    for path in gone:
        path.with_suffix(".away").rename(path)
    assert run.rc != 0
    assert "GF-APT-FETCH" in run.stdout, run.stdout
    assert machine.driver() == before


def test_packages_of_nvidias_repository_take_its_place_and_nothing_of_it_is_left(machine: Machine) -> None:
    wishes = machine.packages("590")
    run = machine.play(wishes)
    assert run.rc == 0, run.stdout
    assert drives("590.48.01", "Dual MIT/GPL", machine.driver()), machine.driver()
    assert installer_left(machine, "/usr/src/nvidia-5[78]*") == ""
    assert machine.play(wishes).changed("node") == 0


def test_an_installer_that_fails_leaves_the_packages_driver_with_its_hold(machine: Machine) -> None:
    assert machine.play(machine.packages("590"), gpufleet_hold=True).rc == 0
    before = machine.driver(), machine.sh("apt-mark showhold"), snapshot(machine.world, "node")
    assert "nvidia-open" in before[1]
    run = machine.play(machine.make(NEW, "--fault", "no-compile", folder="broken"))
    assert run.rc != 0
    assert "GF-RUNFILE-FAILED" in run.stdout, run.stdout
    assert (machine.driver(), machine.sh("apt-mark showhold")) == before[:2]
    assert difference(before[2], snapshot(machine.world, "node")) == []
    assert machine.play(machine.packages("590"), gpufleet_hold=True).changed("node") == 0


def test_an_installer_takes_the_packages_place_and_nvidias_repository_goes_with_them(machine: Machine) -> None:
    wishes = machine.make(NEW)
    run = machine.play(wishes)
    assert run.rc == 0, run.stdout
    assert drives(NEW, "Dual MIT/GPL", machine.driver()), machine.driver()
    assert machine.sh("dpkg-query -W | grep -e nvidia-open -e nvidia-dkms -e libnvidia || true") == ""
    assert machine.sh("ls /etc/apt/sources.list.d | grep -c gpufleet-nvidia || true") == "0"
    assert machine.play(wishes).changed("node") == 0
    # And back to the packages, from apt's cache.
    run = machine.world.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
    assert run.rc == 0, run.stdout
    assert drives("590.48.01", "Dual MIT/GPL", machine.driver()), machine.driver()


def test_a_run_that_was_cut_off_in_the_installer_is_healed_by_the_next(machine: Machine) -> None:
    run = machine.play(machine.make(NEW, "--fault", "killed", folder="broken"))
    assert run.rc != 0
    run = machine.play(machine.make(NEW))
    assert run.rc == 0, run.stdout
    assert drives(NEW, "Dual MIT/GPL", machine.driver()), machine.driver()


def test_removal_leaves_the_node_as_it_was(machine: Machine) -> None:
    run = machine.world.play(playbook=PLAYBOOK)
    assert run.rc == 0, run.stdout
    before = set(machine.sh("cat /root/before.txt").splitlines())
    # The recording's links to the node itself are the fixture's.
    left = [line for line in difference(before, snapshot(machine.world, "node")) if "/opt/recorded/" not in line]
    assert left == []
    assert installer_left(machine, "/usr/src/nvidia* /var/lib/dkms/nvidia*") == ""


BREAKS = {
    "the uninstaller is missing": "rm /usr/bin/nvidia-uninstall",
    "DKMS has no source": f"rm -r /usr/src/nvidia-{NEW}",
    "libraries of another version": "cd /usr/lib/x86_64-linux-gnu; "
    f"mv libcuda.so.{NEW} libcuda.so.535.54.03; ln -sf libcuda.so.535.54.03 libcuda.so.1",
    "the list is missing": "rm /var/lib/nvidia/log",
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_earlier_installation_is_found_and_healed(machine: Machine, how: str) -> None:
    """Installed by somebody else's hand, broken, and replaced by packages."""
    path = machine.make(NEW)["nvidia_driver_runfile"]
    assert machine.world.play(playbook=PLAYBOOK).rc == 0
    machine.sh("apt-get install -q -y dkms gcc make libc6-dev linux-headers-amd64")
    kernel = machine.sh("ls /lib/modules | head -1")
    with open(path, "rb") as stream:
        container = subprocess.run(
            [str(ROOT / "tests/tools/nodes"), "name", "installers", "node"], capture_output=True, text=True, check=True
        ).stdout.strip()
        subprocess.run(
            ["podman", "exec", "-i", container, "sh", "-c", "cat > /root/driver.run"], stdin=stream, check=True
        )
    machine.sh(f"sh /root/driver.run --silent --dkms --kernel-name={kernel}; {BREAKS[how]}")
    plan = machine.world.play(playbook="playbooks/plan.yml", pytorch_version="2.6.0", **machine.packages("590"))
    assert "has to go first" in plan.stdout, plan.stdout
    run = machine.play(machine.packages("590"))
    assert run.rc == 0, run.stdout
    assert drives("590.48.01", "Dual MIT/GPL", machine.driver()), machine.driver()
    assert installer_left(machine, "/usr/lib/*/libcuda.so.5[38]*") == ""
    assert machine.play(machine.packages("590")).changed("node") == 0
