"""The tasks of nvidia_driver that keep its work from costing anybody a job, run by Ansible on a made-up node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import playing

NEW = "535.309.01"
PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: gpufleet.stack.nvidia_driver
        tasks_from: {tasks}
    - ansible.builtin.debug:
        msg: "came through, reboot {{{{{{{{ nvidia_driver_reboot_needed | default('unknown') }}}}}}}}"
"""


def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str, sysroot: str = "/", **more: object) -> str:
    """Plays one file of tasks; become is for real nodes only."""
    stage = {"sysroot": sysroot, "source": "distro", "packages": [], "needed": True}
    node = {"package_manager": "apt", "initramfs": False}
    gpu = {"driver": {"loaded_version": "535.261.03"}}
    plan = {"ok": True, "stages": {"nvidia_driver": stage}, "facts": {"gpu": gpu, "node": node}}
    given = {"__nvidia_driver_root": str(tmp_path / "node"), "ansible_become": False, **more}
    monkeypatch.setattr(playing, "PLAYBOOK", PLAYBOOK.format(tasks=tasks))
    return playing.play(tmp_path, "-", plan, "-e", json.dumps(given))[1]


@pytest.fixture
def job(tmp_path: Path) -> None:
    folder = tmp_path / "node/proc/4711"
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text("python\n")
    (folder / "status").write_text("Uid:\t1001\t1001\t1001\t1001\n")
    (folder / "fd/3").symlink_to("/dev/nvidia0")


@pytest.mark.usefixtures("job")
def test_a_job_is_named_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = play(tmp_path, monkeypatch, "idle")
    assert "GF-GPU-BUSY" in output
    assert "python (4711) of 1001 on /dev/nvidia0" in output
    assert "came through" not in output
    assert "came through" in play(tmp_path, monkeypatch, "idle", sysroot="/recorded")


def test_an_idle_node_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "came through" in play(tmp_path, monkeypatch, "idle")


def test_secure_boot_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "came through" in play(tmp_path, monkeypatch, "secure_boot")
    enforced = tmp_path / "node/sys/module/module/parameters/sig_enforce"
    enforced.parent.mkdir(parents=True)
    enforced.write_text("Y\n")
    assert "GF-SECURE-BOOT-UNSIGNED" in play(tmp_path, monkeypatch, "secure_boot")


@pytest.mark.usefixtures("job")
def test_what_can_not_be_swapped_is_said_and_not_rebooted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = {"version": NEW, "reboot_needed": True, "reason": "another driver is loaded"}
    output = play(tmp_path, monkeypatch, "activate", __nvidia_driver_check=check, gpufleet_reboot=True)
    assert "reboot needed: processes use the GPU: python (4711)" in output
    assert "came through, reboot True" in output
    output = play(tmp_path, monkeypatch, "activate", sysroot="/recorded", __nvidia_driver_check=check)
    assert "reboot needed: another driver is loaded" in output
