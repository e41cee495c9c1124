# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run NVIDIA's installer, and take its driver away again, whole or half. Private to the collection."""

from __future__ import annotations

import glob
import os
import re
import shutil
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_module,
    driver_remains,
    driver_state,
    package_files,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

INSTALLER = "/usr/bin/nvidia-installer"
UNINSTALLER = "/usr/bin/nvidia-uninstall"
LOG = "var/log/nvidia-installer.log"
LOG_LINES = 15
STATE = "var/lib/nvidia"
# Where the installer puts modules that it builds without DKMS.
MODULES = "lib/modules/*/kernel/drivers/video/nvidia*.ko*"
BUILT = "lib/modules/*/updates/dkms/nvidia*.ko*"


def whole(run: Run, version: str, flavour: str, root: str = "/") -> bool:
    """Whether the driver of an installer is there as it should be: its list, its uninstaller, its libraries, its source."""
    listed = driver_remains.read_list(root)
    if listed is None or listed.version != version or not os.path.lexists(_inside(root, UNINSTALLER)):
        return False
    if any(not os.path.lexists(_inside(root, path)) for path in [*listed.files, *listed.links]):
        return False
    libraries = driver_state.library_versions(root)
    if set(libraries) != set(driver_state.LIBRARIES) or any(found != [version] for found in libraries.values()):
        return False
    if version not in set(driver_remains.dkms_versions(root)) - set(driver_remains.orphans(root)):
        return False
    return _flavours(run, root) <= {flavour}


def _flavours(run: Run, root: str) -> set[str | None]:
    """The flavours of the modules that the node's kernels have."""
    paths = [kernel["module"] for kernel in driver_state.kernels(root) if kernel["module"]]
    answers = [run(["modinfo", "-F", "license", path]) for path in paths]
    return {driver_module.flavour_of_license(out.strip()) for code, out, _err in answers if code == 0} - {None}


def kernel_to_build_for(state: list[dict[str, Any]], running: str) -> str:
    """The kernel that the installer builds for: the running one, else the newest with headers; DKMS does the others.

    :raises GpufleetError: GF-DKMS-FAILED where no kernel has headers.
    """
    ready = [kernel["release"] for kernel in state if kernel["headers"]]
    if not ready:
        driver_state.check([], {})
    return running if running in ready else ready[-1]


def install(run: Run, path: str, options: list[str], kernel: str, root: str = "/") -> None:
    """Run the installer; nothing of it stays where it fails.

    :raises GpufleetError: GF-RUNFILE-FAILED
    """
    log = os.path.join(root, LOG)
    if os.path.exists(log):
        os.unlink(log)  # of an earlier one: what follows must not be taken from it
    code, out, err = run(["sh", path, *options, f"--kernel-name={kernel}"])
    if code == 0:
        return
    said = last_lines(root) or (err or out).strip()
    build = driver_state.make_log_tail("nvidia", "*", root)
    uninstall(run, root)
    raise GpufleetError(
        "GF-RUNFILE-FAILED",
        f"NVIDIA's installer ended with status {code}:\n{said}" + (f"\nDKMS:\n{build}" if build else ""),
        "the module does not compile for this kernel, or something that the installer's last lines name is in its way",
        f"read /{LOG} on the node; another version of the driver: nvidia_driver_runfile",
    )


def last_lines(root: str = "/") -> str:
    """The end of the installer's log."""
    try:
        with open(os.path.join(root, LOG), encoding="utf-8", errors="replace") as stream:
            lines = [line.rstrip() for line in stream if line.strip()]
    except OSError:
        return ""
    return "\n".join(line[: driver_state.LOG_WIDTH] for line in lines[-LOG_LINES:])


def uninstall(run: Run, root: str = "/") -> list[str]:
    """Take away what installers left, by their own uninstaller as far as there is one; what went, in words.

    :raises GpufleetError: GF-RUNFILE-STUCK where something of it is left.
    """
    listed, gone = driver_remains.read_list(root), []
    versions = _versions(run, listed, root)
    said = ""
    if os.path.exists(_inside(root, UNINSTALLER)):
        code, out, err = run([UNINSTALLER, "--silent"])
        said = "" if code == 0 else (err or out).strip() or last_lines(root)
        gone.append("nvidia-uninstall ran")
    # What it did not know, or could not, where it was missing or failed.
    gone += _sweep(run, listed, versions, root)
    run(["ldconfig"])
    left = driver_remains.facts(root, [], None, None)
    if left is not None:
        raise GpufleetError(
            "GF-RUNFILE-STUCK",
            f"the driver {left['version'] or ''} of NVIDIA's installer cannot be removed: "
            + (said or "; ".join(left["problems"]) or "its files are still there"),
            "a file system that is read-only, or an uninstaller that belongs to another package",
            f"nvidia-uninstall on the node; rm -r /{STATE} once its files are gone; then run the playbook again",
        )
    return gone


