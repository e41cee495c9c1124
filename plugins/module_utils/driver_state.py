# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the installed NVIDIA driver is whole: modules, libraries, what is loaded. Private to the collection."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable, Collection, List, NamedTuple, Tuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.kernel import order

# Runs a command, gives (status, stdout, stderr). An alias is evaluated when it is read, so typing's names (3.8).
Run = Callable[[List[str]], Tuple[int, str, str]]

MODULE_FILE = re.compile(r"^nvidia(-current|-current-open|-open|-tesla[\w.-]*)?\.ko(\.(xz|zst|gz))?$")
LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia/*", "usr/lib64", "usr/lib")
LIBRARIES = ("libnvidia-ml.so", "libcuda.so")
COMPETITORS = ("nouveau", "nova_core")
DKMS_LINE = re.compile(
    r"^(?P<name>nvidia[\w.-]*)[/,] ?(?P<version>[\w.]+)(?:, (?P<kernel>[^,]+), (?P<arch>[^:]+))?: (?P<state>\w+)"
)
LOG_TAIL = 15
# A longer line is the command line of a compiler.
LOG_WIDTH = 240
# Not the -Werror of a compiler's command line.
BUILD_ERROR = re.compile(r"(?<![-\w])(?:error:|Error \d|\*\*\* )")


def library_versions(root: str = "/") -> dict[str, list[str]]:
    """Versions in the file names of the driver's libraries, ``{"libcuda.so": ["535.309.01"]}``."""
    found: dict[str, set[str]] = {}
    for folder in LIBRARY_FOLDERS:
        for library in LIBRARIES:
            for path in glob.glob(os.path.join(root, folder, library + ".*")):
                version = os.path.basename(path)[len(library) + 1 :]
                if re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
                    found.setdefault(library, set()).add(version)
    return {name: sorted(versions) for name, versions in found.items()}


def module_file(kernel: str, root: str = "/") -> str | None:
    """The nvidia module of a kernel; the one that DKMS put under updates/ wins, as it does for modprobe."""
    base = os.path.join(root, "lib/modules", kernel)
    for folder in ("updates", "extra", "weak-updates", "kernel"):
        for directory, subdirectories, files in os.walk(os.path.join(base, folder)):
            subdirectories.sort()
            for name in sorted(files):
                if MODULE_FILE.match(name):
                    return os.path.join(directory, name)
    return None


def kernels(root: str = "/") -> list[dict[str, Any]]:
    """Every kernel of the node: release, whether its headers and its image are there, its nvidia module's file."""
    found = []
    try:
        releases = sorted(os.listdir(os.path.join(root, "lib/modules")))
    except FileNotFoundError:
        releases = []
    for release in releases:
        found.append(
            {
                "release": release,
                "headers": os.path.exists(os.path.join(root, "lib/modules", release, "build/Makefile")),
                "image": any(
                    os.path.exists(os.path.join(root, path))
                    for path in (f"boot/vmlinuz-{release}", f"lib/modules/{release}/vmlinuz")
                ),
                "module": module_file(release, root),
                "version": None,
                "signer": None,
                "dkms": None,
            }
        )
    return found


def loaded_modules(root: str = "/") -> dict[str, Any]:
    """What the running kernel has loaded: the version of nvidia (None: not loaded) and a competing driver."""
    version = None
    try:
        with open(os.path.join(root, "sys/module/nvidia/version"), encoding="ascii", errors="replace") as stream:
            version = stream.read().strip()
    except OSError:
        pass  # not loaded, which is an answer
    present = [name for name in COMPETITORS if os.path.isdir(os.path.join(root, "sys/module", name))]
    return {"version": version, "competitor": present[0] if present else None}


def parse_dkms_status(text: str) -> list[dict[str, str]]:
    """The nvidia lines of ``dkms status``; kernel is empty for a source that was added and never built."""
    rows = []
    for line in text.splitlines():
        match = DKMS_LINE.match(line.strip())
        if match:
            rows.append({key: (match[key] or "") for key in ("name", "version", "kernel", "state")})
    return rows


def make_log_tail(name: str, version: str, root: str = "/") -> str:
    """The last lines of DKMS's build log, where a build failed; empty otherwise."""
    pattern = os.path.join(root, "var/lib/dkms", name, version)
    for path in glob.glob(os.path.join(pattern, "build/make.log")) + sorted(
        glob.glob(os.path.join(pattern, "*/*/log/make.log"))
    ):
        with open(path, encoding="utf-8", errors="replace") as stream:
            text = stream.read()
        if BUILD_ERROR.search(text):
            return "\n".join([line for line in text.splitlines() if len(line) <= LOG_WIDTH][-LOG_TAIL:])
    return ""


