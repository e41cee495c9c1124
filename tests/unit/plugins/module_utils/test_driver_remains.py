"""What an installer left, and what of it is not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.gpufleet.stack.plugins.module_utils import driver_remains, gpu

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "580.178.04"
LIST = f"""{VERSION}
NVIDIA Accelerated Graphics Driver for Linux-x86_64 ({VERSION})
1: /usr/bin/nvidia-smi
2546034232
0: /usr/lib64/libcuda.so.1
libcuda.so.{VERSION}
100: /usr/lib64/libGL.so.1.2.0
1303218465
0755 0 0
0: /usr/bin/nvidia-uninstall
nvidia-installer
"""


def write(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def whole(root: Path) -> None:
    write(root, driver_remains.LIST, LIST)
    write(root, driver_remains.UNINSTALLER)


def problems(
    root: Path, libraries: tuple[str, ...] = (VERSION,), module: str | None = VERSION, package: str | None = None
) -> str:
    found = driver_remains.facts(str(root), list(libraries), module, package)
    assert found is not None
    return "; ".join(found["problems"])


def test_the_installers_list_is_read_with_what_was_there_before(tmp_path: Path) -> None:
    whole(tmp_path)
    listed = driver_remains.read_list(str(tmp_path))
    assert listed is not None
    assert listed.version == VERSION
    assert listed.files == ["/usr/bin/nvidia-smi"]
    assert listed.links == {
        "/usr/lib64/libcuda.so.1": f"libcuda.so.{VERSION}",
        "/usr/bin/nvidia-uninstall": "nvidia-installer",
    }


def test_a_whole_installation_has_no_problem_and_a_node_without_one_nothing(tmp_path: Path) -> None:
    assert driver_remains.facts(str(tmp_path), [], None, "nvidia-kernel-dkms") is None
    whole(tmp_path)
    assert driver_remains.facts(str(tmp_path), [VERSION], VERSION, None) == {"version": VERSION, "problems": []}
    assert driver_remains.facts(str(tmp_path), [VERSION], None, None) == {"version": VERSION, "problems": []}


def test_each_way_to_be_broken_is_named(tmp_path: Path) -> None:
    whole(tmp_path)
    assert "libraries are missing" in problems(tmp_path, libraries=())
    assert "libraries of 535.54.03 are there" in problems(tmp_path, libraries=(VERSION, "535.54.03"))
    assert "kernel module is 535.54.03" in problems(tmp_path, module="535.54.03")
    assert "nvidia-kernel-dkms is there too" in problems(tmp_path, package="nvidia-kernel-dkms")
    (tmp_path / driver_remains.UNINSTALLER).unlink()
    assert "nvidia-uninstall is missing" in problems(tmp_path)
    (tmp_path / driver_remains.LIST).unlink()
    write(tmp_path, driver_remains.UNINSTALLER)
    assert "list of files" in problems(tmp_path)


def test_dkms_without_its_source_is_found(tmp_path: Path) -> None:
    tree = tmp_path / "var/lib/dkms/nvidia" / VERSION
    tree.mkdir(parents=True)
    (tree / "source").symlink_to(f"/usr/src/nvidia-{VERSION}")
    assert driver_remains.facts(str(tmp_path), [], None, None) == {
        "version": VERSION,
        "problems": [f"DKMS has {VERSION} without its source"],
    }
    write(tmp_path, f"usr/src/nvidia-{VERSION}/dkms.conf")
    assert driver_remains.facts(str(tmp_path), [], None, None) is None


def test_a_broken_one_is_a_finding_of_the_facts(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / driver_remains.UNINSTALLER).unlink()
    facts = gpu.collect(str(tmp_path))
    assert [each["code"] for each in facts["errors"]] == ["GF-RUNFILE-BROKEN"]
    assert facts["driver"]["runfile"]["version"] == VERSION
