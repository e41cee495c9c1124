"""The role plan as a person starts it, with an index on this machine that wants a password and counts what it is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import TORCH, Index, build_wheel, serve

ROOT = Path(__file__).parents[3]
WORD = "gr8secret"
PLAY = [{"hosts": "all", "gather_facts": False, "roles": ["gpufleet.stack.plan"]}]
# Two nodes, which are both this machine: each is planned in a process of its own.
NODES = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in ("n1", "n2")}


def stock(folder: Path) -> None:
    """What an environment of torch 2.0.1 needs, and uv, as tiny wheels."""
    for build in ("", "+cpu", "+cu118"):
        for name, version in (("torch", "2.0.1"), ("torchvision", "0.15.2"), ("torchaudio", "2.0.2")):
            build_wheel(folder, name, f"{version}{build}", TORCH if name == "torch" else {f"{name}.py": ""})
    for name, version in (("numpy", "1.26.4"), ("pip", "26.0"), ("setuptools", "81.0"), ("uv", locks.uv_version())):
        build_wheel(folder, name, version, {f"{name}.py": ""})


class Site:
    """An inventory of two nodes, an index, and where everything of a run is written."""

    def __init__(self, directory: Path, index: Index) -> None:
        self.directory = directory
        self.index = index
        self.locks = directory / "locks"

    def play(self, *options: str, **wishes: Any) -> str:
        (self.directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": NODES}}))
        (self.directory / "plan.yml").write_text(yaml.safe_dump(PLAY))
        address = self.index.url.replace("//", f"//me:{WORD}@")
        given = {
            "gpufleet_facts_directory": str(self.directory / "facts"),
            "gpufleet_lock_directory": str(self.locks),
            "gpufleet_plan_json": str(self.directory / "plan.json"),
            "python_version": "3.11",
            "pytorch_cuda": "cpu",
            "pytorch_index_url": f"{address}/simple",
            "pytorch_builds_index_url": f"{address}/builds",
            **wishes,
        }
        (self.directory / "vars.json").write_text(json.dumps(given))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("UV_")},
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "local"),
            "ANSIBLE_LOG_PATH": str(self.directory / "run.log"),
            "ANSIBLE_REMOTE_TEMP": str(self.directory / "remote"),
            "UV_CACHE_DIR": str(self.directory / "uv-cache"),
            "UV_HTTP_RETRIES": "0",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.directory / "hosts.yml")]
        command += ["-e", f"@{self.directory / 'vars.json'}", str(self.directory / "plan.yml"), *options]
        answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "wheels"
    folder.mkdir()
    stock(folder)
    with serve(folder) as index:
        index.login = f"me:{WORD}"
        yield Site(tmp_path, index)


def test_a_run_asks_no_index_where_its_locks_are_and_shows_no_password(site: Site) -> None:
    output = site.play("-vvvv")
    made = {path.name: path.read_text() for path in site.locks.glob("*.toml")}
    assert [name.split("-")[0] for name in sorted(made)] == ["pylock.default", "pylock.uv"]
    assert "torch-2.0.1%2Bcpu" in "".join(made.values()) or "torch-2.0.1+cpu" in "".join(made.values())
    assert sum(request.startswith("/builds/cpu/torch/") for request in site.index.requests) == 1
    assert WORD not in output
    told = [path for path in site.directory.rglob("*") if path.is_file() and path.name != "vars.json"]
    assert len(told) > 5
    assert [path for path in told if WORD.encode() in path.read_bytes()] == []
    site.index.requests.clear()
    site.play()
    assert site.index.requests == []
    assert {path.name: path.read_text() for path in site.locks.glob("*.toml")} == made


def test_an_update_is_shown_before_it_is_made_and_asks_once_for_both_nodes(site: Site) -> None:
    site.play()
    before = {path.name: path.read_text() for path in site.locks.glob("*.toml")}
    build_wheel(site.index.folder, "numpy", "1.26.5", {"numpy.py": ""})
    shown = " ".join(site.play("--check", pytorch_lock="update").split())
    assert "numpy 1.26.4 -> 1.26.5" in shown
    assert {path.name: path.read_text() for path in site.locks.glob("*.toml")} == before
    site.index.requests.clear()
    made = " ".join(site.play(pytorch_lock="update").split())
    assert "note GF-LOCK-CHANGED: new lock pylock.default" in made
    assert "numpy 1.26.4 -> 1.26.5" in made
    assert [request for request in site.index.requests if request == "/simple/numpy/"] == ["/simple/numpy/"]
    assert "numpy-1.26.5" in "".join(path.read_text() for path in site.locks.glob("*.toml"))
    assert "GF-LOCK-CHANGED" not in site.play()
