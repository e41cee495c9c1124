"""NVIDIA's packages of the dnf family: names, versions and dependencies are its own, as far as its public spec files tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .contents import Package, cudnn_files, libraries, module_source, program, toolkit_files, unit
from .rpms import default_stream, stream

LIB = "usr/lib64"
_LDCONFIG = {"post": "ldconfig", "postun": "ldconfig"}


def driver(work: Path, branch: str, version: str, end: str, fault: str = "") -> list[Package]:
    """One branch, both flavours. What does not compile does not fail the transaction: NVIDIA's scripts swallow it."""
    exact = f"= 3:{version}"

    def package(name: str, *needs: str, **more: Any) -> Package:
        return Package(name, version, needs=tuple(needs), revision=f"1.{end}", epoch="3", **more)

    built = libraries(work, LIB, version)
    cuda, ml = ({path: file for path, file in built.items() if name in path} for name in ("libcuda", "libnvidia-ml"))
    found = [
        package("nvidia-driver-cuda-libs", f"libnvidia-ml {exact}", built=cuda, scripts=_LDCONFIG),
        package("libnvidia-ml", built=ml, scripts=_LDCONFIG),
        package(
            "nvidia-driver-cuda",
            f"nvidia-driver-cuda-libs {exact}",
            f"nvidia-kmod-common {exact}",
            f"nvidia-persistenced {exact}",
            files=program("nvidia-smi", f"stand-in {version}"),
        ),
        package("nvidia-persistenced", files=unit("nvidia-persistenced", "nvidia-persistenced")),
        package("nvidia-modprobe"),
        package("nvidia-driver-libs"),
        package(
            "nvidia-driver", f"nvidia-driver-libs {exact}", f"nvidia-kmod-common {exact}", f"nvidia-modprobe {exact}"
        ),
        package("nvidia-kmod-common", f"nvidia-kmod {exact}", "grubby", "dracut"),
        package(
            "nvidia-fabric-manager",
            fields="Provides: nvidia-fabricmanager",
            files=unit("nvidia-fabricmanager", "nv-fabricmanager"),
        )
        if int(branch) < 580
        else package(
            "nvidia-fabricmanager",
            fields="Obsoletes: nvidia-fabric-manager < 3:580",
            files=unit("nvidia-fabricmanager", "nv-fabricmanager"),
        ),
        package("nvidia-imex", files=unit("nvidia-imex", "nvidia-imex")),
    ]
    for flavour, kmod, meta in (
        ("open", "kmod-nvidia-open-dkms", "nvidia-open"),
        ("proprietary", "kmod-nvidia-latest-dkms", "cuda-drivers"),
    ):
        other = "kmod-nvidia-latest-dkms" if flavour == "open" else "kmod-nvidia-open-dkms"
        scripts = {
            "post": f"dkms add -m nvidia -v {version} -q || :\ndkms build -m nvidia -v {version} -q || :\n"
            f"dkms install -m nvidia -v {version} -q --force || :",
            "preun": f"dkms remove -m nvidia -v {version} -q --all || :",
        }
        fields = f"Provides: nvidia-kmod = 3:{version}\nConflicts: {other}"
        found.append(
            package(
                kmod,
                "dkms",
                f"nvidia-kmod-common {exact}",
                fields=fields,
                files=module_source(version, flavour, fault),
                scripts=scripts,
            )
        )
        needs = (f"{kmod} {exact}", f"nvidia-driver {exact}", f"nvidia-driver-cuda {exact}")
        found.append(package(meta, *needs))
    return found


def streams(drivers: dict[str, list[Package]]) -> str:
    """The module nvidia-driver of EL 8 and 9: a stream for a branch and a flavour, and the newest of both."""
    newest = max(drivers, key=int)
    texts = []
    for number, (branch, packages) in enumerate([*drivers.items(), ("", drivers[newest])]):
        for flavour, kmod, without in (
            ("open", "kmod-nvidia-open-dkms", ("kmod-nvidia-latest-dkms", "cuda-drivers")),
            ("dkms", "kmod-nvidia-latest-dkms", ("kmod-nvidia-open-dkms", "nvidia-open")),
        ):
            name = f"{branch}-{flavour}" if branch else {"open": "open-dkms", "dkms": "latest-dkms"}[flavour]
            members = [each for each in packages if each.name not in without]
            texts.append(stream(name, members, ("nvidia-driver", kmod), number + 1))
    return "".join(texts) + default_stream("latest-dkms")


def toolkit(work: Path, series: str, version: str, end: str) -> list[Package]:
    """The toolkit, and the packages on top of it that bring a driver along: nobody may install those."""
    dashed = series.replace(".", "-")
    files, built = toolkit_files(work, series, version)
    link = f"update-alternatives --install /usr/local/cuda cuda /usr/local/cuda-{series} {series.replace('.', '')}"
    scripts = {"post": link, "preun": f'[ "$1" != 0 ] || update-alternatives --remove cuda /usr/local/cuda-{series}'}
    name = f"cuda-toolkit-{dashed}"
    return [
        Package(name, version, needs=("gcc-c++",), files=files, built=built, scripts=scripts),
        Package(f"cuda-runtime-{dashed}", version, needs=("cuda-drivers",)),
        Package(f"cuda-{dashed}", version, needs=(f"cuda-runtime-{dashed}", name)),
        Package("cuda", version, needs=(f"cuda-{dashed}",)),
    ]


def cudnn(work: Path, row: dict[str, str], end: str) -> list[Package]:
    version, cuda = row["version"], row["cuda"]
    built, headers = cudnn_files(work, version, LIB)
    old, major = version.startswith("8."), cuda.partition(".")[0]
    runtime = "libcudnn8" if old else f"libcudnn9-cuda-{major}"
    development = "libcudnn8-devel" if old else f"libcudnn9-devel-cuda-{major}"
    revision = f"1.cuda{cuda}" if old else "1"
    found = [
        Package(runtime, version, built=built, scripts=_LDCONFIG, revision=revision),
        Package(development, version, needs=(f"{runtime} = {version}-{revision}",), files=headers, revision=revision),
    ]
    if not old:
        found.append(
            Package(f"cudnn9-cuda-{major}", version, needs=(f"{runtime} = {version}", f"{development} = {version}"))
        )
    return found


def others(data: dict[str, Any], end: str) -> list[Package]:
    """DCGM and the container toolkit."""
    dcgm, container = data["dcgm"], data["container_toolkit"]
    core = "datacenter-gpu-manager-4-core"
    unit_files = {**unit("nvidia-dcgm", "nv-hostengine"), **program("dcgmi", dcgm)}
    found = [Package(core, dcgm, files=unit_files, epoch="1")]
    for major in ("12", "13"):
        found.append(Package(f"datacenter-gpu-manager-4-cuda{major}", dcgm, needs=(f"{core} = 1:{dcgm}",), epoch="1"))
    found += [
        Package("libnvidia-container1", container),
        Package("libnvidia-container-tools", container, needs=(f"libnvidia-container1 >= {container}",)),
        Package("nvidia-container-toolkit-base", container, files=program("nvidia-ctk", container)),
        Package(
            "nvidia-container-toolkit",
            container,
            needs=(f"libnvidia-container-tools >= {container}", f"nvidia-container-toolkit-base = {container}-1"),
        ),
    ]
    return found
