"""A driver from another source goes as a whole, and comes back where the wanted one fails."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_former,
    driver_remains,
    former_packages,
    runfile,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_former import Coming
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from pathlib import Path

STATE = "/var/lib/gpufleet"
DEBIAN = {
    "nvidia-kernel-dkms": "535.309.01-1",
    "libcuda1": "535.309.01-1",
    "nvidia-kernel-common": "20151021+18",
    "nvidia-container-toolkit": "535.309.01-1",
    "nvidia-cuda-toolkit": "11.8.89~11.8.0-5~deb12u1",
    "libnvidia-tesla-cuda1": "470.256.02-1",
    "gcc": "4:12.2.0-3",
}
AS_PACKAGES = Coming(packages=True, repository=True)
AS_INSTALLER = Coming(packages=False, repository=True)


class Node:
    """A Debian node's records, and apt as far as these functions need it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.fails = ""

    def packages(self, versions: dict[str, str], depends: dict[str, str] | None = None) -> None:
        needs = {name: f"Depends: {on}\n" for name, on in (depends or {}).items()}
        stanzas = [
            f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n{needs.get(name, '')}"
            for name, version in versions.items()
        ]
        self.write("var/lib/dpkg/status", "\n".join(stanzas))
        self.versions = versions

    def write(self, name: str, text: str = "x") -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def receipt(self, **content: Any) -> None:
        self.write(f"{STATE}/receipts/nvidia_driver.json", json.dumps(content))

    def run(self, command: list[str]) -> tuple[int, str, str]:
        said = " ".join(command)
        self.calls.append(said)
        if "--simulate" in command:
            return 0, "".join(f"Purg {name} [1]\n" for name in command[command.index("purge") + 1 :]), ""
        if self.fails and self.fails in said:
            return 100, "", "E: no such version"
        return 0, "", ""

    def did(self, part: str) -> list[str]:
        return [call for call in self.calls if part in call and "--simulate" not in call]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    this = Node(tmp_path)
    this.packages(DEBIAN)
    return this


def take(node: Node, coming: Coming = AS_PACKAGES) -> list[str]:
    return driver_former.take_away(node.run, STATE, coming, str(node.root))


def test_one_drivers_packages_go_and_what_is_called_alike_stays(node: Node) -> None:
    assert take(node) == ["package libcuda1 535.309.01-1", "package nvidia-kernel-dkms 535.309.01-1"]
    assert node.did("--assume-yes purge")[0].endswith("purge libcuda1 nvidia-kernel-dkms")


def test_what_our_role_brought_goes_too(node: Node) -> None:
    node.receipt(added_packages=["nvidia-kernel-common", "gcc"])
    assert "package nvidia-kernel-common 20151021+18" in take(node)
    assert not any("gcc" in call for call in node.did("purge"))


def test_the_pin_of_the_wanted_branch_stays(node: Node) -> None:
    node.packages({**DEBIAN, "nvidia-driver-pinning-580": "580-1", "nvidia-driver-pinning-590": "590.48.01-1"})
    gone = take(node, Coming(packages=True, repository=True, spare=frozenset(["nvidia-driver-pinning-590"])))
    assert [name for name in gone if "pinning" in name] == ["package nvidia-driver-pinning-580 580-1"]


def test_the_former_files_are_fetched_while_their_source_may_answer(node: Node) -> None:
    (node.root / "var/cache/apt/archives").mkdir(parents=True)
    take(node)
    assert node.did("--download-only")[0].endswith("-- libcuda1=535.309.01-1 nvidia-kernel-dkms=535.309.01-1")
    assert node.calls.index(node.did("--download-only")[0]) < node.calls.index(node.did("--assume-yes purge")[0])


def test_an_installer_does_not_pull_packages_from_under_a_toolkit(node: Node) -> None:
    node.packages(DEBIAN, {"nvidia-cuda-toolkit": "libcuda1"})
    with pytest.raises(GpufleetError) as caught:
        take(node, AS_INSTALLER)
    assert caught.value.code == "GF-SWITCH-NEEDED"
    assert "libcuda1 (nvidia-cuda-toolkit needs it)" in caught.value.message
    assert not node.did("purge")
    # Packages that come as packages take its place.
    assert take(node) == ["package nvidia-kernel-dkms 535.309.01-1"]


def test_a_dry_run_says_what_goes_and_does_nothing(node: Node) -> None:
    assert driver_former.take_away(node.run, STATE, AS_PACKAGES, str(node.root), dry=True)
    assert not node.did("purge")
    assert not (node.root / "var/lib/gpufleet").exists()


def back(node: Node) -> str | None:
    return driver_former.bring_back(node.run, STATE, str(node.root))


def test_it_comes_back_with_its_versions_and_what_came_since_goes(node: Node) -> None:
    node.write("var/lib/apt/extended_states", "Package: libcuda1\nAuto-Installed: 1\n")
    node.write(f"{STATE}/baselines/nvidia_driver.json", json.dumps({"installed": sorted(DEBIAN)}))
    take(node)
    node.packages({"gcc": "4:12.2.0-3", "nvidia-open-580": "580.178.04-1", "make": "4.3"})
    assert back(node) == "driver 535.309.01"
    assert node.did("purge")[-1].endswith("purge nvidia-open-580")
    assert node.did("apt-get install --assume-yes")[0].endswith(
        "-- libcuda1=535.309.01-1 nvidia-kernel-dkms=535.309.01-1"
    )
    assert node.did("apt-mark") == ["apt-mark auto libcuda1"]
    assert back(node) is None