class Built(NamedTuple):
    """The kernels that a module was built for, and the errors of those for which it could not be."""

    kernels: list[str]
    failed: dict[str, GpufleetError]


def essential(state: list[dict[str, Any]], running: str) -> set[str]:
    """The kernels that may not be without a module: the one that runs, and the newest, which the next boot takes."""
    bootable = [kernel for kernel in state if kernel["image"]] or [kernel for kernel in state if kernel["headers"]]
    newest = max((kernel["release"] for kernel in bootable), key=order, default=running)
    return {running, newest}


def build(state: list[dict[str, Any]], run: Run, running: str, root: str = "/") -> Built:
    """Build the module with DKMS for each kernel that has headers and lacks it, or has it past DKMS's knowledge.

    With ``--force``, since DKMS takes a module that somebody removed for installed. A kernel that fails keeps none of the others
    from theirs.

    :raises GpufleetError: GF-DKMS-FAILED when the build for a kernel fails that may not be without.
    """
    unknown = unregistered(state)
    lacking = [row for row in state if row["headers"] and (row["module"] is None or row["release"] in unknown)]
    if not lacking:
        return Built([], {})
    code, out, err = run(["dkms", "status"])
    sources = (parse_dkms_status(out) if code == 0 else []) or register(run, root)
    if not sources:
        raise dkms_error(
            lacking[0]["release"], "nvidia", "", "DKMS has no source of the driver: " + (err or out).strip()
        )
    name, version = sources[-1]["name"], sources[-1]["version"]
    built = Built([], {})
    for kernel in lacking:
        code, out, err = run(["dkms", "install", "--force", f"{name}/{version}", "-k", kernel["release"]])
        kernel["module"] = module_file(kernel["release"], root)
        if code == 0 and kernel["module"] is not None:
            built.kernels.append(kernel["release"])
            kernel["dkms"] = "installed"
            continue
        said = make_log_tail(name, version, root) or (err or out).strip()
        built.failed[kernel["release"]] = dkms_error(kernel["release"], name, version, said)
    fatal = sorted(essential(state, running) & set(built.failed))
    if fatal:
        raise built.failed[fatal[-1]]
    return built


def register(run: Run, root: str = "/") -> list[dict[str, str]]:
    """Tell DKMS of the driver's source that lies there and that it does not know.

    With rpm the other flavour of one version comes before the former one goes, whose script takes that version out of DKMS.
    """
    for settings in glob.glob(os.path.join(root, "usr/src/nvidia*-*/dkms.conf")):
        name, _dash, version = os.path.basename(os.path.dirname(settings)).rpartition("-")
        if run(["dkms", "add", f"{name}/{version}"])[0] == 0:
            return [{"name": name, "version": version}]
    return []


def without_module(kernel: str, why: str) -> GpufleetError:
    """GF-DRIVER-KERNEL for a kernel that the driver cannot be had for; the others have it."""
    return GpufleetError(
        "GF-DRIVER-KERNEL",
        f"kernel {kernel} has no NVIDIA module; after a boot into it no GPU is served: {why}",
        "the driver does not compile for this kernel, or the archive no longer has its headers",
        f"remove the kernel if nobody boots it (apt-get purge 'linux-*-{kernel}', dnf remove 'kernel*-{kernel}'), or take another driver",
    )


