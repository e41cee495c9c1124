"""Real environments of torch 2.0.1 from plan to training: resolved, locked on the index, built, proved, and fine-tuned in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import environments
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file, locks, planning
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import RunLocks
from ansible_collections.gpufleet.stack.tests.unit.plugins.plugin_utils.factory import facts

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "uv"
FINETUNE = Path(__file__).with_name("finetune.py")
PROFILE = ("accelerate", "datasets", "peft", "tensorboard", "transformers")


@pytest.fixture(params=["3.8", "3.11"])
def interpreter(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A Python of this machine, with its version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*pyenv.glob(f"{request.param}.*/bin/python{request.param}"), shutil.which(f"python{request.param}")]
    usable = [str(path) for path in found if path and os.access(path, os.X_OK)]
    if not usable:
        pytest.skip(f"this machine has no Python {request.param}")
    return request.param, os.path.realpath(usable[0])


@pytest.fixture
def place() -> Iterator[Path]:
    """A prefix on the cache's file system, where files are linked and not copied."""
    folder = ROOT / ".cache" / "with-torch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def plan(place: Path, python: tuple[str, str]) -> dict[str, Any]:
    """The plan of a Debian node with this Python, which has a GPU: the package index has the build that it gets."""
    seen = facts("a100")
    seen["node"]["pythons"] = [{"version": python[0], "path": python[1], "provider": "installed"}]
    environment = {"name": "llm", "python": python[0], "profile": "finetune"}
    wanted = {"pytorch_environments": [environment], "gpufleet_prefix": str(place), "python_provider": "installed"}
    run = RunLocks(str(place / "locks"), write=True)
    made = planning.make_plan({**seen, "receipts": {}, "verdict": None}, wanted, run)
    assert made["ok"], made["conflicts"]
    found: dict[str, Any] = made["stages"]["pytorch"]["environments"][0]
    return found


# torch 2.0 does not compile on Python 3.11; the check says so in torch's own words.
COMPILED = {"3.8": "passed", "3.11": "skipped"}


def levels_checks(python: str, script: Path) -> dict[str, str]:
    """What level standard adds on the CPU, with its outcome."""
    command = [python, str(script), "--json", "--level", "standard"]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=variables)
    assert answer.stdout, answer.stderr
    checks = {check["name"]: check for check in json.loads(answer.stdout)["checks"]}
    return {name: check["status"] for name, check in checks.items() if name in STANDARD}


STANDARD = {
    "amp_training", "checkpoint", "compile", "convolutional_training", "cuda_extension", "data_loader", "lora", "transformer_training",
}  # fmt: skip


def test_torch_2_0_1_is_built_from_its_lock_and_fine_tunes(
    place: Path, interpreter: tuple[str, str], script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(CACHE))
    monkeypatch.setenv("UV_SYSTEM_CERTS", "1")
    environment = plan(place, interpreter)
    assert environment["interpreter"] == interpreter[1]
    uv = place / f"tools/uv-{locks.uv_version()}/uv"
    uv.parent.mkdir(parents=True)
    uv.symlink_to(locks.uv_path())
    result = environments.ensure(
        Wanted(
            **{key: environment[key] for key in ("name", "path", "link", "interpreter", "torch_version", "cuda")},
            lock_text=environment["lock"]["text"],
            lock_sha256=environment["lock"]["sha256"],
            companions={name: environment[name] for name in ("torchvision", "torchaudio")},
            uv={"version": locks.uv_version(), "url": "", "sha256": "", "size": None},
            prefix=str(place),
            cache_dir=str(CACHE),
        )
    )
    assert result["action"] == "built"
    python = f"{environment['link']}/bin/python"
    answer = subprocess.run([python, "-I", FINETUNE], capture_output=True, text=True, check=False, timeout=600)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout.splitlines()[-1])
    locked = {wheel["name"]: wheel["version"] for wheel in lock_file.parse("lock", environment["lock"]["text"]).wheels}
    assert told["versions"]["torch"] == "2.0.1+cu117"
    assert {name: told["versions"][name] for name in PROFILE} == {name: locked[name] for name in PROFILE}
    assert told["versions"]["numpy"].startswith("1.")
    assert told["losses"][-1] < told["losses"][0]
    assert "adapter_model.safetensors" in told["written"]
    assert told["events"] == 1
    pip = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    assert pip.returncode == 0, pip.stderr
    assert levels_checks(python, script) == {
        "amp_training": "passed",
        "checkpoint": "passed",
        "compile": COMPILED[interpreter[0]],
        "convolutional_training": "passed",
        "cuda_extension": "skipped",
        "data_loader": "passed",
        "lora": "passed",
        "transformer_training": "passed",
    }
