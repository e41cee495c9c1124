# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a driver away that is from another source than the wanted one, and bring it back where that one fails.

What goes is written down first: a run that is cut off in between leaves that behind for the next one. Private to the collection.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_remains,
    driver_runfile,
    driver_state,
    former_packages,
    receipts,
    removal_baseline,
    removal_packages,
    runfile,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions, present

MEMORY = "former-driver.json"
ROLE = "nvidia_driver"
# What a driver consists of, as the distributions and NVIDIA call it ...
NAMES = (
    "cuda-drivers*", "firmware-nvidia-gsp*", "kmod-nvidia*", "libcuda1*", "libegl-nvidia*", "libgl*-nvidia*", "libgles-nvidia*",
    "libnvcuvid*", "libnvidia-*", "libnvoptix*", "linux-modules-nvidia-*", "linux-objects-nvidia-*", "nvidia-*",
    "xorg-x11-nvidia*", "xserver-xorg-video-nvidia*",
)  # fmt: skip
# ... and what is called alike and is none.
OTHERS = (
    "libnvidia-container*",
    "libnvidia-ml-dev*",
    "nvidia-container*",
    "nvidia-cuda-*",
    "nvidia-cudnn*",
    "nvidia-docker*",
)
PINS = ("nvidia-driver-pinning*", "nvidia-driver-assistant*")


class Former(NamedTuple):
    """The driver that goes: packages with their versions, those of them that nobody asked for by name, and an installer's;
    our entry of NVIDIA's repository, where nothing comes from there any more: apt would prefer its versions; and the stream of
    dnf's module that the packages are of.
    """

    packages: dict[str, str]
    automatic: list[str]
    runfile: str | None
    entry: str | None = None
    stream: str | None = None


def is_driver(name: str) -> bool:
    """Whether a package is part of a driver, by its name."""
    return any(fnmatch.fnmatchcase(name, each) for each in NAMES) and not any(
        fnmatch.fnmatchcase(name, each) for each in OTHERS
    )


def find(state_dir: str, spare: frozenset[str] = frozenset(), root: str = "/") -> Former:
    """The driver that the node has: packages of one driver's version or brought by our role, and what an installer left."""
    installed = {name: version for name, version in installed_versions(root=root).items() if name not in spare}
    receipt = receipts.read_json(receipts.receipt_path(_inside(root, state_dir), ROLE)) or {}
    ours = set(receipt.get("added_packages", []))
    modules = {upstream(version) for name, version in installed.items() if _brings_module(name)} - {None}
    packages = {
        name: version
        for name, version in installed.items()
        if is_driver(name) and (upstream(version) in modules or name in ours or fnmatch.fnmatchcase(name, PINS[0]))
    }
    remains = driver_remains.facts(root, [], None, None)
    return Former(packages, [], (remains["version"] or "unknown") if remains else None)


def _brings_module(name: str) -> bool:
    return is_driver(name) and any(
        word in name for word in ("dkms", "kernel", "kmod", "linux-modules", "linux-objects")
    )