def dkms_error(kernel: str, name: str, version: str, detail: str) -> GpufleetError:
    """GF-DKMS-FAILED for one kernel."""
    command = (
        f"dkms install --force {name}/{version} -k {kernel}"
        if version
        else "apt-get install --reinstall nvidia-kernel-dkms, or dnf reinstall 'kmod-nvidia*'"
    )
    full = "No space left on device" in detail
    return GpufleetError(
        "GF-DKMS-FAILED",
        f"the NVIDIA kernel module was not built for kernel {kernel}" + (f":\n{detail}" if detail else ""),
        "the file system of /var/lib/dkms or /lib/modules is full"
        if full
        else "the driver does not support this kernel or its compiler, or the headers are not complete",
        f"read /var/lib/dkms/{name}/{version or '*'}/build/make.log, then: {command}",
    )


def measure_dkms(state: list[dict[str, Any]], run: Run) -> None:
    """Ask DKMS how it stands with each kernel: installed, built, added; None where it knows nothing."""
    code, out, _err = run(["dkms", "status"])
    rows = parse_dkms_status(out) if code == 0 else []
    for kernel in state:
        states = [row["state"] for row in rows if row["kernel"] == kernel["release"]]
        kernel["dkms"] = "installed" if "installed" in states else states[0] if states else None


def unregistered(state: list[dict[str, Any]]) -> list[str]:
    """Kernels whose module DKMS put there and does not have as installed: it would not renew or remove it."""
    return [
        kernel["release"]
        for kernel in state
        if "/updates/dkms/" in (kernel["module"] or "") and kernel["dkms"] not in ("installed", None)
    ]


def measure_versions(state: list[dict[str, Any]], run: Run) -> None:
    """Ask modinfo for the version of each module file, and for who signed it."""
    for kernel in state:
        if kernel["module"] is not None:
            code, out, _err = run(["modinfo", "-F", "version", kernel["module"]])
            kernel["version"] = out.strip() or None if code == 0 else None
            code, out, _err = run(["modinfo", "-F", "signer", kernel["module"]])
            kernel["signer"] = out.strip() or None if code == 0 else None


def check(
    state: list[dict[str, Any]],
    libraries: dict[str, list[str]],
    root: str = "/",
    without: Collection[str] = (),
) -> str:
    """The one version of the driver.

    :param without: kernels that are known to have no module.
    :raises GpufleetError: GF-DKMS-FAILED where no kernel has a module, GF-DRIVER-MISMATCH where the parts differ.
    """
    for kernel in state:
        if kernel["headers"] and kernel["module"] is None and kernel["release"] not in without:
            raise dkms_error(kernel["release"], "nvidia-current", "", make_log_tail("nvidia*", "*", root))
    built = [kernel for kernel in state if kernel["module"] is not None]
    if not built:
        raise GpufleetError(
            "GF-DKMS-FAILED",
            "no kernel of this node has an NVIDIA module",
            "no kernel headers are installed, so DKMS had nothing to build for",
            "install the headers of the node's kernel (linux-headers-amd64, kernel-devel-$(uname -r)), then run this play again",
        )
    versions = {f"module of {kernel['release']}": [kernel["version"] or "unknown"] for kernel in built}
    versions.update(libraries)
    distinct = {version for group in versions.values() for version in group}
    lacking = [name for name in LIBRARIES if name not in libraries]
    if len(distinct) != 1 or lacking or "unknown" in distinct:
        parts = ", ".join(f"{name} {'/'.join(group)}" for name, group in sorted(versions.items()))
        raise GpufleetError(
            "GF-DRIVER-MISMATCH",
            f"the parts of the NVIDIA driver differ: {parts}"
            + (f"; not there: {', '.join(lacking)}" if lacking else ""),
            "one part was upgraded, or installed from another source, without the others",
            "reinstall the driver's packages (nvidia-kernel-dkms libcuda1 libnvidia-ml1, with dnf '*nvidia*'), or remove the foreign copy",
        )
    return distinct.pop()


