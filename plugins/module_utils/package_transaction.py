# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt would do for an installation, and what of it must not happen. Private to the collection.

What dnf would do is found out in ``dnf_transaction``; what must not happen is the same.
"""

from __future__ import annotations

import fnmatch
import re
import time
from typing import Callable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Lines of apt-get --simulate: "Inst name [old] (new archive [arch])", "Remv name [old]".
_STEP = re.compile(r"^(Inst|Remv|Purg) (\S+)(?: \[([^\]]*)\])?(?: \((\S+))?", re.MULTILINE)
# The running kernel in its packages' names, on Debian and Ubuntu.
_KERNEL = ("linux-image-{}", "linux-image-unsigned-{}", "linux-modules-{}", "linux-modules-extra-{}")
# With dnf the release is the version of these.
_KERNEL_OF_RPM = ("kernel", "kernel-core", "kernel-modules", "kernel-modules-core", "kernel-modules-extra")
# What brings a kernel module of NVIDIA's; Debian's, Ubuntu's and NVIDIA's names.
_MODULES = (
    "cuda-drivers*",
    "kmod-nvidia*",
    "linux-modules-nvidia-*",
    "nvidia-*dkms*",
    "nvidia-driver",
    "nvidia-driver-[0-9]*",
    "nvidia-driver-cuda",
    "nvidia-kernel-open*",
    # Not nvidia-open*: Debian's toolkit has nvidia-opencl-dev.
    "nvidia-open",
    "nvidia-open-[0-9]*",
    "nvidia-open-kernel-*",
    "nvidia-tesla*-driver",
)
# What has to be of the kernel module's version.
_DRIVER = (
    *_MODULES, "libcuda1", "libnvidia-*", "nvidia-driver-*", "nvidia-fabricmanager*", "nvidia-imex*", "nvidia-kernel-*",
    "nvidia-kmod-common", "nvidia-modprobe", "nvidia-persistenced*",
)  # fmt: skip
# How a user upgrades a node, and takes a package off hold.
_COMMANDS = {"apt": ("apt-get upgrade", "apt-mark unhold"), "dnf": ("dnf upgrade", "dnf versionlock delete")}
# NVIDIA calls the container toolkit's library and the toolkit's profiler alike.
_NO_DRIVER = ("libnvidia-container*",)


class Step(NamedTuple):
    """One package of a transaction; ``before`` and ``after`` are None where it is not there."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.before or 'not installed'} -> {self.after or 'removed'}"


class Transaction(NamedTuple):
    """What would be done. ``known`` is False where it does not know all the packages or finds no way."""

    known: bool
    steps: list[Step]
    said: str


def ask(run: Run, packages: list[str]) -> Transaction:
    """Ask apt what installing these packages would do; nothing is changed.

    Held packages may be part of the answer, so that they can be named, where apt itself would only refuse.
    """
    code, out, err = run(_install("--simulate", packages))
    if code != 0:
        return Transaction(False, [], err.strip() or out.strip())
    steps = [Step(match[2], match[3], match[4] if match[1] == "Inst" else None) for match in _STEP.finditer(out)]
    return Transaction(True, steps, "")


def exact(packages: list[str], steps: list[Step]) -> list[str]:
    """The packages with the versions that apt would put in the place of others.

    Named alone, an installed package stays what it is, and one whose parts have to match would be torn apart. Headers that
    are there are left out: newer ones would bring a kernel that nobody asked for.
    """
    replaced = [step for step in steps if step.before and step.after and not step.name.startswith("linux-")]
    changed = {plain(step.name): step.after for step in replaced}
    return [f"{name}={changed[name]}" if changed.get(name) else name for name in packages]


def removed(steps: list[Step]) -> list[str]:
    """The driver's packages that go. Others' settings are not ours to purge."""
    return sorted(plain(step.name) for step in steps if step.after is None and _is(step, _DRIVER))


def _install(how: str, packages: list[str]) -> list[str]:
    command = ["apt-get", "install", how, "--assume-yes", "--no-install-recommends", "--allow-downgrades"]
    return [*command, "-o", "APT::Ignore-Hold=true", "--allow-change-held-packages", "--", *packages]


def fetch(run: Run, packages: list[str], transaction: Transaction) -> None:
    """Fetch what the transaction installs.

    :raises GpufleetError: GF-APT-FETCH
    """
    said = transaction.said
    if transaction.known:
        code, out, err = run(_install("--download-only", packages))
        if code == 0:
            return
        said = err.strip() or out.strip()
    raise GpufleetError(
        "GF-APT-FETCH",
        f"the packages cannot be fetched, nothing was changed for them: {said}",
        "a source in /etc/apt does not answer or lacks them, or the disk is full",
        f"apt-get install --download-only {' '.join(packages)} on the node shows it; then run the playbook again",
    )


def update(run: Run, tries: int = 3, sleep: Callable[[float], None] = time.sleep) -> None:
    """Fetch the lists of all the node's sources.

    :raises GpufleetError: GF-APT-UPDATE
    """
    # A source that does not answer is an error only if asked for: apt would go on with the lists of before.
    command = ["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any"]
    for left in reversed(range(tries)):
        code, out, err = run(command)
        if code == 0:
            return
        if left:
            sleep(10)
    raise GpufleetError(
        "GF-APT-UPDATE",
        f"the package lists cannot be fetched: {err.strip() or out.strip()}",
        "a source in /etc/apt does not answer, or its signature does not fit",
        "apt-get update on the node shows it; mend or disable that source, then run the playbook again",
    )


