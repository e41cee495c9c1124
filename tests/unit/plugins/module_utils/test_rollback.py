# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stage goes back to; the real apt is asked in a tree of its own, with real packages that hold nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import receipts, rollback, vendor_repository
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

STATE = "/var/lib/gpufleet"
TOOLS = all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb"))
needs_apt = pytest.mark.skipif(not TOOLS, reason="apt is not installed")
OLD, NEW, MODPROBE = "535.216.03-1", "550.163.01-2", "1:535.161.07-1"
STAGE = {
    "version": "535", "packages": ["linux-headers-6.1", "nvidia-driver"], "obsolete": ["nvidia-tesla-470-driver"], "wanted": True,
    "digest": "old", "repository": {"url": "https://user:secret@mirror.example.org"}, "why": ["x"], "needed": True,
}  # fmt: skip
FORMER = {
    "schema": 1, "role": "nvidia_driver", "digest": "old", "packages": {"linux-headers-6.1": "1", "nvidia-driver": OLD},
    "stage": rollback.keepable("nvidia_driver", STAGE),
    "versions": {"linux-headers-6.1": "1", "nvidia-driver": OLD, "libcuda1": OLD, "nvidia-modprobe": MODPROBE},
}  # fmt: skip
NOW = {
    **FORMER, "digest": "new", "packages": {"nvidia-driver": NEW},
    "versions": {"nvidia-driver": NEW, "libcuda1": NEW, "nvidia-open-kernel-dkms": NEW, "linux-headers-6.1": "2"},
}  # fmt: skip


