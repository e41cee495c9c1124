"""The roles python and pytorch, run by Ansible on this machine with a plan that is given."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from .playing import play


def python_plan(interpreter: str, **more: Any) -> dict[str, Any]:
    stage = {"needed": True, "digest": "0", "packages": [], "interpreter": interpreter, "provider": "installed"}
    stage.update(interpreters=[{"path": interpreter, "provider": "installed"}], managed=[], uv=None)
    return {
        "ok": True,
        "stages": {"python": {**stage, **more}},
        "facts": {"node": {"package_manager": "apt", "packages_interrupted": False}},
    }


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_an_interpreter_that_makes_no_environments(tmp_path: Path, options: tuple[str, ...]) -> None:
    broken = tmp_path / "python3.11"
    broken.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named '_ssl'\" >&2\nexit 1\n")
    broken.chmod(0o755)
    code, output = play(tmp_path, "python", python_plan(str(broken)), *options)
    if options:
        assert code == 0, output
    else:
        assert code == 2
        assert "GF-PYTHON-INCOMPLETE" in output
        assert "No module named '_ssl'" in output


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    code, output = play(tmp_path, "python", python_plan("/nowhere/python3.11"))
    assert code == 2
    assert "GF-PYTHON-INCOMPLETE: /nowhere/python3.11 cannot make environments" in output


def test_a_dry_run_says_which_interpreter_would_come_and_never_from_where(tmp_path: Path) -> None:
    managed = {
        "version": "3.11",
        "full_version": "3.11.18",
        "release": "20261110",
        "architecture": "x86_64",
        "sha256": "0" * 64,
        "size": None,
        "path": str(tmp_path / "opt/python/3.11.18-20261110"),
        "interpreter": str(tmp_path / "opt/python/3.11.18-20261110/bin/python3.11"),
    }
    uv = {"version": "0", "url": "http://127.0.0.1:9/uv.whl", "sha256": "0", "size": None}
    plan = python_plan(managed["interpreter"], provider="managed", managed=[managed], uv=uv)
    mirror = "http://reader:hunter2@mirror.example/pythons"
    code, output = play(tmp_path, "python", plan, "--check", "--diff", "-vvv", "-e", f"python_mirror={mirror}")
    assert code == 0, output
    assert "CPython 3.11.18" in output
    assert managed["path"] in output
    assert not (tmp_path / "opt").exists()
    assert "hunter2" not in output.replace(f"python_mirror={mirror}", "")


def test_a_receipt_that_holds_leaves_the_role_out(tmp_path: Path) -> None:
    code, output = play(tmp_path, "python", python_plan("/nowhere/python3.11", needed=False))
    assert code == 0
    assert "changed=0" in output


def test_a_dry_run_of_pytorch_says_what_it_would_do(tmp_path: Path) -> None:
    text = '[[packages]]\nname = "torch"\nversion = "2.0.1"\n'
    environment = {
        "name": "default",
        "module": "2.0.1-cu117",
        "path": str(tmp_path / "opt/envs/default/2.0.1-cu117-py311-0"),
        "link": str(tmp_path / "opt/envs/default/current"),
        "interpreter": sys.executable,
        "torch_version": "2.0.1+cu117",
        "cuda": None,
        "torchvision": "0.15.2",
        "torchaudio": None,
        "lock": {"text": text, "sha256": "deadbeef"},
    }
    uv = {"version": "0", "url": "http://127.0.0.1:9/uv.whl", "sha256": "0", "size": None}
    stage = {"needed": True, "digest": "0", "environments": [environment], "uv": uv}
    stage.update(cache_dir=str(tmp_path / "cache"), profile=True, modulefiles=None, kernels=True, keep=2)
    plan = {"ok": True, "stages": {"pytorch": stage}}
    # A prefix of its own, so that the profile differs also where this machine was provisioned itself.
    options = ("--check", "--diff", "-e", f"gpufleet_prefix={tmp_path}/opt")
    code, output = play(tmp_path, "pytorch", plan, *options)
    assert code == 2
    assert "GF-LOCK-INVALID" in output, output
    environment["lock"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    code, output = play(tmp_path, "pytorch", plan, *options)
    assert code == 0, output
    assert "2.0.1-cu117-py311-0" in output
    assert "gpufleet_activate() {" in output
    assert "PyTorch 2.0.1+cu117 (default)" in output
    assert not (tmp_path / "opt").exists()
