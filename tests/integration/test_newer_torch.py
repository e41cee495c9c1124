"""A newer torch, in the PyTorch project's own CPU build: planned, locked, installed and checked as far as level standard goes.

The wheel is the real one, which pip fetches from the project's index or from where its own settings say. The index that is asked
for it by a run is a stand-in (tests/tools/wheel_index.py): only this build, below the name that the project's index gives it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import tomllib

from .conftest import ROOT, Run, World, fresh

sys.path.insert(0, str(ROOT / "tests/tools"))
import wheel_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

RELEASE, BUILD = "2.13.0", "2.13.0+cpu"
PYTHON, PLATFORM = "3.11", "manylinux_2_28_x86_64"  # Debian 12's
BUILDS = "https://download.pytorch.org/whl/cpu"
COUNT = "/var/log/module-executions"
ENVIRONMENT = {"name": "default", "torchvision": "none", "torchaudio": "none"}


class House(NamedTuple):
    """The node, the index of builds and the wheel in it."""

    world: World
    index: wheel_index.Index
    wheel: Path

    def play(self, **wanted: Any) -> Run:
        wishes = {
            "pytorch_builds_index_url": self.index.simple.rpartition("/")[0],
            "pytorch_version": RELEASE,
            "pytorch_cuda": "cpu",
            "pytorch_environments": [ENVIRONMENT],
            "verify_level": "standard",
            "gpufleet_lock_directory": str(self.world.work / "locks"),
        }
        return self.world.play(**{**wishes, **wanted})


def bring(folder: Path) -> Path:
    """The build's wheel."""
    folder.mkdir()
    only = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--platform", PLATFORM]
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries", "0", "--dest", str(folder), *only]
    subprocess.run([*command, "--extra-index-url", BUILDS, f"torch=={BUILD}"], check=True)
    return next(folder.glob("torch-*.whl"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    work = tmp_path_factory.mktemp("newer")
    wheel = bring(work / "wheels")
    with fresh("newer", work) as world:
        index = wheel_index.Index(wheel.parent, world.sh("node", "ip route show default").split()[2])
        threading.Thread(target=index.serve_forever, daemon=True).start()
        try:
            yield House(world, index, wheel)
        finally:
            index.shutdown()


def test_the_build_is_installed_and_passes_level_standard(house: House) -> None:
    run = house.play()
    assert run.rc == 0, run.stdout
    node = "/opt/gpufleet/envs/default/current/bin/python"
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.zeros(5, 3).sum().item())"
    assert house.world.sh("node", f"{node} -c '{code}'") == f"{BUILD} None 0.0"

    verdict = json.loads(house.world.sh("node", "cat /var/lib/gpufleet/verdict.json"))
    checks = {check["name"]: check for check in verdict["environments"][0]["checks"]}
    assert (verdict["ok"], verdict["level"], checks["torch_version"]["measured"]) == (True, "standard", BUILD)
    computed = ("mlp_training", "fine_tuning", "compile", "transformer_training", "checkpoint", "data_loader")
    assert {name: checks[name]["status"] for name in computed} == dict.fromkeys(computed, "passed")


def test_the_lock_has_this_file_and_nothing_of_a_cuda_build(house: House) -> None:
    # The node's uv has a lock of its own beside it.
    (lock,) = (house.world.work / "locks").glob("pylock.default*.toml")
    packages = {package["name"]: package for package in tomllib.loads(lock.read_text(encoding="utf-8"))["packages"]}
    torch = packages["torch"]
    (wheel,) = torch["wheels"]
    digest = hashlib.sha256(house.wheel.read_bytes()).hexdigest()
    assert (torch["version"], wheel["hashes"]["sha256"]) == (BUILD, digest)
    assert [name for name in packages if name.startswith(("nvidia", "cuda", "triton"))] == []
    # torch came from the index of builds, and nothing else did.
    assert {name.partition("-")[0] for _client, name, _first in house.index.asked} == {"torch"}


def test_a_run_without_changes_is_one_module_execution(house: House) -> None:
    house.world.sh("node", f"rm -f {COUNT}")
    run = house.play()
    assert (run.rc, run.changed("node")) == (0, 0), run.stdout
    assert house.world.sh("node", f"cat {COUNT} | wc -l") == "1"