def _inside(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _memory(state_dir: str, root: str) -> str:
    return os.path.join(_inside(root, state_dir), MEMORY)


class Coming(NamedTuple):
    """How the wanted driver comes.

    ``packages``: as packages, so that what others need of the former ones can stay until it is replaced.
    ``repository``: something of the node still comes from NVIDIA's repository; else its entry goes with the driver.
    ``spare``: packages of the wanted driver that are there already, such as the one that keeps the branch.
    """

    packages: bool
    repository: bool
    spare: frozenset[str] = frozenset()


def take_away(run: Run, state_dir: str, coming: Coming, root: str = "/", dry: bool = False) -> list[str]:
    """Take the node's driver away; what went, in words.

    :raises GpufleetError: GF-SWITCH-NEEDED, GF-REMOVE-WOULD-TAKE, GF-RUNFILE-STUCK
    """
    former, manager = find(state_dir, coming.spare, root), removal_packages.manager_of(run, root)
    family = former_packages.family_of(run, root)
    needed = manager.needed(former.packages)
    if needed and not coming.packages:
        raise _needed(needed)
    going = sorted(set(former.packages) - set(needed))
    if going:
        removal_packages.check_taken(manager, going)
    words = [f"package {name} {former.packages[name]}" for name in going]
    words += [f"the driver {former.runfile} of an installer"] if former.runfile else []
    entry = None if coming.repository else _entry(family, root)
    words += ["the entry of NVIDIA's repository"] if entry is not None else []
    if dry or not words:
        return words
    family.keep(former.packages)
    # Where packages come, the stream is theirs already.
    stream = None if coming.packages else family.stream()
    automatic = family.automatic(set(former.packages))
    _remember(state_dir, former._replace(entry=entry, automatic=automatic, stream=stream), root)
    if going:
        manager.purge(going)
    if not coming.packages:
        family.choose(None)  # before the entry goes: dnf resets no module that it does not know
    if entry is not None:
        os.unlink(_inside(root, family.entry))
    if former.runfile:
        driver_runfile.uninstall(run, root)
    return words


def _needed(needed: dict[str, str]) -> GpufleetError:
    return GpufleetError(
        "GF-SWITCH-NEEDED",
        "the former driver's packages cannot go: "
        + ", ".join(f"{name} ({why})" for name, why in sorted(needed.items())),
        "a toolkit of the distribution's packages, or NVIDIA's package cuda, depends on the driver's packages; "
        "NVIDIA's installer brings none",
        "take what needs them away first (remove.yml -e gpufleet_remove=cuda_toolkit), or leave the driver's source as it is",
    )


def _remember(state_dir: str, former: Former, root: str) -> None:
    path = _memory(state_dir, root)
    known = receipts.read_json(path)
    if known is not None:  # of a run that was cut off: what it took away is gone from the node by now
        former = Former(
            {**former.packages, **known["packages"]},
            sorted({*former.automatic, *known["automatic"]}),
            known["runfile"] or former.runfile,
            known["entry"] or former.entry,
            known["stream"] or former.stream,
        )
    receipts.write_json(path, former._asdict())


def forget(run: Run, state_dir: str, root: str = "/") -> bool:
    """Drop what was written down: the wanted driver is proved. Whether there was something."""
    path = _memory(state_dir, root)
    memory = receipts.read_json(path)
    if memory is None:
        return False
    if memory["entry"] is not None and _entry(former_packages.family_of(run, root), root) is None:
        keys = vendor_repository.imported_keys(root)
        vendor_repository.restore(root)  # others' entries, which had made way for ours
        removal_packages.manager_of(run, root).distrust(keys)
    os.unlink(path)
    return True


def _entry(family: former_packages.Family, root: str) -> str | None:
    found = vendor_repository.content(root, family.entry)
    return None if found is None else found.decode("utf-8", "replace")


def bring_back(run: Run, state_dir: str, root: str = "/") -> str | None:
    """Take away what the failed driver brought, and bring the former one back; which one, in words.

    None where none had to go: then only the files go that the failed work wrote.

    :raises GpufleetError: GF-SWITCH-LOST where it cannot be had any more.
    """
    memory = receipts.read_json(_memory(state_dir, root))
    if memory is None:
        _take_files_away(state_dir, root)
        return None
    family = former_packages.family_of(run, root)
    _take_new_away(run, state_dir, memory, root)
    if memory["entry"] is not None:
        vendor_repository.write(root, family.entry, memory["entry"].encode("utf-8"))
    try:
        family.choose(memory["stream"])
        if memory["packages"]:
            family.install(memory["packages"], memory["automatic"])
        if memory["runfile"]:
            _run_installer(run, state_dir, memory["runfile"], root)
    except GpufleetError as error:
        raise _lost(_words(memory), str(error)) from error
    os.unlink(_memory(state_dir, root))
    return _words(memory)


def _words(memory: dict[str, Any]) -> str:
    versions = [upstream(version) for name, version in memory["packages"].items() if _brings_module(name)]
    return f"driver {next((each for each in versions if each), None) or memory['runfile']}"


class Holds(NamedTuple):
    """The packages that the former driver had on hold, whether the kernel's were held too, and what dnf kept to its branch."""

    packages: list[str]
    kernel: bool
    branch: str
    of_branch: list[str]


def holds(state_dir: str, root: str = "/") -> Holds:
    """How the former driver was held, as its receipt has it."""
    receipt = receipts.read_json(receipts.receipt_path(_inside(root, state_dir), ROLE)) or {}
    stage = receipt.get("stage") or {}
    branch = stage.get("versionlock") or ""
    names = {name.partition("=")[0] for name in stage.get("packages", [])} if branch else set()
    of_branch = sorted(name for name in names if is_driver(name))
    return Holds(sorted(receipt.get("holds", {})), bool(stage.get("hold_kernel")), branch, of_branch)


def _take_new_away(run: Run, state_dir: str, memory: dict[str, Any], root: str) -> None:
    baseline, manager = _baseline(state_dir, root), removal_packages.manager_of(run, root)
    since = present(root) - {*baseline.get("installed", present(root)), *memory["packages"]}
    came = {name for name in since if is_driver(name)}
    # What came with it for its sake, as far as nobody else has a use for it by now.
    others = since & set(removal_baseline.added_packages(baseline, baseline.get("asked", []), root)) - came
    if others:
        others -= set(manager.needed(sorted(came | others)))
    if came | others:
        manager.purge(sorted(came | others))
    if driver_remains.facts(root, [], None, None) is not None:
        driver_runfile.uninstall(run, root)
    _take_files_away(state_dir, root)


def _baseline(state_dir: str, root: str) -> dict[str, Any]:
    return receipts.read_json(removal_baseline.baseline_path(_inside(root, state_dir), ROLE)) or {}


def _take_files_away(state_dir: str, root: str) -> None:
    """The files that the failed work wrote: a later receipt would not know them. NVIDIA's repository has a note of its own."""
    baseline = _baseline(state_dir, root)
    spared = {
        *vendor_repository.KEY_FILES.values(),
        *vendor_repository.SOURCE_FILES.values(),
        *_recorded(state_dir, root),
    }
    wrote = set(baseline.get("wanted", {}).get("files", [])) - set(baseline.get("before", {}).get("files", {}))
    for path in sorted(wrote - spared):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_inside(root, path))
    for directory in sorted(baseline.get("directories", []), reverse=True):
        with contextlib.suppress(OSError):  # gone, or not empty
            os.rmdir(_inside(root, directory))


