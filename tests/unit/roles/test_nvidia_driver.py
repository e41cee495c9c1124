"""The role nvidia_driver where it must not work: a process uses the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .playing import play


def driver_plan() -> dict[str, Any]:
    stage = {
        "wanted": True, "needed": True, "digest": "0", "version": "535", "source": "distro", "flavour": "proprietary",
        "components": [], "packages": ["nvidia-smi"], "obsolete": [], "hold": [], "repository": None, "pin": None,
        "blacklist": ["nouveau"], "sysroot": "/",
    }  # fmt: skip
    gpu = {"driver": {"loaded_version": "535.261.03"}, "busy": [], "reboot_needed": False}
    node = {"package_manager": "apt", "packages_interrupted": False, "initramfs": False}
    return {"ok": True, "stages": {"nvidia_driver": stage}, "facts": {"gpu": gpu, "node": node}}


def node_with(tmp_path: Path, *, job: bool) -> str:
    """The variable that makes the role look at a made-up node."""
    folder = tmp_path / "node/proc/4711"
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text("python\n")
    (folder / "status").write_text("Uid:\t1001\t1001\t1001\t1001\n")
    (folder / "fd/3").symlink_to("/dev/nvidia0" if job else "/dev/null")
    return json.dumps({"__nvidia_driver_root": str(tmp_path / "node"), "ansible_become": False})


def test_a_driver_in_use_is_left_alone_and_its_users_are_named(tmp_path: Path) -> None:
    # A dry run, so that a role which went on would still change nothing on the machine that tests.
    code, output = play(tmp_path, "nvidia_driver", driver_plan(), "--check", "-e", node_with(tmp_path, job=True))
    assert code == 2, output
    assert "GF-GPU-BUSY" in output
    assert "python (4711)" in output
    assert "Make the directory of module settings" not in output


def test_an_idle_driver_is_worked_on(tmp_path: Path) -> None:
    _code, output = play(tmp_path, "nvidia_driver", driver_plan(), "--check", "-e", node_with(tmp_path, job=False))
    assert "GF-GPU-BUSY" not in output
    assert "Keep competing drivers from taking the GPU" in output
