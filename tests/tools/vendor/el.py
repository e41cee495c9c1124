"""The base repositories of a dressed node of the RHEL family: packages whose programs are Debian's, in the image already.

A kernel is a directory below /lib/modules and the link to its headers, as there; the headers are Debian's.
"""

from __future__ import annotations

from typing import Any

from .contents import Package

_PLAIN = (
    "glibc", "dnf", "python3", "gcc", "gcc-c++", "make", "elfutils-libelf-devel", "dracut", "grubby", "pciutils", "kmod",
    "libglvnd", "ocl-icd", "opencl-filesystem", "kernel-headers", "python3-dnf-plugin-versionlock", "python3.11",
    "python3.11-devel", "python3.12", "python3.12-devel", "python3-devel", "epel-release", "openssl", "mokutil",
)  # fmt: skip


def kernel(release: str) -> list[Package]:
    """One kernel, ``5.14.0-427.el9``."""
    version, revision = release.split("-", 1)
    full = f"{release}.x86_64"
    files = {f"lib/modules/{full}/modules.{name}": "" for name in ("order", "builtin")}
    files[f"boot/vmlinuz-{full}"] = ""
    link = {f"lib/modules/{full}/build": f"/usr/src/kernels/{full}"}
    return [
        Package("kernel-core", version, revision=revision, files=files, links=link),
        Package("kernel", version, revision=revision, needs=(f"kernel-core = {release}",)),
        Package(
            "kernel-devel",
            version,
            revision=revision,
            links={f"usr/src/kernels/{full}": "/usr/src/debian-headers"},
        ),
    ]


def installed(releases: list[str]) -> tuple[str, ...]:
    """What an installed machine has, the oldest kernel among it; without these dnf resolves nothing."""
    return ("bash", "glibc", "dnf", "python3", "stand-in-release", f"kernel-{releases[0]}")


def base(platform: dict[str, Any], end: str) -> list[Package]:
    found = [Package(name, "1", revision=f"1.{end}") for name in _PLAIN]
    found.append(Package("bash", "5", revision=f"1.{end}", fields="Provides: /bin/sh\nProvides: /sbin/ldconfig"))
    fields = f"Provides: system-release = {platform['release']}\nProvides: system-release({platform['release']})"
    found.append(Package("stand-in-release", platform["release"], revision=f"1.{end}", fields=fields))
    return found + [each for release in platform["kernels"] for each in kernel(release)]


def epel(end: str) -> list[Package]:
    return [Package("dkms", "3.2.0", needs=("gcc", "make", "kernel-devel"), revision=f"1.{end}")]
