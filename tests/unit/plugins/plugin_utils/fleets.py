"""Answers of nodes as a fleet check that goes well has them, to be broken by tests."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_brief import make_brief

Row = dict[str, Any]
WISHES: Row = {
    "forks": 20,
    "together": True,
    "port": 29511,
    "backend": "auto",
    "processes": 0,
    "environment": "",
    "sizes": [4, 4096],
    "timeout": 120,
}
FINISH = {"at": [8, 0], "phase": "finish", "detail": ""}


def node(host: str, gpus: int = 0, **look: Any) -> Row:
    """A node that can take part."""
    return {
        "host": host,
        "why": "",
        "busy": [],
        "look": {
            "torch": "2.0.1+cu117",
            "python": "3.11",
            "address": f"10.0.0.{host[1:]}",
            "interface": "eth0",
            "port_free": True,
            **look,
        },
        "stage": {
            "environments": [
                {"name": "default", "interpreter": f"/{host}/bin/python"},
                {"name": "b", "interpreter": "/b"},
            ],
            "gpus": gpus,
            "gpu_checks": "run" if gpus else "skip",
            "driver_pending": False,
            "seed": 7,
            "busy": False,
            "launcher": "direct",
        },
    }


def nodes(count: int, **more: Any) -> list[Row]:
    return [node(f"n{number}", **more) for number in range(1, count + 1)]


def brief(count: int = 4, **wishes: Any) -> Row:
    return make_brief(nodes(count), {**WISHES, **wishes})


def good(fleet: Row, rate: float = 1.0) -> dict[str, Row]:
    """What every node answers when all is well."""
    return {
        host: {"ranks": [rank_report(fleet, rank, rate) for rank in ranks]} for host, ranks in fleet["ranks"].items()
    }


def rank_report(fleet: Row, rank: int, rate: float = 1.0) -> Row:
    leaders = fleet["script"]["leaders"]
    answer = {
        "rank": rank,
        "error": None,
        "step": FINISH,
        "torch": fleet["torch"],
        "pairs": [
            {"peer": peer, "bytes": 1024, "gib_s": [rate * 0.8, rate, rate * 0.9], "right": True}
            for peer in leaders
            if peer != rank
        ],
        "all_reduce": [
            {"bytes": size, "seconds": 0.001 * (1 + rank), "gib_s": size / 1e6 / (1 + rank), "right": True}
            for size in fleet["script"]["sizes"]
        ],
        "training": {
            "parameters": "abc",
            "difference": 1e-15,
            "equal": True,
            "bound": 1e-7,
            "strangers": [],
            "loss_start": 30.0,
            "loss_end": 3.0,
        },
    }
    return {
        "rank": rank,
        "ended": "exit",
        "rc": 0,
        "state": None,
        "step": FINISH,
        "answer": copy.deepcopy(answer),
        "stderr": "",
        "seconds": 9.0 + rank,
    }


def stuck(report: Row, at: list[int], phase: str, detail: str = "", kind: str = "waited") -> Row:
    """A rank that lost the others, or waited for them in vain, in this step."""
    step = {"at": at, "phase": phase, "detail": detail}
    answer = {"rank": report["rank"], "step": step, "error": {"kind": kind, "text": "nothing came for 30 seconds"}}
    report.update(rc=1, step=step, answer=answer)
    return report
