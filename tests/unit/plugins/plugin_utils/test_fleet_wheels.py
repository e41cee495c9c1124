"""Locks of a run: each is made once, the package index's build stands in, and a dead index stops no look."""

from __future__ import annotations

import copy
import http.server
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import fleet_locks, lock_resolve, locks, planning
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_wheels import lock_stages
from ansible_collections.gpufleet.stack.plugins.plugin_utils.locks import Wish

NODE = {"architecture": "x86_64", "glibc": "2.36"}
PLATFORM = {"architecture": "x86_64", "glibc": "2.36", "python": "3.11"}
INSTEAD = {
    "variant": "cu117",
    "cuda": "11.7",
    "cudnn": "8.5",
    "torch_version": "2.0.1+cu117",
    "requirements": ["torch==2.0.1"],
    "torch_index_url": "",
    "disk_mib": 4600,
}


class Index:
    """Stands in for uv: makes locks, counts them, and is down for the addresses that are said to be."""

    def __init__(self) -> None:
        self.made: list[list[str]] = []
        self.down: set[str | None] = set()
        self.tried: list[str | None] = []
        self.brings: dict[str, list[str]] = {}

    def resolve(self, wish: Wish, _addresses: Any) -> list[dict[str, Any]]:
        requirements, extra = wish.requirements, wish.indexes.get("torch")
        self.tried.append(extra)
        if self.down & {wish.index_url, extra}:
            raise GpufleetError("GF-INDEX-UNREACHABLE", "the index (x) does not answer (y): why", "down", "try again")
        self.made.append(requirements)
        names = [requirement.split("==") for requirement in requirements]
        found = [(each, version) for name, *version in names for each in self.brings.get(name, [name])]
        return [package(name, *version) for name, version in found]


def package(name: str, version: str = "1") -> dict[str, Any]:
    url = f"https://index.example/{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return {"name": name, "version": version, "wheels": [{"url": url, "size": 7, "hashes": {"sha256": "a" * 64}}]}


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    stand_in = Index()
    monkeypatch.setattr(lock_resolve, "resolve", stand_in.resolve)
    monkeypatch.setattr(locks, "uv_version", lambda: "0.1")
    monkeypatch.setattr(fleet_locks, "answers", lambda url: url not in stand_in.down)
    return stand_in


def plan(instead: dict[str, Any] | None = None) -> dict[str, Any]:
    address = "https://download.pytorch.org/whl/cpu"
    environment = {
        "name": "default",
        "torch": "2.0.1",
        "variant": "cpu",
        "torch_version": "2.0.1+cpu",
        "cuda": None,
        "cudnn": None,
        "python": "3.11",
        "interpreter": "/usr/bin/python3.11",
        "disk_mib": 900,
        "index_url": "",
        "indexes": {},
        "link": "/opt/gpufleet/envs/default/current",
        "requirements": ["torch==2.0.1+cpu"],
        "torch_index_url": address,
        "instead": instead,
    }
    proof = {"name": "default", "torch_version": "2.0.1+cpu", "cuda": None, "cudnn": None}
    stages = {
        "pytorch": {"environments": [environment], "why": ["chosen"]},
        "cudnn": {"cudnns": []},
        "cuda_toolkit": {"toolkits": []},
        "python": {"version": "3.11"},
        "verify": {"environments": [proof]},
    }
    return {"stages": stages, "warnings": []}


def filled(made: dict[str, Any], run: RunLocks, only_look: bool = False) -> dict[str, Any]:
    lock_stages(made, NODE, run, only_look)
    environment: dict[str, Any] = made["stages"]["pytorch"]["environments"][0]
    assert "instead" not in environment
    return environment


def test_the_first_choice_is_taken_where_its_index_answers(tmp_path: Path) -> None:
    made = plan(INSTEAD)
    assert filled(made, RunLocks(str(tmp_path), write=True))["torch_version"] == "2.0.1+cpu"
    assert made["warnings"] == []
    assert "cpu" in made["stages"]["pytorch"]["environments"][0]["path"]


def test_a_modulefile_is_named_after_the_build_and_the_environment(tmp_path: Path) -> None:
    made = plan()
    made["stages"]["pytorch"]["environments"][0]["name"] = "course"
    assert filled(made, RunLocks(str(tmp_path), write=True))["module"] == "2.0.1-cpu-course"


