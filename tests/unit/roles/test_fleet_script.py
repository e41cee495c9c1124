"""The script of a fleet check's ranks, as far as it needs no torch; the rest is in tests/with_torch."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from itertools import combinations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "roles" / "verify" / "files" / "gpufleet_fleet.py"


@pytest.fixture(name="script", scope="module")
def _script() -> Any:
    spec = importlib.util.spec_from_file_location("gpufleet_fleet", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="rank_3")
def _rank_3(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    for name, value in known.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 32])
def test_in_a_tournament_everyone_meets_everyone_once(script: Any, count: int) -> None:
    members = [3 * number for number in range(count)]
    rounds = list(script.rounds(members))
    met = [pair for pairs in rounds for pair in pairs]
    assert sorted(met) == list(combinations(members, 2))
    for pairs in rounds:
        busy = [rank for pair in pairs for rank in pair]
        assert len(busy) == len(set(busy))
    assert len(rounds) == count - 1 + count % 2


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
def test_an_error_of_ones_own_and_the_loss_of_another(script: Any, text: str, kind: str) -> None:
    assert script.kind_of(text) == kind


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
def test_with_nccl_each_rank_has_the_gpu_of_its_local_number(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fake_torch(monkeypatch)
    progress = script.Progress(None, 3)
    run = script.Run({**script.DEFAULTS, "backend": "nccl"}, progress)
    script.load(run)
    assert (run.device.type, run.device.index, chosen) == ("cuda", 1, [1])
    assert progress.results == {"torch": "2.0.1+cu117"}
    run.wait_for_device()
    assert chosen[1] is run.device
    run = script.Run(dict(script.DEFAULTS), progress)
    script.load(run)
    run.wait_for_device()
    assert (run.device.type, len(chosen), run.leaders) == ("cpu", 2, [0, 1, 2, 3])


class Left(Exception):  # noqa: N818 - in place of the end of the process
    pass


def test_a_rank_that_waits_too_long_ends_by_itself_and_says_for_what(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(script.os, "_exit", leave)
    progress = script.Progress(str(tmp_path), 3)
    progress.enter("all_reduce", 2, "4096 bytes")
    progress.results["all_reduce"] = [{"gib_s": float("inf")}]
    progress.limit = 5.0
    progress.since = time.monotonic() - 6
    with pytest.raises(Left) as caught:
        progress._watch()
    assert caught.value.args == (1,)
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert answer["error"] == {"kind": "waited", "text": "nothing came for 5 seconds"}
    assert answer["step"] == {"at": [4, 2], "phase": "all_reduce", "detail": "4096 bytes"}
    assert answer["all_reduce"] == [{"gib_s": "inf"}]
    assert json.loads((tmp_path / "beat.json").read_text(encoding="utf-8")) == pytest.approx(time.monotonic(), abs=5)


@pytest.mark.usefixtures("rank_3")
def test_a_door_is_at_the_address_by_which_rank_0_is_reached(script: Any) -> None:
    with script.listener() as door:
        address, port = door.getsockname()
        assert address == script.own_address() == "127.0.0.1"
        assert script.reaches({"address": address, "port": port})
    assert not script.reaches({"address": address, "port": port})


def test_a_brief_is_filled_up_with_what_is_usual(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "brief.json"
    path.write_text('{"sizes": [8]}', encoding="utf-8")
    brief = script.read_brief(str(path))
    assert (brief["sizes"], brief["backend"], brief["stall"]) == ([8], "gloo", 30)
