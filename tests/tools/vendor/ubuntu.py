"""Ubuntu's archive as far as drivers go, laid over Debian's: kernels, server drivers with DKMS or precompiled, the toolkit.

Names follow Ubuntu's patterns; a kernel is a name whose headers are Debian's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contents import Package, finished_module, libraries, program, toolkit_files, unit
from .nvidia_deb import LIB, module

RESTRICTED, MULTIVERSE = "restricted/misc", "multiverse/devel"
_HEADERS = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
ln -sfn $(ls -d /usr/src/linux-headers-*-amd64 | tail -n1) /usr/src/linux-headers-{kernel}
mkdir -p /lib/modules/{kernel}
ln -sfn /usr/src/linux-headers-{kernel} /lib/modules/{kernel}/build
if [ -x /usr/sbin/dkms ]; then dkms autoinstall -k {kernel}; fi
"""
_NO_HEADERS = "#!/bin/sh\nset -e\nrm -f /lib/modules/{kernel}/build /usr/src/linux-headers-{kernel}\n"


def kernel(release: str) -> list[Package]:
    """``5.15.0-119-generic``: an image, and headers that lead to Debian's."""
    version = release.partition("-")[0]
    files = {f"lib/modules/{release}/modules.{name}": "" for name in ("order", "builtin")}
    files[f"boot/vmlinuz-{release}"] = ""
    # Debian's own kernel's directory would be one more kernel to build for.
    scripts = {"postinst": _HEADERS.format(kernel=release), "prerm": _NO_HEADERS.format(kernel=release)}
    return [
        Package(f"linux-image-{release}", version, files=files),
        Package(f"linux-headers-{release}", version, needs=("linux-headers-amd64",), scripts=scripts),
    ]


def kernels(releases: dict[str, list[str]]) -> list[Package]:
    """All kernels by the end of the names of the packages that follow their updates: generic, generic-hwe-22.04."""
    found = []
    for end, known in releases.items():
        found += [each for release in known for each in kernel(release)]
        newest = known[-1]
        version = newest.partition("-")[0]
        found.append(Package(f"linux-image-{end}", version, needs=(f"linux-image-{newest}",)))
        found.append(Package(f"linux-headers-{end}", version, needs=(f"linux-headers-{newest}",)))
    return found


def installed(releases: dict[str, list[str]]) -> tuple[str, ...]:
    """What an installed machine has: the oldest kernel of the newest line, and no headers."""
    return (f"linux-image-{list(releases.values())[-1][0]}",)


def driver(work: Path, branch: str, version: str, releases: dict[str, list[str]]) -> list[Package]:
    """One server branch, both flavours, as source and precompiled."""
    server = f"{branch}-server"
    exact = f"(= {version}-1)"

    def package(name: str, *needs: str, **more: Any) -> Package:
        return Package(name, version, needs=tuple(needs), section=RESTRICTED, **more)

    alone = "Provides: {0}\nConflicts: {0}\nReplaces: {0}\n"
    found = [
        package(
            f"libnvidia-compute-{server}", built=libraries(work, LIB, version), fields=alone.format("libnvidia-compute")
        ),
        package(f"nvidia-kernel-common-{server}", fields=alone.format("nvidia-kernel-common")),
        package(
            f"nvidia-compute-utils-{server}",
            f"libnvidia-compute-{server} {exact}",
            files=unit("nvidia-persistenced", "nvidia-persistenced"),
            fields=alone.format("nvidia-persistenced-any"),
        ),
        package(
            f"nvidia-utils-{server}",
            f"libnvidia-compute-{server} {exact}",
            files=program("nvidia-smi", f"stand-in {version}"),
            fields=alone.format("nvidia-utils"),
        ),
        Package(
            f"nvidia-fabricmanager-{branch}",
            version,
            section=MULTIVERSE,
            files=unit("nvidia-fabricmanager", "nv-fabricmanager"),
        ),
    ]
    for flavour, end in (("proprietary", ""), ("open", "-open")):
        name = f"{server}{end}"
        shared = tuple(
            f"{each}-{server} {exact}" for each in ("libnvidia-compute", "nvidia-compute-utils", "nvidia-kernel-common")
        )
        found += [
            module(f"nvidia-dkms-{name}", version, flavour, section=RESTRICTED),
            package(f"nvidia-headless-no-dkms-{name}", *shared),
            package(
                f"nvidia-headless-{name}", f"nvidia-headless-no-dkms-{name} {exact}", f"nvidia-dkms-{name} {exact}"
            ),
        ]
        for kernel_end, known in releases.items():
            for release in known:
                folder = f"lib/modules/{release}/kernel/nvidia-{branch}srv{end}"
                scripts = dict.fromkeys(("postinst", "postrm"), f"#!/bin/sh\nset -e\ndepmod {release}\n")
                built = {f"{folder}/nvidia.ko": finished_module(work, version, flavour, release)}
                needs = (f"linux-image-{release}", f"nvidia-kernel-common-{server} {exact}")
                found.append(package(f"linux-modules-nvidia-{name}-{release}", *needs, built=built, scripts=scripts))
            newest = f"linux-modules-nvidia-{name}-{known[-1]}"
            found.append(package(f"linux-modules-nvidia-{name}-{kernel_end}", f"{newest} {exact}"))
    return found


def toolkit(work: Path, version: str) -> list[Package]:
    """Ubuntu's nvidia-cuda-toolkit lies in the system's own directories."""
    series = ".".join(version.split(".")[:2])
    files, built = toolkit_files(work, series, version)
    base, places = f"usr/local/cuda-{series}/", {"bin/": "usr/bin/", "include/": "usr/include/", "lib64/": f"{LIB}/"}

    def moved(name: str) -> str:
        inner = name[len(base) :]
        return next((there + inner[len(here) :] for here, there in places.items() if inner.startswith(here)), "")

    texts = {moved(name): text for name, text in files.items() if moved(name)}
    libraries_there = {moved(name): file for name, file in built.items()}
    return [
        Package("nvidia-cuda-toolkit", version, needs=("g++",), section=MULTIVERSE, files=texts, built=libraries_there),
        Package("nvidia-cuda-toolkit-gcc", version, needs=("nvidia-cuda-toolkit",), section=MULTIVERSE),
    ]