@pytest.mark.parametrize("had_to_go", [True, False])
def test_what_the_failed_driver_wrote_goes_and_what_receipts_name_stays(node: Node, had_to_go: bool) -> None:
    dropin = "/etc/systemd/system/nvidia-persistenced.service.d/50-gpufleet.conf"
    ours, shared, theirs = (
        "/etc/modprobe.d/gpufleet-nvidia.conf",
        "/etc/apt/components.sources",
        "/etc/apt/preferences.d/site",
    )
    repository = vendor_repository.SOURCE_FILES["apt"]
    wanted = [dropin, ours, shared, theirs, repository, "/etc/never-written"]
    for path in wanted[:-1]:
        node.write(path)
    baseline = {
        "installed": sorted(DEBIAN),
        "wanted": {"files": wanted},
        "before": {"files": {theirs: None}},
        "directories": ["/etc/systemd/system/nvidia-persistenced.service.d", "/etc/modprobe.d"],
    }
    node.write(f"{STATE}/baselines/nvidia_driver.json", json.dumps(baseline))
    node.receipt(files={ours: "digest"})
    node.write(
        f"{STATE}/receipts/cuda_toolkit.json", json.dumps({"files": {}, "earlier": {"files": {shared: "digest"}}})
    )
    if had_to_go:
        take(node)
        node.packages({"gcc": "4:12.2.0-3"})
    assert back(node) == ("driver 535.309.01" if had_to_go else None)
    left = [path for path in wanted if (node.root / path.lstrip("/")).exists()]
    assert left == [ours, shared, theirs, repository]
    assert not (node.root / dropin.lstrip("/")).parent.exists()


def test_one_that_cannot_be_had_any_more_is_said_to_be_lost(node: Node) -> None:
    take(node)
    node.fails = "apt-get install --assume-yes"
    with pytest.raises(GpufleetError) as caught:
        back(node)
    assert caught.value.code == "GF-SWITCH-LOST"
    assert "driver 535.309.01" in caught.value.message
    assert "no such version" in caught.value.message


def installers(node: Node, version: str = "580.178.04") -> None:
    node.packages({"gcc": "4:12.2.0-3"})
    node.write(driver_remains.LIST, f"{version}\nNVIDIA\n")
    node.write(driver_remains.UNINSTALLER)
    node.write("lib/modules/6.1.0-47-amd64/build/Makefile")
    node.write("var/lib/dpkg/info/base-files.list", "/.\n")


def test_an_installers_driver_comes_back_from_its_installer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '#!/bin/sh\nversion_string=580.178.04\nTARGET_ARCH="x86_64"\nscript=./nvidia-installer\n# --skip-module-load\n'
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    known = {"sha256": digest, "version": "580.178.04", "architecture": "x86_64", "options": ["--silent"]}
    node.receipt(stage={"source": "runfile", "installer": {**known, "optional": ["--skip-module-load", "--no-drm"]}})
    path = runfile.cached_path("nvidia_driver", digest)
    node.write(path, text)
    installers(node)
    assert take(node) == ["the driver 580.178.04 of an installer"]
    assert not (node.root / driver_remains.LIST).exists()
    assert back(node) == "driver 580.178.04"
    ran = node.did(f"sh {node.root}{path}")[0]
    assert "--silent --skip-module-load --kernel-name=6.1.0-47-amd64" in ran
    assert "--no-drm" not in ran


def test_an_installer_that_is_not_kept_is_said_to_be_lost(node: Node) -> None:
    installers(node)
    take(node)
    with pytest.raises(GpufleetError) as caught:
        back(node)
    assert caught.value.code == "GF-SWITCH-LOST"
    assert "GF-RUNFILE-NOWHERE" in caught.value.message


def test_nvidias_entry_goes_with_the_driver_and_comes_back_with_it(node: Node) -> None:
    node.write(former_packages.Debs.entry, "Types: deb\n")
    take(node)
    assert (node.root / former_packages.Debs.entry.lstrip("/")).exists()
    driver_former.forget(node.run, STATE, str(node.root))
    take(node, Coming(packages=True, repository=False))
    assert not (node.root / former_packages.Debs.entry.lstrip("/")).exists()
    back(node)
    assert (node.root / former_packages.Debs.entry.lstrip("/")).read_text(encoding="utf-8") == "Types: deb\n"


def test_once_the_wanted_driver_is_proved_others_entries_come_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[str] = []
    monkeypatch.setattr(vendor_repository, "restore", restored.append)
    node.write(former_packages.Debs.entry, "Types: deb\n")
    take(node, Coming(packages=True, repository=False))
    assert driver_former.forget(node.run, STATE, str(node.root))
    assert restored == [str(node.root)]
    assert not driver_former.forget(node.run, STATE, str(node.root))


def test_a_run_that_was_cut_off_leaves_behind_what_it_took(node: Node) -> None:
    take(node)
    node.packages({"libcuda1": "535.309.01-1", "nvidia-kernel-dkms": "535.309.01-1", "gcc": "4:12.2.0-3"})
    take(node)
    node.packages({"gcc": "4:12.2.0-3"})
    assert back(node) == "driver 535.309.01"


def test_the_holds_of_the_former_driver_are_known(node: Node) -> None:
    node.receipt(holds={"nvidia-driver": True}, stage={"hold_kernel": True})
    assert driver_former.holds(STATE, str(node.root)) == (["nvidia-driver"], True, "", [])
    packages = ["kernel-devel", "nvidia-driver-cuda=580.*", "kmod-nvidia-open-dkms=580.*"]
    node.receipt(holds={}, stage={"versionlock": "580.*", "packages": packages})
    assert driver_former.holds(STATE, str(node.root))[2:] == ("580.*", ["kmod-nvidia-open-dkms", "nvidia-driver-cuda"])
