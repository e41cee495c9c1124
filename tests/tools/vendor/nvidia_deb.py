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


def service(*units: str, started: bool = False) -> dict[str, str]:
    """A package's scripts for its services, as debhelper writes them; started are those that it does not leave to the administrator."""
    names = " ".join(units)
    up = f"for u in {names}; do deb-systemd-helper enable $u; deb-systemd-invoke start $u || true; done"
    return {
        "postinst": f'#!/bin/sh\nset -e\n[ "$1" != configure ] || {{ systemctl daemon-reload || true; {up if started else ":"}; }}\n',
        "prerm": f"#!/bin/sh\nset -e\n[ ! -d /run/systemd/system ] || deb-systemd-invoke stop {names} || true\n",
        "postrm": f'#!/bin/sh\nset -e\n[ "$1" != purge ] || for u in {names}; do deb-systemd-helper purge $u; done\n'
        "[ ! -d /run/systemd/system ] || systemctl daemon-reload || true\n",
    }


def driver(work: Path, branch: str, version: str, fault: str = "") -> list[Package]:
    """The packages of one branch, both flavours; from 590 on no name bears the branch, and a package pins it."""
    named = int(branch) <= 580
    end = f"-{branch}" if named else ""
    compute = f"libnvidia-compute{end}"
    found = [Package(compute, version, fields=_alone("libnvidia-compute"), built=libraries(work, LIB, version))]
    for flavour, meta, kind in (("open", "nvidia-open", "-open"), ("proprietary", "cuda-drivers", "")):
        dkms = f"nvidia-dkms{end}{kind}"
        found.append(module(dkms, version, flavour, fault))
        needs = (f"{dkms} (= {version}-1)", f"{compute} (= {version}-1)", f"nvidia-persistenced{end} (= {version}-1)")
        found.append(Package(f"{meta}{end}", version, needs=needs))
    # These lost the branch earlier.
    late = "" if int(branch) >= 580 else end
    for name, daemon in (("nvidia-fabricmanager", "nv-fabricmanager"), ("nvidia-imex", "nvidia-imex")):
        files = unit(name, daemon, driver=True)
        found.append(
            Package(
                f"{name}{late}", version, fields=_alone(f"{name}-any"), files=files, scripts=service(f"{name}.service")
            )
        )
    found.append(Package(f"libnvsdm{late}", version, fields=_alone("libnvsdm-any")))
    name = "nvidia-persistenced"
    files, scripts = unit(name, name, driver=True), service(f"{name}.service", started=True)
    found.append(Package(f"{name}{end}", version, fields=_alone(f"{name}-any"), files=files, scripts=scripts))
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
    # The plain names of headers are links from 9.10 on; before they are left to alternatives.
    folder, series = "usr/include/x86_64-linux-gnu", version.partition(".")[0]
    texts = {f"{folder}/{Path(path).stem}_v{series}.h": text for path, text in headers.items()}
    plain = {} if old else {f"{folder}/{Path(path).name}": f"{Path(path).stem}_v{series}.h" for path in headers}
    plain.update({} if old else {f"{LIB}/libcudnn.so": f"libcudnn.so.{series}"})
    development = "libcudnn8-dev" if old else f"libcudnn9-dev-cuda-{major}"
    revision = f"1+cuda{cuda}" if old else "1"
    needs = (f"{runtime} (= {version}-{revision})",)
    alone = "" if old else _alone("libcudnn9-any")
    found = [
        Package(runtime, version, built=built, revision=revision, fields=alone),
        Package(
            development,
            version,
            needs=needs,
            files=texts,
            links=plain,
            revision=revision,
            fields=alone.replace("any", "dev-any"),
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
    host = {**unit("nvidia-dcgm", "nv-hostengine", driver=True), **program("dcgmi", dcgm)}
    found = [
        Package(core, dcgm, files=host, scripts=service("nvidia-dcgm.service"), epoch="1"),
        Package("nvlsm", "2025.06.11"),
    ]
    refresh = unit("nvidia-cdi-refresh", "nvidia-cdi-refresh", driver=True)
    trigger = "[Path]\nPathChanged=/usr/bin/nvidia-ctk\n[Install]\nWantedBy=multi-user.target\n"
    refresh["lib/systemd/system/nvidia-cdi-refresh.path"] = trigger
    both = service("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service", started=True)
    for major in ("12", "13"):
        found.append(
            Package(f"datacenter-gpu-manager-4-cuda{major}", dcgm, needs=(f"{core} (= 1:{dcgm}-1)",), epoch="1")
        )
    found += [
        Package("libnvidia-container1", container),
        Package("libnvidia-container-tools", container, needs=(f"libnvidia-container1 (>= {container})",)),
        Package(
            "nvidia-container-toolkit-base",
            container,
            files={**program("nvidia-ctk", container), **refresh},
            scripts=both,
        ),
        Package(
            "nvidia-container-toolkit",
            container,
            needs=(f"libnvidia-container-tools (>= {container})", f"nvidia-container-toolkit-base (= {container}-1)"),
        ),
    ]
    return found
