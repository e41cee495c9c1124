"""NVIDIA's packages of the apt family: names and versions are its own, dependencies as far as its guide and public scripts tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contents import Package, cudnn_files, libraries, module_source, program, toolkit_files, unit

LIB = "usr/lib/x86_64-linux-gnu"
# As dh-dkms does.
_ADD = '#!/bin/sh\nset -e\n[ "$1" != configure ] || /usr/lib/dkms/common.postinst nvidia {} "" "" "$2"\n'
_REMOVE = "#!/bin/sh\nset -e\ndkms remove -m nvidia -v {} --all\n"


def _alone(virtual: str) -> str:
    """Only one package of these can be there."""
    return f"Provides: {virtual}\nConflicts: {virtual}\nReplaces: {virtual}\n"


def module(name: str, version: str, flavour: str, fault: str = "", **more: Any) -> Package:
    """What DKMS builds; a module that does not compile leaves the package half-configured."""
    return Package(
        name,
        version,
        needs=("dkms",),
        fields=_alone("nvidia-dkms-kernel"),
        files=module_source(version, flavour, fault),
        scripts={"postinst": _ADD.format(version), "prerm": _REMOVE.format(version)},
        **more,
    )


def driver(work: Path, branch: str, version: str, fault: str = "") -> list[Package]:
    """The packages of one branch, both flavours; from 590 on no name bears the branch, and a package pins it."""
    named = int(branch) <= 580
    end = f"-{branch}" if named else ""
    compute = f"libnvidia-compute{end}"
    found = [Package(compute, version, fields=_alone("libnvidia-compute"), built=libraries(work, LIB, version))]
    for flavour, meta, kind in (("open", "nvidia-open", "-open"), ("proprietary", "cuda-drivers", "")):
        dkms = f"nvidia-dkms{end}{kind}"
        found.append(module(dkms, version, flavour, fault))
        needs = (f"{dkms} (= {version}-1)", f"{compute} (= {version}-1)")
        found.append(Package(f"{meta}{end}", version, needs=needs))
    for name, daemon in (("nvidia-fabricmanager", "nv-fabricmanager"), ("nvidia-imex", "nvidia-imex")):
        fields = _alone(f"{name}-branch") if named else ""
        found.append(Package(f"{name}{end}", version, fields=fields, files=unit(name, daemon)))
    persistenced = unit("nvidia-persistenced", "nvidia-persistenced")
    found.append(
        Package(f"nvidia-persistenced{end}", version, fields=_alone("nvidia-persistenced-any"), files=persistenced)
    )
    if not named:
        found.append(pinning(branch, version))
    return found


def pinning(branch: str, version: str) -> Package:
    name = f"nvidia-driver-pinning-{branch}"
    names = "nvidia-open cuda-drivers nvidia-dkms nvidia-dkms-open libnvidia-compute nvidia-fabricmanager nvidia-imex nvidia-persistenced"
    text = f"Package: {names}\nPin: version {branch}.*\nPin-Priority: 1000\n"
    return Package(name, version, fields=_alone("nvidia-driver-pinning"), files={f"etc/apt/preferences.d/{name}": text})


def toolkit(work: Path, series: str, version: str) -> list[Package]:
    """The toolkit's package, and those on top of it that bring a driver along: nobody may install those."""
    dashed, base = series.replace(".", "-"), f"usr/local/cuda-{series}"
    name = f"cuda-toolkit-{dashed}"
    files, built = toolkit_files(work, series, version)
    link = f"update-alternatives --install /usr/local/cuda cuda /{base} {series.replace('.', '')}"
    scripts = {
        "postinst": f'#!/bin/sh\nset -e\n[ "$1" != configure ] || {link}\n',
        "prerm": f'#!/bin/sh\nset -e\n[ "$1" != remove ] || update-alternatives --remove cuda /{base}\n',
    }
    return [
        Package(name, version, needs=("g++",), files=files, built=built, scripts=scripts),
        Package(f"cuda-runtime-{dashed}", version, needs=("cuda-drivers",)),
        Package(f"cuda-{dashed}", version, needs=(f"cuda-runtime-{dashed}", name)),
        Package("cuda", version, needs=(f"cuda-{dashed}",)),
    ]


def cudnn(work: Path, row: dict[str, str]) -> list[Package]:
    """Up to 8 one name for every CUDA, told apart by the version's end; from 9 on the CUDA major is part of the name."""
    version, cuda = row["version"], row["cuda"]
    built, headers = cudnn_files(work, version, LIB)
    old, major = version.startswith("8."), cuda.partition(".")[0]
    runtime = "libcudnn8" if old else f"libcudnn9-cuda-{major}"
    development = "libcudnn8-dev" if old else f"libcudnn9-dev-cuda-{major}"
    revision = f"1+cuda{cuda}" if old else "1"
    needs = (f"{runtime} (= {version}-{revision})",)
    alone = "" if old else _alone("libcudnn9-any")
    found = [
        Package(runtime, version, built=built, revision=revision, fields=alone),
        Package(
            development, version, needs=needs, files=headers, revision=revision, fields=alone.replace("any", "dev-any")
        ),
    ]
    if not old:
        found.append(
            Package(
                f"cudnn9-cuda-{major}", version, needs=(f"{runtime} (>= {version})", f"{development} (>= {version})")
            )
        )
    return found


def others(data: dict[str, Any]) -> list[Package]:
    """DCGM and the container toolkit."""
    dcgm, container = data["dcgm"], data["container_toolkit"]
    core = "datacenter-gpu-manager-4-core"
    found = [Package(core, dcgm, files={**unit("nvidia-dcgm", "nv-hostengine"), **program("dcgmi", dcgm)}, epoch="1")]
    for major in ("12", "13"):
        found.append(
            Package(f"datacenter-gpu-manager-4-cuda{major}", dcgm, needs=(f"{core} (= 1:{dcgm}-1)",), epoch="1")
        )
    found += [
        Package("libnvidia-container1", container),
        Package("libnvidia-container-tools", container, needs=(f"libnvidia-container1 (>= {container})",)),
        Package("nvidia-container-toolkit-base", container, files=program("nvidia-ctk", container)),
        Package(
            "nvidia-container-toolkit",
            container,
            needs=(f"libnvidia-container-tools (>= {container})", f"nvidia-container-toolkit-base (= {container}-1)"),
        ),
    ]
    return found
