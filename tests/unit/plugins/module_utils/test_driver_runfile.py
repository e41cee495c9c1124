"""Running NVIDIA's installer and taking its driver away, whole or half."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_remains, driver_runfile, package_files
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "580.178.04"
LIBRARY = "usr/lib/x86_64-linux-gnu/libcuda.so"
MODULE = "lib/modules/6.1.0-47-amd64/updates/dkms/nvidia.ko"


class Node:
    """A node's root and what its programs answer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        self.answers: dict[str, Any] = {}

    def write(self, name: str, text: str = "x") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def link(self, name: str, target: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        answer = self.answers.get(command[0], (0, "", ""))
        return answer(command) if callable(answer) else answer

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_symlink() or path.is_file()
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    this = Node(tmp_path)
    entries = [
        f"1: /{LIBRARY}.{VERSION}\n1",
        f"0: /{LIBRARY}.1\nlibcuda.so.{VERSION}",
        "1: /usr/bin/nvidia-smi\n2",
        "1: /usr/bin/nvidia-installer\n3",
        "0: /usr/bin/nvidia-uninstall\nnvidia-installer",
    ]
    this.write(driver_remains.LIST, f"{VERSION}\nNVIDIA\n" + "\n".join(entries) + "\n")
    this.write(f"{LIBRARY}.{VERSION}")
    this.link(f"{LIBRARY}.1", f"libcuda.so.{VERSION}")
    this.write("usr/bin/nvidia-smi")
    this.write("usr/bin/nvidia-installer")
    this.link("usr/bin/nvidia-uninstall", "nvidia-installer")
    this.write(f"usr/src/nvidia-{VERSION}/dkms.conf")
    this.link(f"var/lib/dkms/nvidia/{VERSION}/source", f"/usr/src/nvidia-{VERSION}")
    this.link("var/lib/dkms/nvidia/kernel-6.1.0-47-amd64-x86_64", f"{VERSION}/6.1.0-47-amd64/x86_64")
    this.write(MODULE)
    this.write("var/lib/dpkg/info/base-files.list", "/.\n/usr/bin\n")
    this.answers["modinfo"] = (0, VERSION + "\n", "")
    return this


def test_what_the_uninstaller_leaves_is_swept_up(node: Node) -> None:
    driver_runfile.uninstall(node.run, str(node.root))
    assert [driver_runfile.UNINSTALLER, "--silent"] in node.calls
    assert ["dkms", "remove", f"nvidia/{VERSION}", "--all"] in node.calls
    assert node.files() == ["var/lib/dpkg/info/base-files.list"]


def test_without_an_uninstaller_the_list_says_what_goes(node: Node) -> None:
    (node.root / "usr/bin/nvidia-uninstall").unlink()
    (node.root / f"usr/src/nvidia-{VERSION}/dkms.conf").unlink()
    gone = driver_runfile.uninstall(node.run, str(node.root))
    assert "/usr/bin/nvidia-smi" in gone
    assert node.files() == ["var/lib/dpkg/info/base-files.list"]


def test_what_belongs_to_packages_and_what_somebody_relinked_stays(node: Node) -> None:
    node.write("var/lib/dpkg/info/nvidia-smi.list", "/.\n/usr/bin/nvidia-smi\n")
    (node.root / f"{LIBRARY}.1").unlink()
    node.link(f"{LIBRARY}.1", "libcuda.so.535.54.03")
    driver_runfile.uninstall(node.run, str(node.root))
    assert [name for name in node.files() if "dpkg" not in name] == ["usr/bin/nvidia-smi", f"{LIBRARY}.1"]
    assert not (node.root / driver_remains.LIST).exists()


def test_a_module_of_another_driver_stays(node: Node) -> None:
    node.answers["modinfo"] = (0, "535.54.03\n", "")
    driver_runfile.uninstall(node.run, str(node.root))
    assert MODULE in node.files()


def test_a_list_that_cannot_go_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.rmtree", lambda *_arguments, **_options: None)
    node.answers[driver_runfile.UNINSTALLER] = (1, "", "ERROR: read-only")
    with pytest.raises(GpufleetError) as caught:
        driver_runfile.uninstall(node.run, str(node.root))
    assert caught.value.code == "GF-RUNFILE-STUCK"
    assert "read-only" in caught.value.message


def test_a_failing_installer_shows_the_end_of_its_log_and_leaves_nothing(node: Node) -> None:
    node.write(driver_runfile.LOG, "of an earlier one\n")

    def fail(_command: list[str]) -> tuple[int, str, str]:
        node.write(
            driver_runfile.LOG,
            "".join(f"line {number}\n" for number in range(40)) + "ERROR: Installation has failed.\n",
        )
        return 1, "", ""

    node.answers["sh"] = fail
    with pytest.raises(GpufleetError) as caught:
        driver_runfile.install(node.run, "/cache/driver.run", ["--silent", "--dkms"], "6.1.0-47-amd64", str(node.root))
    assert caught.value.code == "GF-RUNFILE-FAILED"
    assert "Installation has failed" in caught.value.message
    assert "line 39" in caught.value.message
    assert "line 3\n" not in caught.value.message
    assert node.calls[0] == ["sh", "/cache/driver.run", "--silent", "--dkms", "--kernel-name=6.1.0-47-amd64"]
    assert driver_remains.read_list(str(node.root)) is None


def kernels(**headers: bool) -> list[dict[str, Any]]:
    return [{"release": name.replace("_", "."), "headers": there, "module": None} for name, there in headers.items()]


def test_the_running_kernel_is_built_for_where_it_has_headers() -> None:
    assert driver_runfile.kernel_to_build_for(kernels(k6_1=True, k6_12=True), "k6.1") == "k6.1"
    assert driver_runfile.kernel_to_build_for(kernels(k6_1=True, k6_12=True), "k4.19") == "k6.12"
    with pytest.raises(GpufleetError) as caught:
        driver_runfile.kernel_to_build_for(kernels(k6_1=False), "k6.1")
    assert caught.value.code == "GF-DKMS-FAILED"


def test_it_is_whole_with_every_file_and_the_wanted_flavour(node: Node) -> None:
    node.write(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}")
    node.answers["modinfo"] = (0, "Dual MIT/GPL\n", "")
    assert driver_runfile.whole(node.run, VERSION, "open", str(node.root))
    assert not driver_runfile.whole(node.run, VERSION, "proprietary", str(node.root))
    assert not driver_runfile.whole(node.run, "570.211.01", "open", str(node.root))
    (node.root / "usr/bin/nvidia-smi").unlink()
    assert not driver_runfile.whole(node.run, VERSION, "open", str(node.root))
    node.write("usr/bin/nvidia-smi")
    (node.root / f"var/lib/dkms/nvidia/{VERSION}/source").unlink()
    (node.root / f"var/lib/dkms/nvidia/{VERSION}").rmdir()
    assert not driver_runfile.whole(node.run, VERSION, "open", str(node.root))


def test_a_receipt_knows_it_by_small_files_and_by_links(node: Node) -> None:
    files, links = driver_runfile.written(str(node.root))
    assert files == ["/usr/bin/nvidia-installer", "/var/lib/nvidia/log", f"/usr/src/nvidia-{VERSION}/dkms.conf"]
    assert links == ["/usr/bin/nvidia-uninstall", f"/{LIBRARY}.1"]


def test_a_merged_root_is_one_place(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/info/x.list").write_text("/lib/x86_64-linux-gnu/libcuda.so.1\n", encoding="utf-8")
    path = "/usr/lib/x86_64-linux-gnu/libcuda.so.1"
    assert package_files.owned(lambda _command: (1, "", ""), [path, "/usr/bin/x"], str(tmp_path)) == {path}


def test_rpm_is_asked_where_there_is_no_dpkg(tmp_path: Path) -> None:
    def run(command: list[str]) -> tuple[int, str, str]:
        return (0, "nvidia-driver", "") if command[-1] == "/usr/bin/nvidia-smi" else (1, "", "")

    assert package_files.owned(run, ["/usr/bin/nvidia-smi", "/usr/bin/x"], str(tmp_path)) == {"/usr/bin/nvidia-smi"}


def test_parts_of_other_versions_go_and_those_of_packages_stay(node: Node) -> None:
    folder = "usr/lib/x86_64-linux-gnu"
    (node.root / f"{LIBRARY}.1").unlink()
    (node.root / driver_remains.LIST).unlink()
    node.write(f"{folder}/libcuda.so.570.10.01")
    node.write(f"{folder}/libnvidia-ptxjitcompiler.so.570.10.01")
    node.link(f"{folder}/libcuda.so.1", "libcuda.so.570.10.01")
    node.write(f"{folder}/libnvidia-ml.so.535.54.03")
    node.write("var/lib/dpkg/info/libnvidia-ml1.list", f"/.\n/{folder}/libnvidia-ml.so.535.54.03\n")
    other = "lib/modules/6.1.0-47-amd64/updates/dkms/nvidia-current.ko"
    node.write(other)
    node.answers["modinfo"] = lambda command: (0, "535.54.03\n" if "current" in command[-1] else VERSION + "\n", "")
    driver_runfile.uninstall(node.run, str(node.root))
    left = [name for name in node.files() if "dpkg" not in name]
    assert left == [other, "usr/bin/nvidia-smi", f"{folder}/libnvidia-ml.so.535.54.03"]
