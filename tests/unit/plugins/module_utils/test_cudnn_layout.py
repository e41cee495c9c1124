"""A directory for cuDNN of packages, from what dpkg says; the lists are as NVIDIA's packages have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_layout, cudnn, cudnn_layout
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

LIB, INCLUDE = "/usr/lib/x86_64-linux-gnu", "/usr/include/x86_64-linux-gnu"
OLD = [f"{LIB}/libcudnn.so.8", f"{LIB}/libcudnn.so.8.9.7", f"{INCLUDE}/cudnn_v8.h", f"{INCLUDE}/cudnn_version_v8.h"]
NEW = [
    f"{LIB}/libcudnn.so", f"{LIB}/libcudnn.so.9", f"{LIB}/libcudnn.so.9.17.1", f"{LIB}/libcudnn_graph.so.9.17.1",
    f"{INCLUDE}/cudnn.h", f"{INCLUDE}/cudnn_v9.h", f"{INCLUDE}/cudnn_version.h", f"{INCLUDE}/cudnn_version_v9.h",
]  # fmt: skip


def test_plain_names_lead_to_this_version_whatever_the_alternatives_say() -> None:
    found = cudnn_layout.links(OLD, headers=True)
    assert found == {
        "include/cudnn.h": f"{INCLUDE}/cudnn_v8.h",
        "include/cudnn_v8.h": f"{INCLUDE}/cudnn_v8.h",
        "include/cudnn_version.h": f"{INCLUDE}/cudnn_version_v8.h",
        "include/cudnn_version_v8.h": f"{INCLUDE}/cudnn_version_v8.h",
        "lib/libcudnn.so": f"{LIB}/libcudnn.so.8.9.7",
        "lib/libcudnn.so.8": f"{LIB}/libcudnn.so.8",
        "lib/libcudnn.so.8.9.7": f"{LIB}/libcudnn.so.8.9.7",
    }


def test_newer_packages_bring_the_plain_names_themselves() -> None:
    found = cudnn_layout.links(NEW, headers=True)
    assert found["include/cudnn.h"] == f"{INCLUDE}/cudnn_v9.h"
    assert found["lib/libcudnn_graph.so.9"] == f"{LIB}/libcudnn_graph.so.9.17.1"
    assert {place for place in cudnn_layout.links(NEW, headers=False) if place.startswith("include/")} == set()
    assert "lib/libcudnn.so" not in cudnn_layout.links(NEW, headers=False)


def node(root: Path, version: str = "9.17.1.4-1") -> None:
    """dpkg's records of three packages, the headers in one of their own."""
    lists = {
        "libcudnn9-cuda-12": [path for path in NEW if path.startswith(LIB)],
        "libcudnn9-dev-cuda-12": ["/usr/share/doc/x"],
        "libcudnn9-headers-cuda-12": [path for path in NEW if path.startswith(INCLUDE)],
    }
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    status = ""
    for name, paths in lists.items():
        needs = "Depends: libcudnn9-headers-cuda-12 (= 9.17.1.4-1)\n" if "-dev-" in name else ""
        status += f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n{needs}\n"
        (info / f"{name}.list").write_text("\n".join(["/.", *paths]) + "\n")
    (root / "var/lib/dpkg/status").write_text(status)


def test_headers_in_a_package_of_their_own_are_found(tmp_path: Path) -> None:
    node(tmp_path)
    found = cudnn_layout.wanted(["libcudnn9-cuda-12=9.17.1.4-1", "libcudnn9-dev-cuda-12"], "/p", True, str(tmp_path))
    assert found["include/cudnn_version.h"] == f"{INCLUDE}/cudnn_version_v9.h"


def test_the_files_of_rpms_packages_are_asked_of_rpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for rpm that knows two packages."""
    node(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    program = tmp_path / "bin/rpm"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nfor each; do case $each in\n"
        "libcudnn9-cuda-12) printf '/usr/lib64/libcudnn.so.9\\n/usr/lib64/libcudnn.so.9.17.1\\n';;\n"
        "libcudnn9-headers-cuda-12) printf '/usr/include/cudnn_version_v9.h\\n';;\n"
        "libcudnn9-devel-cuda-12) echo 'package libcudnn9-devel-cuda-12 is not installed';;\nesac; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    names = ["libcudnn9-cuda-12=9.17.1.4-1", "libcudnn9-devel-cuda-12=9.17.1.4-1"]
    assert cudnn_layout.wanted(names, "/p", True, str(tmp_path)) == {
        "include/cudnn_version.h": "/usr/include/cudnn_version_v9.h",
        "include/cudnn_version_v9.h": "/usr/include/cudnn_version_v9.h",
        "lib/libcudnn.so": "/usr/lib64/libcudnn.so.9.17.1",
        "lib/libcudnn.so.9": "/usr/lib64/libcudnn.so.9",
        "lib/libcudnn.so.9.17.1": "/usr/lib64/libcudnn.so.9.17.1",
    }


def test_packages_that_are_not_there_are_told(tmp_path: Path) -> None:
    node(tmp_path)
    with pytest.raises(GpufleetError, match="libcudnn8") as caught:
        cudnn_layout.wanted(["libcudnn8"], "/p", True, str(tmp_path))
    assert caught.value.code == "GF-CUDNN-WRONG"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("headers", [True, False])
def test_the_directory_passes_the_proof_of_a_wheel(tmp_path: Path, headers: bool) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "lib.c").write_text("unsigned long cudnnGetVersion(void) { return 91701; }\n")
    library = real / "libcudnn.so.9.17.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcudnn.so.9", "-o", library, real / "lib.c"], check=True)
    (real / "cudnn_version_v9.h").write_text("#define CUDNN_MAJOR 9\n#define CUDNN_VERSION 91701\n")
    places = {"lib/libcudnn.so.9": str(library)}
    if headers:
        places["lib/libcudnn.so"] = str(library)
        places["include/cudnn_version.h"] = str(real / "cudnn_version_v9.h")
    path = tmp_path / "cudnn/9.17.1.4-cuda12"
    path.parent.mkdir()
    cudnn_layout.make(str(path), places)
    assert cuda_layout.present(str(path)) == places

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
        return done.returncode, done.stdout, done.stderr

    work = tmp_path / "work"
    work.mkdir()
    assert cudnn.check(str(path), "9.17.1.4", str(work), "gcc", run) == 91701
    assert (work / "check.c").exists() == headers
    with pytest.raises(GpufleetError, match="91801"):
        cudnn.check(str(path), "9.18.1.4", str(work), "gcc", run)