def _recorded(state_dir: str, root: str) -> set[str]:
    """Every file that some role's receipt names."""
    paths = glob.glob(os.path.join(glob.escape(_inside(root, state_dir)), "receipts", "*.json"))
    known = [receipts.read_json(path) or {} for path in paths]
    return {
        name for receipt in known for part in (receipt, receipt.get("earlier", {})) for name in part.get("files", {})
    }


def _run_installer(run: Run, state_dir: str, version: str, root: str) -> None:
    receipt = receipts.read_json(receipts.receipt_path(_inside(root, state_dir), ROLE)) or {}
    known = (receipt.get("stage") or {}).get("installer") or {}
    path = _inside(root, runfile.cached_path(ROLE, known["sha256"])) if known.get("version") == version else ""
    if not os.path.isfile(path):
        raise GpufleetError(
            "GF-RUNFILE-NOWHERE",
            f"the installer of driver {version} is not on the node",
            "somebody else ran it, or the cache was cleaned",
            f"NVIDIA-Linux-…-{version}.run",
        )
    header = runfile.check(path, ROLE, version, known["architecture"], path)
    options = [*known["options"], *runfile.known(header, known["optional"])]
    kernel = driver_runfile.kernel_to_build_for(driver_state.kernels(root), os.uname().release)
    driver_runfile.install(run, path, options, kernel, root)


def _lost(what: str, why: str) -> GpufleetError:
    return GpufleetError(
        "GF-SWITCH-LOST",
        f"{what} had to go for the wanted one, which failed, and cannot be brought back: {why}",
        "its packages are not in the package manager's cache and in no source of the node, or its installer is not kept",
        "install it yourself, or run the playbook with a driver that can be had: nvidia_driver_version, nvidia_driver_source",
    )