def loader_versions(run: Run) -> dict[str, str | None]:
    """The version that programs get for each of the driver's libraries, None where the loader finds none."""
    code, out, _err = run(["ldconfig", "-p"])
    found: dict[str, str | None] = {}
    for library in LIBRARIES:
        # The first line of a name is the one that is taken; 32-bit libraries have no x86-64 or AArch64 among their marks.
        match = re.search(rf"^\s*{re.escape(library)}\.1 \(.*(?:x86-64|AArch64).*\) => (\S+)$", out, re.MULTILINE)
        target = os.path.basename(os.path.realpath(match[1])) if code == 0 and match else ""
        found[library] = target[len(library) + 1 :] if target.startswith(library + ".") else None
    return found


def check_loader(version: str, found: dict[str, str | None]) -> None:
    """Programs must get the libraries that were installed; two drivers' packages can hide them from each other.

    :raises GpufleetError: GF-DRIVER-MISMATCH.
    """
    wrong = [f"{name}.1: {got or 'not found'}" for name, got in sorted(found.items()) if got != version]
    if wrong:
        raise GpufleetError(
            "GF-DRIVER-MISMATCH",
            f"driver {version} is installed, and programs get other libraries: {', '.join(wrong)}",
            "the packages of another driver are installed beside it, or a copy lies elsewhere on the loader's path",
            "ldconfig -p | grep libcuda; dpkg -S or rpm -qf tells whose it is; remove it, then run this play again",
        )


def reboot_reason(
    state: list[dict[str, Any]], version: str, running: str, loaded: dict[str, Any]
) -> tuple[bool, str | None]:
    """Whether the driver can be had without a reboot: (it may be loaded now, why a reboot is needed or None)."""
    if loaded["version"] is not None:
        if loaded["version"] == version:
            return False, None
        return False, f"driver {loaded['version']} is loaded, {version} is installed"
    if loaded["competitor"] is not None:
        return False, f"{loaded['competitor']} is loaded and holds the GPU"
    here = [kernel for kernel in state if kernel["release"] == running]
    if here and here[0]["module"] is not None:
        return True, None
    bootable = [kernel["release"] for kernel in state if kernel["module"] is not None and kernel["image"]]
    if bootable:
        return False, f"the running kernel {running} has no NVIDIA module; kernel {bootable[-1]} has one"
    others = ", ".join(kernel["release"] for kernel in state if kernel["module"] is not None)
    return (
        False,
        f"the running kernel {running} has no NVIDIA module (built for {others}); no kernel image here has one",
    )


def load(run: Run) -> None:
    """Load the driver into the running kernel.

    :raises GpufleetError: GF-DRIVER-LOAD when the kernel refuses it.
    """
    for name in ("nvidia", "nvidia-uvm"):
        code, out, err = run(["modprobe", name])
        if code != 0:
            raise GpufleetError(
                "GF-DRIVER-LOAD",
                f"the kernel refuses to load {name}: {(err or out).strip()}",
                "Secure Boot accepts signed modules only, or this driver does not support the GPU (see dmesg)",
                "dmesg | grep -i -e nvidia -e NVRM; Secure Boot: mokutil --import /var/lib/dkms/mok.pub",
            )


def require_loaded(wanted: str, loaded: str | None, reason: str | None) -> None:
    """Whether a reboot brought the driver that it was made for.

    :raises GpufleetError: GF-REBOOT-UNPROVED.
    """
    if loaded != wanted:
        raise GpufleetError(
            "GF-REBOOT-UNPROVED",
            f"the node was rebooted for driver {wanted}, and {loaded or 'no driver'} is loaded"
            + (f": {reason}" if reason else ""),
            "the node came up with another kernel, or an old initramfs loads the former driver",
            "uname -r; dmesg | grep -i -e nvidia -e NVRM; rebuild the initramfs images, reboot, and run this play again",
        )