class Node:
    """A tree with dpkg's and apt's own directories."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "etc/apt/sources.list.d",
            "var/log/apt",
        ):
            (root / folder).mkdir(parents=True)
        (root / "apt.conf").write_text(
            f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\nAPT::Architecture "amd64";\n'
            'APT::Sandbox::User "root";\n'
        )

    def installed(self, versions: dict[str, str]) -> None:
        (self.root / "var/lib/dpkg").mkdir(exist_ok=True)
        (self.root / "var/lib/dpkg/status").write_text(
            "".join(
                f"Package: {name}\nStatus: install ok installed\nArchitecture: all\nMaintainer: n\nVersion: {version}\n"
                "Description: x\n\n"
                for name, version in versions.items()
            )
        )

    def keep(self, name: str, version: str, depends: str = "") -> Path:
        """A package in apt's cache."""
        tree = self.root / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: n <n@example.org>\n"
            + (f"Depends: {depends}\n" if depends else "")
            + "Description: x\n"
        )
        path = self.root / f"var/cache/apt/archives/{name}_{version.replace(':', '%3a')}_all.deb"
        subprocess.run(["dpkg-deb", "--build", str(tree), str(path)], check=True, capture_output=True)
        shutil.rmtree(tree)
        return path

    def write(self, path: str, data: dict[str, Any]) -> None:
        receipts.write_json(str(self.root / path.lstrip("/")), data)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout, done.stderr

    def find(self, role: str = "nvidia_driver", **more: bool) -> rollback.Way:
        return rollback.find(role, STATE, self.run, str(self.root), **more)

    def traces(self) -> list[str]:
        return [str(path) for path in self.root.rglob("*rollback*")]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose driver went from 535 to 550."""
    this = Node(tmp_path)
    this.installed(NOW["versions"])
    this.write(f"{STATE}/receipts/nvidia_driver.json", NOW)
    this.write(f"{STATE}/former/nvidia_driver.json", FORMER)
    return this


def keep_all(node: Node) -> None:
    node.keep("nvidia-driver", OLD, f"libcuda1 (= {OLD}), nvidia-modprobe")
    node.keep("libcuda1", OLD)
    node.keep("nvidia-modprobe", MODPROBE)


@needs_apt
def test_the_former_driver_comes_from_the_cache(node: Node) -> None:
    keep_all(node)
    way = node.find()
    assert way.back_to == f"driver {OLD}"
    assert way.cached == ["libcuda1", "nvidia-driver", "nvidia-modprobe"]
    assert way.automatic == ["libcuda1"]
    # The driver's own packages go back together; headers that were upgraded since stay.
    assert way.stage["packages"] == [f"libcuda1={OLD}", f"nvidia-driver={OLD}", "linux-headers-6.1"]
    assert way.stage["obsolete"] == ["nvidia-open-kernel-dkms", "nvidia-tesla-470-driver"]
    assert (way.stage["back"], way.stage["needed"], way.stage["digest"]) == (True, True, "old")
    assert way.stage["repository"] is None
    code, out, _err = node.run(
        [
            "apt-get",
            "install",
            "--print-uris",
            "-y",
            "--allow-downgrades",
            "--no-install-recommends",
            *way.stage["packages"],
        ]
    )
    assert code == 0
    assert "http" not in out
    assert rollback.withdraw(str(node.root)) is True
    assert node.traces() == []
    assert rollback.withdraw(str(node.root)) is False


@needs_apt
@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_package_that_nobody_has_leaves_the_node_as_it_is(node: Node, damage: str) -> None:
    keep_all(node)
    path = node.root / f"var/cache/apt/archives/libcuda1_{OLD}_all.deb"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(GpufleetError) as caught:
        node.find()
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"
    assert "libcuda1" in str(caught.value)
    assert node.traces() == []


@needs_apt
def test_lists_that_cannot_be_read_leave_no_source_behind(node: Node) -> None:
    keep_all(node)
    run = node.run
    node.run = lambda command: (100, "", "E: no") if command[:2] == ["apt-get", "update"] else run(command)  # type: ignore[method-assign]
    with pytest.raises(GpufleetError) as caught:
        node.find()
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"
    assert node.traces() == []


def test_a_dry_run_writes_nothing(node: Node) -> None:
    assert node.find(dry=True).stage["packages"][1] == f"nvidia-driver={OLD}"
    assert node.traces() == []


@needs_apt
def test_work_that_failed_goes_back_to_the_present_receipt(node: Node) -> None:
    """575 was begun: one package of it is there in whatever state, and one of the present driver is gone."""
    node.write(f"{STATE}/receipts/nvidia_driver.json", FORMER)
    node.write(
        f"{STATE}/baselines/nvidia_driver.json",
        {"installed": ["nvidia-driver", "libcuda1", "nvidia-modprobe", "linux-headers-6.1"]},
    )
    node.installed(
        {
            "nvidia-driver": OLD,
            "nvidia-dkms-575": "575.1.1-1",
            "nvidia-modprobe": MODPROBE,
            "linux-headers-6.1": "1",
        }
    )
    keep_all(node)
    way = node.find(unfinished=True)
    assert way.stage["obsolete"] == ["nvidia-dkms-575", "nvidia-tesla-470-driver"]
    assert f"libcuda1={OLD}" in way.stage["packages"]
    assert way.cached == ["libcuda1"]


@pytest.mark.parametrize("former", [None, {**FORMER, "stage": None}])
def test_without_a_former_receipt_there_is_nothing(node: Node, former: dict[str, Any] | None) -> None:
    path = node.root / "var/lib/gpufleet/former/nvidia_driver.json"
    path.unlink()
    if former:
        path.write_text(json.dumps(former))
    with pytest.raises(GpufleetError) as caught:
        node.find()
    assert caught.value.code == "GF-ROLLBACK-NOTHING"


def test_a_toolkit_goes_back_where_its_directory_is_still_there(node: Node) -> None:
    toolkits = [
        {"version": "13.0", "path": "/opt/gpufleet/cuda/13.0", "index_url": "https://user:secret@x", "wheels": [1]}
    ]
    stage = rollback.keepable("cuda_toolkit", {"default": "13.0", "toolkits": toolkits, "digest": "old"})
    node.write(f"{STATE}/former/cuda_toolkit.json", {**FORMER, "role": "cuda_toolkit", "stage": stage})
    with pytest.raises(GpufleetError) as caught:
        node.find("cuda_toolkit")
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"
    (node.root / "opt/gpufleet/cuda/13.0").mkdir(parents=True)
    way = node.find("cuda_toolkit")
    assert (way.back_to, way.stage["default"], way.stage["needed"]) == ("CUDA toolkit 13.0", "13.0", True)


def test_no_password_is_kept() -> None:
    toolkits = [{"version": "13.0", "path": "/x", "index_url": "https://user:secret@x", "wheels": [{"url": "secret"}]}]
    kept = [rollback.keepable("nvidia_driver", STAGE), rollback.keepable("cuda_toolkit", {"toolkits": toolkits})]
    assert "secret" not in json.dumps(kept)
    assert rollback.keepable("python", STAGE) is None


@pytest.mark.parametrize(
    ("receipt", "kept"),
    [
        ({**FORMER, "digest": "new"}, True),
        ({**FORMER, "packages": {"nvidia-driver": NEW}}, True),
        ({**FORMER, "written_at": "later"}, False),
    ],
)
def test_the_receipt_before_is_kept_where_another_takes_its_place(
    tmp_path: Path, receipt: dict[str, Any], kept: bool
) -> None:
    rollback.keep_former(str(tmp_path), FORMER, receipt)
    assert (tmp_path / "former/nvidia_driver.json").exists() is kept


@pytest.mark.parametrize(("receipt", "kept"), [({**FORMER, "packages": {}}, False), (NOW, True)])
def test_the_repository_that_comes_again_is_no_reason_to_forget_what_was_before(
    tmp_path: Path, receipt: dict[str, Any], kept: bool
) -> None:
    rollback.keep_former(str(tmp_path), {**FORMER, "digest": rollback.NO_REPOSITORY}, receipt)
    assert (tmp_path / "former/nvidia_driver.json").exists() is kept


def test_what_removal_left_is_no_state_to_go_back_to(tmp_path: Path) -> None:
    for former in (None, {**FORMER, "digest": "removed"}, {**FORMER, "stage": None}):
        rollback.keep_former(str(tmp_path), former, NOW)
    assert list(tmp_path.iterdir()) == []


RPM_OLD, RPM_NEW = "3:570.211.01-1.el9", "3:580.178.04-1.el9"
RPM_STAGE = {
    "version": "570", "source": "nvidia", "packages": ["kernel-devel=5.14.0-427.13.1.el9_4", "nvidia-driver-cuda=570.*"], "obsolete": [],
    "wanted": True, "digest": "old", "module_stream": "nvidia-driver:570-open", "versionlock": None,
}  # fmt: skip


def el(root: Path, *, cached: bool) -> None:
    """A node of the RHEL family on which 580 took the place of 570."""
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    (root / ".gpufleet").mkdir()
    now = {"nvidia-driver-cuda": RPM_NEW, "nvidia-driver-cuda-libs": RPM_NEW, "nvidia-new": RPM_NEW, "dkms": "3-1"}
    (root / ".gpufleet/rpm.json").write_text(json.dumps(now))
    versions = {
        "kernel-devel": "5.14.0-427.13.1.el9_4", "nvidia-driver-cuda": RPM_OLD, "nvidia-driver-cuda-libs": RPM_OLD,
    }  # fmt: skip
    former = {
        "role": "nvidia_driver", "digest": "old", "packages": {}, "versions": versions,
        "stage": rollback.keepable("nvidia_driver", RPM_STAGE),
    }  # fmt: skip
    receipts.write_json(f"{root}{STATE}/former/nvidia_driver.json", former)
    receipts.write_json(
        f"{root}{STATE}/receipts/nvidia_driver.json", {"packages": {"nvidia-driver-cuda": RPM_NEW}, "versions": now}
    )
    if cached:
        folder = root / "var/cache/dnf/gpufleet-nvidia-0/packages"
        folder.mkdir(parents=True)
        for name in ("nvidia-driver-cuda", "nvidia-driver-cuda-libs"):
            (folder / f"{name}-570.211.01-1.el9.x86_64.rpm").touch()


def test_with_dnf_the_files_of_its_cache_are_asked_about_past_the_streams(tmp_path: Path) -> None:
    el(tmp_path, cached=True)
    said: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(command)
        return 1, "", "Operation aborted."

    way = rollback.find("nvidia_driver", STATE, run, str(tmp_path))
    assert way.stage["packages"] == [
        f"nvidia-driver-cuda={RPM_OLD}", f"nvidia-driver-cuda-libs={RPM_OLD}", "kernel-devel=5.14.0-427.13.1.el9_4",
    ]  # fmt: skip
    assert way.stage["module_stream"] == "nvidia-driver:570-open"
    assert way.stage["obsolete"] == ["nvidia-new"]
    assert way.cached == ["nvidia-driver-cuda", "nvidia-driver-cuda-libs"]
    assert any(word.endswith("nvidia-driver-cuda-570.211.01-1.el9.x86_64.rpm") for word in said[0])
    assert "--setopt=gpufleet-nvidia.module_hotfixes=True" in said[0]


@pytest.mark.parametrize(("entry", "digest"), [(True, "old"), (False, rollback.NO_REPOSITORY)])
def test_packages_that_come_back_without_their_repository_are_work_for_the_next_run(
    tmp_path: Path, entry: bool, digest: str
) -> None:
    el(tmp_path, cached=True)
    path = tmp_path / vendor_repository.SOURCE_FILES["dnf"].lstrip("/")
    path.parent.mkdir(parents=True)
    if entry:
        path.touch()
    way = rollback.find("nvidia_driver", STATE, lambda _command: (1, "", "Operation aborted."), str(tmp_path))
    assert way.stage["digest"] == digest


def test_with_dnf_what_cannot_be_had_any_more_is_said(tmp_path: Path) -> None:
    el(tmp_path, cached=False)
    with pytest.raises(GpufleetError) as caught:
        rollback.find("nvidia_driver", STATE, lambda _command: (1, "", "Error: Unable to find a match"), str(tmp_path))
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"


def of_installer(version: str, digest: str) -> dict[str, Any]:
    """The receipt of a driver of NVIDIA's installer."""
    installer = {
        "url": "https://user:secret@mirror.example.org/x.run",
        "sha256": digest,
        "version": version,
        "architecture": "x86_64",
    }
    stage = {"version": version, "source": "runfile", "packages": ["dkms"], "wanted": True, "digest": version}
    stage["installer"] = {**installer, "options": ["--silent"], "optional": ["--skip-module-load"]}
    kept = rollback.keepable("nvidia_driver", stage)
    return {
        "schema": 1,
        "role": "nvidia_driver",
        "digest": version,
        "packages": {"dkms": "3"},
        "stage": kept,
        "versions": {"dkms": "3"},
    }


