"""The script of a fleet check's ranks, as far as it needs no torch; the rest is in tests/with_torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import script_archive
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_fleet import brief, links, main, meeting, progress
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_fleet.run import Run, load


@pytest.fixture(name="rank_3")
def _rank_3(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for name, value in known.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 32])
def test_in_a_tournament_everyone_meets_everyone_once(count: int) -> None:
    members = [3 * number for number in range(count)]
    found = list(links.rounds(members))
    met = [pair for pairs in found for pair in pairs]
    assert sorted(met) == list(combinations(members, 2))
    for pairs in found:
        busy = [rank for pair in pairs for rank in pair]
        assert len(busy) == len(set(busy))
    assert len(found) == count - 1 + count % 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RuntimeError: [../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.4]:4721", "lost"),
        ("RuntimeError: Timed out waiting 60000ms for recv operation to complete", "lost"),
        ("torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1275, remote process exited", "lost"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "own"),
        ("ImportError: libcudnn.so.8: cannot open shared object file", "own"),
    ],
)
def test_an_error_of_ones_own_and_the_loss_of_another(text: str, kind: str) -> None:
    assert main.kind_of(text) == kind


def fake_torch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A stand-in for torch on a node with GPUs: it notes which one was chosen."""
    chosen: list[Any] = []
    torch = ModuleType("torch")
    torch.__dict__.update(
        __version__="2.0.1+cu117",
        device=lambda kind, index=None: SimpleNamespace(type=kind, index=index),
        cuda=SimpleNamespace(set_device=lambda device: chosen.append(device.index), synchronize=chosen.append),
        distributed=ModuleType("torch.distributed"),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", torch.distributed)
    return chosen


@pytest.mark.usefixtures("rank_3")
def test_with_nccl_each_rank_has_the_gpu_of_its_local_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_torch(monkeypatch)
    told = progress.Progress(None, 3)
    run = Run({**brief.DEFAULTS, "backend": "nccl"}, told)
    load(run)
    assert (run.device.type, run.device.index, chosen) == ("cuda", 1, [1])
    assert told.results == {"torch": "2.0.1+cu117"}
    run.wait_for_device()
    assert chosen[1] is run.device
    run = Run(dict(brief.DEFAULTS), told)
    load(run)
    run.wait_for_device()
    assert (run.device.type, len(chosen), run.leaders) == ("cpu", 2, [0, 1, 2, 3])


class Left(Exception):  # noqa: N818 - in place of the end of the process
    pass


def test_a_rank_that_waits_too_long_ends_by_itself_and_says_for_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(progress.os, "_exit", leave)
    told = progress.Progress(str(tmp_path), 3)
    told.enter("all_reduce", 2, "4096 bytes")
    told.results["all_reduce"] = [{"gib_s": float("inf")}]
    told.limit = 5.0
    told.since = time.monotonic() - 6
    with pytest.raises(Left) as caught:
        told._watch()
    assert caught.value.args == (1,)
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert answer["error"] == {"kind": "waited", "text": "nothing came for 5 seconds"}
    assert answer["step"] == {"at": [4, 2], "phase": "all_reduce", "detail": "4096 bytes"}
    assert answer["all_reduce"] == [{"gib_s": "inf"}]
    assert json.loads((tmp_path / "beat.json").read_text(encoding="utf-8")) == pytest.approx(time.monotonic(), abs=5)


@pytest.mark.usefixtures("rank_3")
def test_a_door_is_at_the_address_by_which_rank_0_is_reached() -> None:
    with meeting.listener() as door:
        address, port = door.getsockname()
        assert address == meeting.own_address() == "127.0.0.1"
        assert meeting.reaches({"address": address, "port": port})
    assert not meeting.reaches({"address": address, "port": port})


def test_a_brief_is_filled_up_with_what_is_usual(tmp_path: Path) -> None:
    path = tmp_path / "brief.json"
    path.write_text('{"sizes": [8]}', encoding="utf-8")
    found = brief.read(str(path))
    assert (found["sizes"], found["backend"], found["stall"]) == ([8], "gloo", 30)


@pytest.fixture(name="script", scope="module")
def _script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as the node has it."""
    path = tmp_path_factory.mktemp("script") / "libexec" / "gpufleet_fleet.pyz"
    assert script_archive.write(str(path), main)
    return path


def test_the_file_is_whole_and_written_once(script: Path) -> None:
    here = Path(script_archive.__file__).parent / "torch_fleet"
    with zipfile.ZipFile(script) as found:
        names = found.namelist()
    assert names == ["__main__.py", *sorted(f"gpufleet_fleet/{path.name}" for path in here.glob("*.py"))]
    assert not script_archive.write(str(script), main)


@pytest.mark.usefixtures("rank_3")
def test_by_hand_it_prints_its_answer_and_nothing_else(script: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('half of it is gone')\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert (ended.returncode, ended.stdout.count("\n")) == (1, 1)
    assert json.loads(ended.stdout) == {
        "rank": 3,
        "step": {"at": [0, 0], "phase": "import", "detail": ""},
        "error": {"kind": "own", "text": "ImportError: half of it is gone"},
    }
    assert "half of it is gone" in ended.stderr


def test_it_tells_what_a_brief_may_hold(script: Path) -> None:
    told = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True).stdout
    assert [key for key in brief.DEFAULTS if f'"{key}": ' not in told] == []