def test_the_package_index_stands_in_where_the_other_does_not_answer(tmp_path: Path, index: Index) -> None:
    index.down = {"https://download.pytorch.org/whl/cpu"}
    made = plan(INSTEAD)
    environment = filled(made, RunLocks(str(tmp_path), write=True))
    assert (environment["torch_version"], environment["cuda"], environment["disk_mib"]) == ("2.0.1+cu117", "11.7", 4600)
    assert "/2.0.1-cu117-py311-" in environment["path"]
    assert environment["module"] == "2.0.1-cu117"
    proof = made["stages"]["verify"]["environments"][0]
    assert (proof["torch_version"], proof["cuda"], proof["cudnn"]) == ("2.0.1+cu117", "11.7", "8.5")
    assert [warning["code"] for warning in made["warnings"]] == ["GF-INDEX-FALLBACK"]
    assert "not 2.0.1+cpu" in made["warnings"][0]["message"]
    assert "pytorch_builds_index_url" in made["warnings"][0]["message"]
    assert "cu117" in made["stages"]["pytorch"]["why"][-1]
    # uv would have tried for long what the probe had found dead already.
    assert index.tried == [None, None]


def test_a_kept_lock_of_the_stand_in_is_used_without_asking_anybody(tmp_path: Path, index: Index) -> None:
    index.down = {"https://download.pytorch.org/whl/cpu"}
    first = filled(plan(INSTEAD), RunLocks(str(tmp_path), write=True))
    index.down, made_before = set(), len(index.made)
    made = plan(INSTEAD)
    again = filled(made, RunLocks(str(tmp_path), write=True))
    assert (again["path"], again["torch_version"]) == (first["path"], "2.0.1+cu117")
    assert len(index.made) == made_before
    assert "kept already" in made["warnings"][0]["message"]


def test_a_kept_lock_of_the_first_choice_comes_first(tmp_path: Path, index: Index) -> None:
    filled(plan(INSTEAD), RunLocks(str(tmp_path), write=True))
    index.down = {"https://download.pytorch.org/whl/cpu"}
    assert filled(plan(INSTEAD), RunLocks(str(tmp_path), write=True))["torch_version"] == "2.0.1+cpu"


def test_an_index_that_drops_out_after_it_answered_is_stood_in_for(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.down = {"https://download.pytorch.org/whl/cpu"}
    monkeypatch.setattr(fleet_locks, "answers", lambda _url: True)
    assert filled(plan(INSTEAD), RunLocks(str(tmp_path), write=True))["torch_version"] == "2.0.1+cu117"


def test_without_a_stand_in_a_dead_index_is_an_error_of_a_run_and_a_note_of_a_look(
    tmp_path: Path, index: Index
) -> None:
    index.down = {"https://download.pytorch.org/whl/cpu"}
    with pytest.raises(GpufleetError, match="does not answer"):
        filled(plan(), RunLocks(str(tmp_path), write=True))
    made = plan()
    assert lock_stages(made, NODE, RunLocks(str(tmp_path), write=False), only_look=True) == ["pytorch"]
    environment = made["stages"]["pytorch"]["environments"][0]
    assert environment["lock"]["download_bytes"] is None
    assert [warning["code"] for warning in made["warnings"]] == ["GF-INDEX-UNREACHABLE"]
    assert len(index.tried) == 1
    assert planning.stage_digest(made["stages"]["pytorch"])


@pytest.mark.parametrize("shared", [True, False])
def test_a_look_leaves_the_directory_as_it_is_and_makes_each_lock_once(
    tmp_path: Path, index: Index, shared: bool
) -> None:
    scratch = tmp_path / "run"
    scratch.mkdir()
    kept = tmp_path / "locks"
    runs = [RunLocks(str(kept), write=False, scratch=str(scratch) if shared else None) for _run in range(2)]
    for made in [plan(), plan()]:
        filled(made, runs[0])
    assert index.made == [["torch==2.0.1+cpu"], ["uv==0.1"]]
    # Another process of the same run, as Ansible has one for each node.
    filled(plan(), runs[1])
    assert len(index.made) == (2 if shared else 4)
    assert not kept.exists()


def test_a_lock_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GpufleetError) as caught:
        filled(plan(), RunLocks(str(tmp_path / "file" / "locks"), write=True))
    assert caught.value.code == "GF-LOCK-INVALID"


def test_a_dead_index_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fleet_locks, "answers", lambda url: bool(asked.append(url)))
    for run in [RunLocks(str(tmp_path), False, str(tmp_path)) for _run in range(2)]:
        assert [run.reachable("https://a.example"), run.reachable("https://a.example")] == [False, False]
    assert asked == ["https://a.example"]


