# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver of dnf's packages goes as a whole, with its stream and our entry, and comes back from dnf's cache."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_former,
    driver_remains,
    former_packages,
    openpgp,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_former import Coming
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from pathlib import Path

STATE = "/var/lib/gpufleet"
VERSION = "3:580.178.04-1.el9"
OURS = ("kmod-nvidia-open-dkms", "libnvidia-ml", "nvidia-driver-cuda", "xorg-x11-nvidia")
OTHERS = {"dkms": "3.0.11-1.el9", "nvidia-container-toolkit": "1.17.4-1", "nvidia-modprobe": "3:570.211.01-1.el9"}
STREAM = "etc/dnf/modules.d/nvidia-driver.module"
ENTRY = former_packages.Rpms.entry
AS_INSTALLER = Coming(packages=False, repository=False)


class Node:
    """A node of the RHEL family, and dnf and rpm as far as these functions need them."""

    def __init__(self, root: Path, versions: dict[str, str]) -> None:
        self.root = root
        self.versions = versions
        self.calls: list[str] = []
        self.fails = ""
        self.needs = ""
        self.write("etc/os-release", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n')
        self.write(ENTRY, "[gpufleet-nvidia]\n")

    def write(self, name: str, text: str = "x") -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def there(self, name: str) -> bool:
        return (self.root / name.lstrip("/")).exists()

    def enable(self, stream: str) -> None:
        self.write(STREAM, f"[nvidia-driver]\nname=nvidia-driver\nstream={stream}\nprofiles=\nstate=enabled\n")

    def cache(self, name: str) -> str:
        path = f"var/cache/dnf/gpufleet-nvidia-01/packages/{name}-{VERSION[2:]}.x86_64.rpm"
        self.write(path)
        return f"{self.root}/{path}"

    def run(self, command: list[str]) -> tuple[int, str, str]:
        said = " ".join(command)
        self.calls.append(said)
        if self.fails and self.fails in said:
            return 1, "", "Error: Unable to find a match"
        if "repoquery" in command:
            return 0, "dkms\nnvidia-driver-cuda\n", ""
        if command[:4] == ["rpm", "-q", "gpg-pubkey", "--qf"]:
            return 0, "gpg-pubkey-89abcdef-65000000\ngpg-pubkey-00000000-65000000\n", ""
        if "--test" in command and "make" in command:
            return 1, "", self.needs
        if command[:2] == ["rpm", "-qf"]:
            return 1, "", ""
        if "reset" in command:
            self.write(STREAM, "[nvidia-driver]\nname=nvidia-driver\nstream=\nprofiles=\nstate=\n")
        return 0, "", ""

    def did(self, part: str) -> list[str]:
        return [call for call in self.calls if part in call]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    this = Node(tmp_path, {**dict.fromkeys(OURS, VERSION), **OTHERS})
    for module in (driver_former, former_packages.dnf_transaction):
        for name in ("installed_versions", "rpm_versions"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_names, root="/": this.versions)
    monkeypatch.setattr(driver_former, "present", lambda _root: set(this.versions))
    return this


def take(node: Node, coming: Coming = AS_INSTALLER) -> list[str]:
    return driver_former.take_away(node.run, STATE, coming, str(node.root))


def back(node: Node) -> str | None:
    return driver_former.bring_back(node.run, STATE, str(node.root))


def test_the_packages_go_with_their_stream_and_entry(node: Node) -> None:
    node.enable("580-open")
    words = [f"package {name} {VERSION}" for name in OURS]
    assert take(node) == [*words, "the entry of NVIDIA's repository"]
    gone, reset = node.did("dnf --assumeyes remove"), node.did("module reset")
    assert gone == [f"dnf --assumeyes remove --noautoremove {' '.join(OURS)}"]
    # dnf resets no module that no repository has.
    assert node.calls.index(gone[0]) < node.calls.index(reset[0])
    assert not node.there(ENTRY)


def test_what_the_cache_lacks_of_them_is_fetched_first(node: Node) -> None:
    node.cache("kmod-nvidia-open-dkms")
    take(node)
    fetched = node.did("--downloadonly")
    assert fetched[0].endswith(
        f"reinstall -- libnvidia-ml-{VERSION} nvidia-driver-cuda-{VERSION} xorg-x11-nvidia-{VERSION}"
    )
    assert node.calls.index(fetched[0]) < node.calls.index(node.did("--assumeyes remove")[0])


def test_they_come_back_from_the_cache_with_stream_entry_and_reasons(node: Node) -> None:
    node.enable("580-open")
    files = [node.cache(name) for name in OURS]
    take(node)
    node.versions = dict(OTHERS)
    node.calls.clear()
    assert back(node) == "driver 580.178.04"
    enabled, installed = node.did("module enable"), node.did("install --")
    assert enabled == ["dnf -q -y --setopt=exit_on_lock=True module enable --cacheonly nvidia-driver:580-open"]
    assert installed[0].endswith("--cacheonly install -- " + " ".join(files))
    assert node.calls.index(enabled[0]) < node.calls.index(installed[0])
    assert node.did("mark") == ["dnf -q -y --cacheonly mark remove kmod-nvidia-open-dkms libnvidia-ml xorg-x11-nvidia"]
    assert node.there(ENTRY)
    assert back(node) is None


def test_where_dnf_cannot_say_who_asked_somebody_asked_for_each(node: Node) -> None:
    node.fails = "repoquery"
    take(node)
    node.versions = dict(OTHERS)
    assert back(node) == "driver 580.178.04"
    assert not node.did("mark")


def test_packages_that_cannot_be_had_are_said_to_be_lost(node: Node) -> None:
    take(node)
    node.versions = dict(OTHERS)
    node.fails = "install --"
    with pytest.raises(GpufleetError) as caught:
        back(node)
    assert caught.value.code == "GF-SWITCH-LOST"
    assert "GF-DNF-FAILED" in caught.value.message


def test_packages_that_came_in_an_installers_place_go_with_their_stream(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"installer": {"version": "570.211.01"}}
    node.write(f"{STATE}/receipts/nvidia_driver.json", json.dumps({"stage": known}))
    node.write(f"{STATE}/baselines/nvidia_driver.json", json.dumps({"installed": sorted(OTHERS)}))
    node.versions = dict(OTHERS)
    node.write(driver_remains.LIST, "570.211.01\nNVIDIA\n")
    node.write(driver_remains.UNINSTALLER)
    ran: list[str] = []
    monkeypatch.setattr(driver_former, "_run_installer", lambda *words: ran.append(words[2]))
    node.enable("580-open")  # by the role, before the packages
    assert take(node, Coming(packages=True, repository=True)) == ["the driver 570.211.01 of an installer"]
    assert not node.did("module")
    # dracut came for the packages' sake; of make something else has a use by now.
    node.versions = {**dict.fromkeys(OURS, VERSION), **OTHERS, "dracut": "1-1", "make": "1-1"}
    monkeypatch.setattr(driver_former.removal_baseline, "present", lambda _root: set(node.versions))
    node.needs = "\tmake is needed by (installed) editor-1-1.x86_64\n"
    assert back(node) == "driver 570.211.01"
    assert node.did("--assumeyes remove")[0].split()[4:] == sorted([*OURS, "dracut"])
    assert node.did("module reset")
    assert ran == ["570.211.01"]


def test_a_proved_installer_takes_the_repositorys_key_along(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    take(node)
    node.write(vendor_repository.KEY_FILES["dnf"])
    key = openpgp.Key("0123456789ABCDEF0123456789ABCDEF89ABCDEF", None, 0, 0)
    monkeypatch.setattr(openpgp, "keys", lambda _data: [key])
    assert driver_former.forget(node.run, STATE, str(node.root))
    assert node.did("rpm -e gpg") == ["rpm -e gpg-pubkey-89abcdef-65000000"]
    assert not node.there(vendor_repository.KEY_FILES["dnf"])


def test_what_is_cut_off_remembers_the_stream(node: Node) -> None:
    node.enable("580-open")
    take(node)
    take(node)  # the stream is reset by now
    node.versions = dict(OTHERS)
    assert back(node) == "driver 580.178.04"
    assert node.did("module enable")