def available(run: Run, packages: list[str]) -> set[str]:
    """Those of the packages that apt could install, or has."""
    if not packages:
        return set()
    _code, out, _err = run(["apt-cache", "policy", *packages])
    rows = re.findall(r"^(\S+):\n  Installed: (\S+)\n  Candidate: (\S+)", out, re.MULTILINE)
    return {name for name, _installed, candidate in rows if candidate != "(none)"}


def headers(
    run: Run, packages: dict[str, str], running: str, find: Callable[[Run, list[str]], set[str]] = available
) -> tuple[list[str], list[str]]:
    """Of the packages with headers those that can be had, and the kernels whose headers cannot.

    :param packages: the package of each kernel.
    :param find: finds out which packages can be had.
    :raises GpufleetError: GF-HEADERS-MISSING where the running kernel's cannot.
    """
    there = find(run, sorted(packages.values()))
    without = [kernel for kernel, package in packages.items() if package not in there]
    if running in without:
        raise GpufleetError(
            "GF-HEADERS-MISSING",
            f"the archive has no headers ({packages[running]}) of the kernel that runs, so no module can be built for it",
            "the kernel is older than what the archive keeps, or comes from another source",
            "upgrade and reboot the node, or install the headers from where the kernel came from",
        )
    return [package for package in packages.values() if package in there], without


def repair(run: Run) -> str:
    """Finish what a dpkg that was cut off left; what dpkg said of it.

    :raises GpufleetError: GF-DPKG-UNFINISHED
    """
    code, out, err = run(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"])
    if code != 0:
        raise GpufleetError(
            "GF-DPKG-UNFINISHED",
            f"dpkg was cut off on this node and cannot finish its work: {err.strip() or out.strip()}",
            "a package's own script fails, or a package was unpacked without what it depends on",
            "dpkg --configure -a on the node shows it; mend or remove that package, then run the playbook again",
        )
    return out


def plain(name: str) -> str:
    """The name without its architecture."""
    return name.partition(":")[0]


def check(steps: list[Step], kernel: str, held: list[str], driver: bool, manager: str = "apt") -> None:
    """Refuse what a step of ours has no business to do.

    :param kernel: the running kernel's release.
    :param held: names of packages on hold.
    :param driver: whether the step is the driver's own.
    :param manager: ``apt`` or ``dnf``.
    :raises GpufleetError: GF-TRANSACTION-KERNEL, GF-TRANSACTION-HELD, GF-TRANSACTION-DRIVER, GF-TRANSACTION-REMOVES
    """
    upgrade, release = _COMMANDS[manager]
    touched = [step for step in steps if step.before is not None]
    _refuse(
        "GF-TRANSACTION-KERNEL",
        f"{manager} would replace or remove the kernel that runs",
        [step for step in touched if _runs(step, kernel, manager)],
        "an upgrade of the kernel is due on this node, or a package conflicts with it",
        f"upgrade and reboot the node ({upgrade}), then run the playbook again",
    )
    _refuse(
        "GF-TRANSACTION-HELD",
        f"{manager} would change packages that are on hold",
        [step for step in touched if plain(step.name) in held],
        "somebody put them on hold, and what is wanted needs another version",
        f"{release} what may change, or wish for a version that fits what is held",
    )
    if not driver:
        _refuse(
            "GF-TRANSACTION-DRIVER",
            f"{manager} would change the NVIDIA driver in a step that is not the driver's",
            [step for step in steps if _is(step, _MODULES) or (step in touched and _is(step, _DRIVER))],
            "a package that was asked for depends on a driver (NVIDIA's package cuda does), or on another version of it",
            "ask for packages without a driver (cuda-toolkit-X-Y), or set nvidia_driver_version to what they need",
        )
    if manager == "dnf":
        # The driver's step lets dnf remove the former driver, and with it whatever needs that one.
        _refuse(
            "GF-TRANSACTION-REMOVES",
            "dnf would remove packages that are not the driver's",
            [step for step in steps if step.after is None and not _is(step, _DRIVER)],
            "they need the driver that is to be replaced (NVIDIA's package cuda does), or exclude what is wanted",
            "dnf remove them yourself if nobody needs them, then run the playbook again",
        )


def _runs(step: Step, kernel: str, manager: str) -> bool:
    """Whether the step touches the running kernel: dpkg has its release in the names, rpm in the versions."""
    if manager == "apt":
        return plain(step.name) in {name.format(kernel) for name in _KERNEL}
    release = (step.before or "").rpartition(":")[2]
    return step.name in _KERNEL_OF_RPM and kernel.startswith(release + ".")


def _is(step: Step, patterns: tuple[str, ...]) -> bool:
    name = plain(step.name)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and not any(
        fnmatch.fnmatchcase(name, pattern) for pattern in _NO_DRIVER
    )


def _refuse(code: str, message: str, steps: list[Step], cause: str, mend: str) -> None:
    if steps:
        raise GpufleetError(code, f"{message}: {'; '.join(map(str, steps))}", cause, mend)