class Answering(http.server.BaseHTTPRequestHandler):
    """An index that knows nothing, but is there; below /slow it takes its time."""

    def do_HEAD(self) -> None:
        if self.path == "/slow":
            time.sleep(3)
        self.send_response(503 if self.path == "/down" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_what_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    assert fleet_locks.answers(f"{address}/whl") is True
    assert fleet_locks.answers(f"{address}/down") is False
    started = time.monotonic()
    assert fleet_locks.answers(f"{address}/slow", seconds=0.2) is False
    assert time.monotonic() - started < 2
    server.shutdown()
    assert fleet_locks.answers("http://127.0.0.1:1/") is False


def test_plans_do_not_share_what_is_changed(tmp_path: Path) -> None:
    run, first = RunLocks(str(tmp_path), write=False), plan()
    second = copy.deepcopy(first)
    filled(first, run)["lock"]["text"] = "changed"
    assert filled(second, run)["lock"]["text"] != "changed"


def test_a_toolkit_of_wheels_is_locked(tmp_path: Path, index: Index) -> None:
    index.brings = {"cuda-toolkit[all]": ["cuda-toolkit", "nvidia-cuda-nvcc"]}
    made = plan()
    toolkit: dict[str, Any] = {"requirement": "cuda-toolkit[all]==13.0.2", "index_url": "", "wheels": []}
    made["stages"]["cuda_toolkit"] = {"toolkits": [toolkit]}
    lock_stages(made, NODE, RunLocks(str(tmp_path), write=True))
    assert [(wheel["name"], wheel["sha256"]) for wheel in toolkit["wheels"]] == [("nvidia-cuda-nvcc", "a" * 64)]
    assert list(tmp_path.glob("pylock.cuda-toolkit-13_0_2-py3_11-*.toml"))


def versions(index: Index, monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """What the index has from now on."""
    packages = [package(name, version) for name, version in found.items()]
    monkeypatch.setattr(lock_resolve, "resolve", lambda wish, _: index.made.append(wish.requirements) or packages)


@pytest.mark.parametrize("write", [True, False])
def test_an_update_makes_every_lock_anew_once_a_run_and_every_node_hears_the_difference(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, write: bool
) -> None:
    kept, scratch = tmp_path / "locks", tmp_path / "run"
    scratch.mkdir()
    versions(index, monkeypatch, torch="2.0.1+cpu", numpy="1.26.3", old="1")
    filled(plan(), RunLocks(str(kept), write=True))
    before = {path.name: path.read_text() for path in kept.glob("*.toml")}
    versions(index, monkeypatch, torch="2.0.1+cpu", numpy="1.26.4", new="2")
    index.made.clear()
    for _node in range(2):
        made = plan()
        filled(made, RunLocks(str(kept), write=write, scratch=str(scratch), renew=True))
        notes = [warning for warning in made["warnings"] if warning["code"] == "GF-LOCK-CHANGED"]
        assert "default-torch2_0_1-cpu" in notes[0]["message"]
        assert notes[0]["message"].endswith(".toml: + new 2, numpy 1.26.3 -> 1.26.4, - old 1")
    assert index.made == [["torch==2.0.1+cpu"], ["uv==0.1"]]
    after = {path.name: path.read_text() for path in kept.glob("*.toml")}
    assert (after != before) is write
    # The next run uses what was made, and has nothing to tell.
    made = plan()
    filled(made, RunLocks(str(kept), write=True))
    assert (made["warnings"], len(index.made)) == ([], 2)


def test_an_update_that_finds_the_same_leaves_every_byte(tmp_path: Path) -> None:
    first = filled(plan(), RunLocks(str(tmp_path), write=True))
    made = plan()
    again = filled(made, RunLocks(str(tmp_path), write=True, renew=True))
    assert (again["lock"], again["path"]) == (first["lock"], first["path"])
    assert "the same wheels as before" in made["warnings"][0]["message"]


def test_another_file_under_the_same_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(plan(), RunLocks(str(tmp_path), write=True))
    other = package("torch", "2.0.1+cpu")
    other["wheels"][0]["hashes"]["sha256"] = "b" * 64
    monkeypatch.setattr(lock_resolve, "resolve", lambda *_: [other])
    made = plan()
    filled(made, RunLocks(str(tmp_path), write=True, renew=True))
    assert "torch 2.0.1+cpu: another file (aaaaaaaa -> bbbbbbbb)" in made["warnings"][0]["message"]


def test_other_requirements_tell_what_they_change(tmp_path: Path, index: Index) -> None:
    filled(plan(), RunLocks(str(tmp_path), write=True))
    made = plan()
    made["stages"]["pytorch"]["environments"][0]["requirements"] = ["torch==2.0.1+cpu", "numpy==1"]
    filled(made, RunLocks(str(tmp_path), write=True))
    assert [warning["message"].partition(": ")[2] for warning in made["warnings"]] == ["+ numpy 1"]


def test_what_could_not_be_made_for_one_node_is_no_answer_to_whether_it_is_kept(tmp_path: Path, index: Index) -> None:
    index.down = {"https://download.pytorch.org/whl/cpu", None}
    run = RunLocks(str(tmp_path / "locks"), write=False)
    for _node in range(2):
        made = plan(INSTEAD)
        assert lock_stages(made, NODE, run, only_look=True) == ["pytorch"]
        assert made["stages"]["pytorch"]["environments"][0]["torch_version"] == "2.0.1+cu117"