def test_an_installers_driver_is_gone_back_to_where_its_installer_is_kept(tmp_path: Path) -> None:
    data = b"#!/bin/sh\n"
    digest = hashlib.sha256(data).hexdigest()
    state = tmp_path / STATE.lstrip("/")
    receipts.write_json(str(state / "former/nvidia_driver.json"), of_installer("570.211.01", digest))
    receipts.write_json(str(state / "receipts/nvidia_driver.json"), of_installer("580.178.04", "b" * 64))
    assert "secret" not in (state / "former/nvidia_driver.json").read_text(encoding="utf-8")
    with pytest.raises(GpufleetError) as caught:
        rollback.find("nvidia_driver", STATE, lambda _command: (0, "", ""), root=str(tmp_path))
    assert caught.value.code == "GF-ROLLBACK-UNAVAILABLE"
    kept = tmp_path / f"var/cache/gpufleet-runfiles/nvidia_driver/{digest}.run"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    way = rollback.find("nvidia_driver", STATE, lambda _command: (0, "", ""), root=str(tmp_path))
    assert way.stage["installer"]["url"] == f"/var/cache/gpufleet-runfiles/nvidia_driver/{digest}.run"
    assert way.stage["replaces"] == {"source": "runfile", "version": "580.178.04", "packages": []}
    assert (way.stage["needed"], way.stage["back"], way.cached) == (True, True, [])