def _versions(run: Run, listed: driver_remains.Installed | None, root: str) -> set[str]:
    """Every driver of which there may be something that no package has: a broken installation's parts may be of several."""
    found = {listed.version} if listed is not None and listed.version else set()
    sources = {f"/usr/src/nvidia-{name}/dkms.conf": name for name in driver_remains.dkms_versions(root)}
    libraries = {
        path: path.partition(".so.")[2] for path in _libraries(["libcuda", "libnvidia-ml"], "[1-9]*.[0-9]*", root)
    }
    candidates = {**sources, **libraries}
    ours = set(candidates) - package_files.owned(run, candidates, root)
    return found | {candidates[path] for path in ours}


def _libraries(names: list[str], version: str, root: str) -> list[str]:
    """The driver's libraries of a version where the loader looks."""
    patterns = [f"{folder}/{name}.so.{version}" for folder in driver_state.LIBRARY_FOLDERS for name in names]
    found = {
        path for pattern in patterns for path in glob.glob(os.path.join(root, pattern)) if not os.path.islink(path)
    }
    return sorted("/" + os.path.relpath(path, root) for path in found)


def _inside(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def _sweep(run: Run, listed: driver_remains.Installed | None, versions: set[str], root: str) -> list[str]:
    paths = list(listed.files) if listed else []
    links = listed.links if listed else {}
    paths += [path for path, to in links.items() if os.path.islink(_inside(root, path)) and _target(root, path) == to]
    paths += [INSTALLER, UNINSTALLER]
    there = [path for path in paths if os.path.lexists(_inside(root, path))]
    gone = []
    # A file that lies over a package's is the package's to bring back, or to take.
    for path in sorted(set(there) - package_files.owned(run, there, root)):
        os.unlink(_inside(root, path))
        gone.append(path)
    gone += _sweep_dkms(run, versions, root)
    gone += _sweep_libraries(run, versions, root)
    gone += _sweep_modules(run, versions, root)
    state = os.path.join(root, STATE)
    if os.path.isdir(state):
        shutil.rmtree(state)
        gone.append("/" + STATE)
    return gone


def _target(root: str, path: str) -> str:
    return os.readlink(_inside(root, path))


def _sweep_dkms(run: Run, versions: set[str], root: str) -> list[str]:
    """What DKMS has of these versions, with the modules that it built; and their source."""
    gone = []
    for version in sorted(versions):
        tree, source = os.path.join(root, driver_remains.DKMS, "nvidia", version), f"/usr/src/nvidia-{version}"
        config = source + "/dkms.conf"
        if os.path.exists(_inside(root, config)) and config in package_files.owned(run, [config], root):
            continue  # a package's driver of the same version: its own removal takes that away
        if os.path.isdir(tree):
            run(["dkms", "remove", f"nvidia/{version}", "--all"])
            gone.append(f"nvidia/{version} of DKMS")
        for link in glob.glob(os.path.join(root, driver_remains.DKMS, "nvidia", "kernel-*")):
            if os.path.islink(link) and os.readlink(link).split("/")[0] == version:
                os.unlink(link)
        shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(_inside(root, source), ignore_errors=True)
    base = os.path.join(root, driver_remains.DKMS, "nvidia")
    if os.path.isdir(base) and not os.listdir(base):
        os.rmdir(base)
    return gone


def _sweep_libraries(run: Run, versions: set[str], root: str) -> list[str]:
    """Libraries of these versions that no package has, and the links that led to them."""
    paths = [path for version in versions for path in _libraries(["lib*"], version, root)]
    gone = sorted(set(paths) - package_files.owned(run, paths, root))
    for path in gone:
        os.unlink(_inside(root, path))
    for folder in {os.path.dirname(path) for path in gone}:
        for name in os.listdir(_inside(root, folder)):
            link = os.path.join(_inside(root, folder), name)
            if (
                os.path.islink(link)
                and not os.path.exists(link)
                and _stem(name) in map(_stem, map(os.path.basename, gone))
            ):
                os.unlink(link)
    return gone


def _stem(name: str) -> str:
    return name.partition(".so")[0]


def _sweep_modules(run: Run, versions: set[str], root: str) -> list[str]:
    """Modules of these versions that nobody else has: DKMS without its source does not find them any more."""
    found = [path for pattern in (MODULES, BUILT) for path in glob.glob(os.path.join(root, pattern))]
    paths = ["/" + os.path.relpath(path, root) for path in found]
    gone = []
    for path in sorted(set(paths) - package_files.owned(run, paths, root)):
        code, out, _err = run(["modinfo", "-F", "version", _inside(root, path)])
        if code == 0 and out.strip() in versions:
            os.unlink(_inside(root, path))
            gone.append(path)
    for release in sorted({path.split("/")[3] for path in gone}):
        run(["depmod", release])
    return gone


def written(root: str = "/") -> tuple[list[str], list[str]]:
    """Files and links by which the receipt knows the driver: small ones, and links with the version in them."""
    listed = driver_remains.read_list(root)
    if listed is None:
        return [], []
    small = [f"/{driver_remains.LIST}", f"/usr/src/nvidia-{listed.version}/dkms.conf"]
    files = [path for path in [INSTALLER, *small] if os.path.isfile(_inside(root, path))]
    names = re.compile(r"/(libcuda|libnvidia-ml)\.so\.1$")
    links = [path for path in listed.links if names.search(path) or path == UNINSTALLER]
    return files, sorted(path for path in links if os.path.islink(_inside(root, path)))
