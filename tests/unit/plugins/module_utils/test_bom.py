"""Bills of materials: valid by CycloneDX's own schema, the same every time, complete."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import bom, receipts
from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

WHEELS = [
    {"name": "torch", "version": "2.0.1+cu118", "url": "https://example.org/torch-2.0.1%2Bcu118.whl", "sha256": "a" * 64, "size": 5},
    {"name": "numpy", "version": "1.26.4", "url": "https://example.org/numpy.whl", "sha256": "b" * 64, "size": None},
]  # fmt: skip
WISH = lock_file.Wish([], "3.11", "x86_64", "2.36", "default")
LOCK = lock_file.render(WISH, WHEELS)
WEIGHTS = {"nvidia-driver": "535.309.01-1~deb12u1", "libcuda1": "535.309.01-1~deb12u1"}


def valid(document: dict[str, Any]) -> dict[str, Any]:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    for component in document["components"]:
        found = PackageURL.from_string(component["purl"])
        assert (found.name, found.version) == (component["name"], component["version"])
    return document


def environment(lock: str = LOCK, python: str | None = "3.11.18") -> dict[str, Any]:
    return valid(bom.environment("default", "2.0.1-cu118-py311-0a1b2c3d", lock, "c" * 64, python))


def receipt(state: Path, role: str, **more: Any) -> None:
    receipts.write_json(receipts.receipt_path(str(state), role), {"role": role, "digest": "d", "packages": {}, **more})


def nvidia(tmp_path: Path) -> dict[str, Any] | None:
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
    found = bom.nvidia(str(tmp_path / "state"), str(tmp_path))
    return valid(found) if found else None


def names(document: dict[str, Any] | None) -> dict[str, str]:
    assert document is not None
    return {component["name"]: component["version"] for component in document["components"]}


def test_an_environment_is_its_wheels_and_its_python() -> None:
    document = environment()
    assert names(document) == {"torch": "2.0.1+cu118", "numpy": "1.26.4", "cpython": "3.11.18"}
    torch = next(each for each in document["components"] if each["name"] == "torch")
    assert torch["purl"] == "pkg:pypi/torch@2.0.1%2Bcu118"
    assert torch["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert torch["externalReferences"][0]["url"] == WHEELS[0]["url"]
    assert document["metadata"]["component"]["version"] == "2.0.1-cu118-py311-0a1b2c3d"
    (everything,) = document["dependencies"]
    assert everything["dependsOn"] == [each["bom-ref"] for each in document["components"]]


def test_the_same_content_is_the_same_document_and_another_is_not() -> None:
    assert environment() == environment()
    assert environment()["serialNumber"] != environment(python="3.11.19")["serialNumber"]
    other = environment(LOCK.replace("b" * 64, "d" * 64))
    assert other["serialNumber"] != environment()["serialNumber"]
    assert "timestamp" not in json.dumps(environment())


def test_an_interpreter_that_tells_no_version_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.11.2\n")
    assert bom.python_version(str(tmp_path)) == "3.11.2"
    assert bom.python_version(str(tmp_path / "none")) is None
    assert "cpython" not in names(environment(python=None))


def test_a_node_without_nvidia_roles_has_no_bill(tmp_path: Path) -> None:
    assert nvidia(tmp_path) is None
    receipt(tmp_path / "state", "cudnn", digest="removed")
    assert nvidia(tmp_path) is None


def test_packages_with_the_roles_that_brought_them(tmp_path: Path) -> None:
    receipt(tmp_path / "state", "nvidia_driver", packages=WEIGHTS, versions={"dkms": "3.0.10-8+deb12u1"})
    receipt(tmp_path / "state", "cuda_toolkit", packages={"libcuda1": WEIGHTS["libcuda1"], "nvcc": "1:11.8"})
    document = nvidia(tmp_path)
    assert names(document) == {**WEIGHTS, "dkms": "3.0.10-8+deb12u1", "nvcc": "1:11.8"}
    assert document is not None
    roles = {each["name"]: [mark["value"] for mark in each["properties"]] for each in document["components"]}
    assert roles["libcuda1"] == ["nvidia_driver", "cuda_toolkit"]
    purl = next(each["purl"] for each in document["components"] if each["name"] == "nvcc")
    assert purl == "pkg:deb/debian/nvcc@1%3A11.8?distro=debian-12"


def test_what_no_package_manager_knows(tmp_path: Path) -> None:
    state = tmp_path / "state"
    receipt(state, "nvidia_driver", stage={"source": "runfile", "version": "550.54.15"})
    toolkits = [
        {"source": "wheels", "version": "13.0", "full_version": "13.0.2"},
        {"source": "nvidia", "version": "12.6"},
    ]
    receipt(state, "cuda_toolkit", stage={"toolkits": toolkits})
    receipt(state, "cudnn", trees={"/opt/gpufleet/cudnn/8.9.6.50-cuda11": {}})
    assert names(nvidia(tmp_path)) == {
        "nvidia-driver": "550.54.15",
        "cuda-toolkit": "13.0.2",
        "cudnn-cuda11": "8.9.6.50",
    }


def test_the_file_follows_the_receipts(tmp_path: Path) -> None:
    state = tmp_path / "state"
    receipt(state, "cudnn", packages={"libcudnn9-cuda-12": "9.17.1-1"})
    path = state / bom.NVIDIA_FILE
    bom.refresh(str(state), str(tmp_path))
    before = path.stat()
    bom.refresh(str(state), str(tmp_path))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    receipts.receipt_path(str(state), "cudnn")
    Path(receipts.receipt_path(str(state), "cudnn")).unlink()
    bom.refresh(str(state), str(tmp_path))
    assert not path.exists()


@pytest.mark.parametrize("count", [400])
def test_a_large_environment_takes_a_moment(count: int) -> None:
    wheels = [{**WHEELS[1], "name": f"package-{number}"} for number in range(count)]
    text = lock_file.render(WISH, wheels)
    begin = time.perf_counter()
    document = bom.environment("default", "d", text, "c" * 64, "3.11.18")
    assert time.perf_counter() - begin < 2
    assert len(document["components"]) == count + 1
