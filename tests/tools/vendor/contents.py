"""What the stand-ins' packages hold: stubs that build, link and print as far as our roles look."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .keys import run

PARTS = Path(__file__).resolve().parents[3] / "tests/fixtures/vendor"
STUB = "A stand-in made by tests/tools/vendor_repository; not the vendor's software."


class Package(NamedTuple):
    """One package of either family.

    ``files`` are texts by their path, ``built`` files to copy, ``links`` targets by their path, ``fields`` further lines
    of the control file or the spec, ``scripts`` the maintainer's by the family's names for them.
    """

    name: str
    version: str
    needs: tuple[str, ...] = ()
    fields: str = ""
    files: dict[str, str] = {}
    built: dict[str, Path] = {}
    links: dict[str, str] = {}
    scripts: dict[str, str] = {}
    revision: str = "1"
    section: str = "misc"
    epoch: str = ""


def filled(name: str, **values: str) -> str:
    """A file of the fixtures with its @NAMES@ filled in."""
    text = (PARTS / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", value)
    return text


def library(work: Path, name: str, code: str = "") -> Path:
    """A tiny real shared object with the right soname."""
    path = work / f"{name}-{abs(hash(code))}"
    if not path.exists():
        source = work / "library.c"
        source.write_text(code + "\n", encoding="utf-8")
        run("gcc", "-shared", "-fPIC", "-nostdlib", f"-Wl,-soname,{name}", "-o", str(path), str(source))
    return path


def libraries(work: Path, folder: str, version: str) -> dict[str, Path]:
    """The driver's two libraries that programs ask for."""
    return {f"{folder}/{name}.{version}": library(work, f"{name}.1") for name in ("libcuda.so", "libnvidia-ml.so")}


def licence(flavour: str) -> str:
    return "Dual MIT/GPL" if flavour == "open" else "NVIDIA"


def module_source(version: str, flavour: str, fault: str = "") -> dict[str, str]:
    """What DKMS builds the module from."""
    base = f"usr/src/nvidia-{version}"
    return {
        f"{base}/nvidia.c": filled("nvidia.c", version=version, license=licence(flavour), fault=fault),
        f"{base}/Makefile": "obj-m := nvidia.o\n",
        f"{base}/dkms.conf": filled("dkms.conf", version=version),
    }


def finished_module(work: Path, version: str, flavour: str, kernel: str) -> Path:
    """A module that no kernel's headers were needed for: modinfo and depmod take it, no kernel would."""
    said = {"version": version, "license": licence(flavour), "vermagic": f"{kernel} SMP mod_unload "}
    rows = "".join(
        f'static const char {name}[] __attribute__((section(".modinfo"), used)) = "{name}={value}";\n'
        for name, value in said.items()
    )
    path, source = work / f"nvidia-{version}-{flavour}-{kernel}.ko", work / "module.c"
    source.write_text(rows, encoding="utf-8")
    run("gcc", "-c", "-o", str(path), str(source))
    return path


def toolkit_files(work: Path, series: str, version: str) -> tuple[dict[str, str], dict[str, Path]]:
    """A toolkit of one version: an nvcc, two headers, one library."""
    major, minor = series.split(".")
    base = f"usr/local/cuda-{series}"
    values = {"series": series, "version": version, "number": str(int(major) * 1000 + int(minor) * 10), "major": major}
    files = {f"{base}/{path}": filled(path.rsplit("/", 1)[-1], **values) for path in ("bin/nvcc", "version.json")}
    files[f"{base}/include/cuda_runtime.h"] = filled("cuda_runtime.h", **values)
    files[f"{base}/include/cublas_v2.h"] = filled("cublas_v2.h", **values)
    code = f"int cublasGetProperty(int kind, int *value) {{ *value = {major}; return 0; }}"
    return files, {f"{base}/lib64/libcublas.so.{major}": library(work, f"libcublas.so.{major}", code)}


def cudnn_files(work: Path, version: str, folder: str) -> tuple[dict[str, Path], dict[str, str]]:
    """A cuDNN that knows its version, and its header."""
    major, minor, patch = version.split(".")[:3]
    number = int(major) * (1000 if int(major) < 9 else 10000) + int(minor) * 100 + int(patch)
    code = f"unsigned long cudnnGetVersion(void) {{ return {number}; }}"
    header = (
        f"/* A stand-in. */\n#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"
        f"#define CUDNN_VERSION {number}\n"
        '#ifdef __cplusplus\nextern "C"\n#endif\nunsigned long cudnnGetVersion(void);\n'
    )
    built = {f"{folder}/libcudnn.so.{version}": library(work, f"libcudnn.so.{major}", code)}
    return built, {"usr/include/cudnn.h": header, "usr/include/cudnn_version.h": header}


def unit(name: str, program: str, *, driver: bool = False) -> dict[str, str]:
    """A daemon that does nothing, with its unit; one that needs a loaded driver ends with an error where there is none."""
    guard = "[ -e /proc/driver/nvidia/version ] || exit 1\n" if driver else ""
    text = f"[Unit]\nDescription={name}, a stand-in\n[Service]\nExecStart=/usr/bin/{program}\n[Install]\nWantedBy=multi-user.target\n"
    return {
        f"lib/systemd/system/{name}.service": text,
        f"usr/bin/{program}": f"#!/bin/sh\n{guard}exec sleep infinity\n",
    }


def program(name: str, answer: str) -> dict[str, str]:
    return {f"usr/bin/{name}": f"#!/bin/sh\necho '{answer}'\n"}


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    runs = path.parent.name in ("bin", "sbin", "DEBIAN") and path.name not in ("control", "triggers")
    path.chmod(0o755 if runs else 0o644)


def all_links(package: Package) -> dict[str, str]:
    """The package's own links, and those that ldconfig and linkers want of its libraries."""
    found = dict(package.links)
    for name in package.built:
        path = Path(name)
        stem, dot, version = path.name.partition(".so.")
        if dot:
            # The soname: libcuda.so.1 whatever the driver's version is, libcudnn.so.8 by the library's own.
            number = "1" if stem in ("libcuda", "libnvidia-ml") else version.partition(".")[0]
            # cuDNN's plain name is its development package's.
            plain = set() if stem == "libcudnn" else {f"{stem}.so"}
            for link in ({f"{stem}.so.{number}"} | plain) - {path.name}:
                found[str(path.parent / link)] = path.name
    return found


def unfold(tree: Path, package: Package) -> None:
    """The files of a package below a directory."""
    tree.chmod(0o755)
    for name, text in package.files.items():
        put(tree / name, text)
    for name, built in package.built.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(built.read_bytes())
        path.chmod(0o644)
    for name, target in all_links(package).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
