"""Several kernels: headers for each, one that does not compile, one that came later. Real headers and DKMS on Debian 12.

The images are stand-ins (empty files): a container boots none. That one kernel runs is a stand-in too: the host's release leads to
headers of Debian's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .faults import difference, said, state, stopped
from .vendor import Vendor, vendor_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

# What no archive has: headers of a kernel from before an upgrade of the distribution.
ANCIENT = "5.10.0-8-amd64"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    with vendor_world("kernels", tmp_path_factory) as this:
        yield this


@pytest.fixture(scope="module")
def releases(vendor: Vendor) -> list[str]:
    """Debian's kernels that the archive has headers of, the oldest first; of each version of Linux the last."""
    names = vendor.sh(
        "apt-cache search --names-only '^linux-headers-6.1.0-[0-9]+-amd64$' | cut -d' ' -f1 | sort -V | "
        "while read n; do echo $(apt-cache show --no-all-versions $n | sed -n 's/^Version: //p' | cut -d- -f1) $n; done"
    )
    found = {version: name.removeprefix("linux-headers-") for version, name in map(str.split, names.splitlines())}
    assert len(found) >= 3, found
    return list(found.values())


def image(vendor: Vendor, release: str) -> None:
    vendor.sh(f"mkdir -p /boot /lib/modules/{release}; touch /boot/vmlinuz-{release}")


def with_module(vendor: Vendor) -> set[str]:
    return set(vendor.sh("find /lib/modules -name 'nvidia.ko*' | cut -d/ -f4").split())


def upstream(vendor: Vendor, release: str) -> str:
    """The version of the kernel behind a release of Debian's, such as 6.1.170."""
    return vendor.sh(f"dpkg-query -W -f '${{Version}}' linux-headers-{release} | cut -d- -f1")


def test_every_kernel_gets_headers_and_a_module(vendor: Vendor, releases: list[str]) -> None:
    older, newest = releases[-2], releases[-1]
    for release in (ANCIENT, older, newest):
        image(vendor, release)
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert with_module(vendor) == {older, newest}
    assert vendor.sh("dkms status | grep -c ': installed'") == "2"
    assert f"GF-DRIVER-KERNEL: kernel {ANCIENT} has no NVIDIA module" in said(run)
    # Known, so no drift, and said again by every plan.
    again = vendor.play(nvidia_driver_version="570")
    assert again.changed("node") == 0
    assert "GF-DRIVER-KERNEL" in said(again)


def test_a_kernel_that_came_later_is_drift_and_gets_its_module(vendor: Vendor, releases: list[str]) -> None:
    """As an unattended upgrade brings it: the kernel, and no headers."""
    later = releases[-3]
    image(vendor, later)
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert f"kernel {later} has no NVIDIA module" in said(run)
    assert with_module(vendor) == {*releases[-3:]}
    assert vendor.play(nvidia_driver_version="570").changed("node") == 0


def test_a_module_that_somebody_removed_is_built_again(vendor: Vendor, releases: list[str]) -> None:
    vendor.sh(f"rm $(find /lib/modules/{releases[-2]} -name 'nvidia.ko*')")
    run = vendor.play(nvidia_driver_version="570")
    assert run.rc == 0, run.stdout
    assert f"kernel {releases[-2]} has no NVIDIA module" in said(run)
    assert with_module(vendor) == {*releases[-3:]}


def test_a_kernel_that_goes_is_no_reason_to_work(vendor: Vendor, releases: list[str]) -> None:
    gone = releases[-3]
    vendor.sh(
        f"DEBIAN_FRONTEND=noninteractive apt-get purge -y -q linux-headers-{gone}; rm -rf /boot/vmlinuz-{gone} /lib/modules/{gone}"
    )
    assert vendor.play(nvidia_driver_version="570").changed("node") == 0


def running(vendor: Vendor, release: str) -> str:
    """Lets the kernel that runs have the headers of one of Debian's."""
    here = vendor.sh("uname -r")
    vendor.sh(f"mkdir -p /lib/modules/{here}; ln -sfn /usr/src/linux-headers-{release} /lib/modules/{here}/build")
    return here


def test_one_kernel_that_does_not_compile_keeps_no_other_from_the_driver(vendor: Vendor, releases: list[str]) -> None:
    older, newest = releases[-2], releases[-1]
    here = running(vendor, newest)
    # Debian's scripts of DKMS build for the kernel that runs and for the newest one; the older one is left to the role.
    vendor.sh(f"touch /boot/config-{newest}")
    vendor.build("--no-compile", "580", "--kernels", f"<{upstream(vendor, newest)}")
    try:
        run = vendor.play(nvidia_driver_version="580")
    finally:
        vendor.build()
    assert run.rc == 0, run.stdout
    assert f"GF-DRIVER-KERNEL: kernel {older} has no NVIDIA module" in said(run)
    assert "not for this kernel" in said(run)
    assert with_module(vendor) == {here, newest}
    assert vendor.sh("dpkg --audit") == ""
    again = vendor.play(nvidia_driver_version="580")
    assert again.changed("node") == 0
    assert f"kernel {older} has no NVIDIA module" in said(again)


def test_the_newest_kernel_may_not_be_without(vendor: Vendor, releases: list[str]) -> None:
    older, newest = releases[-2], releases[-1]
    running(vendor, older)
    assert vendor.play(nvidia_driver_version="570").rc == 0
    # What the change of the branch left of the one before is no part of this.
    vendor.sh("dpkg -l | awk '/^rc/ {print $2}' | xargs -r dpkg --purge")
    before = state(vendor)
    # The kernel that runs compiles, and the one that the next boot takes does not.
    vendor.build("--no-compile", "580", "--kernels", f">={upstream(vendor, newest)}")
    try:
        run = vendor.play(nvidia_driver_version="580")
    finally:
        vendor.build()
    stopped(run, "GF-DKMS-FAILED")
    assert newest in said(run)
    assert difference(before, state(vendor)) == []


def test_the_running_kernel_needs_headers(vendor: Vendor) -> None:
    run = vendor.world.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    here = vendor.sh("uname -r")
    vendor.sh(f"rm /lib/modules/{here}/build")
    image(vendor, here)
    before = state(vendor)
    run = vendor.play(nvidia_driver_version="570")
    stopped(run, "GF-HEADERS-MISSING")
    assert here in said(run)
    assert difference(before, state(vendor)) == []
