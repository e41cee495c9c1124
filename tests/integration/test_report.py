"""The report on real nodes: it costs them nothing, tells drift that a look finds, and that a run put it right.

The package index is a stand-in with wheels that have weight (tests/tools/wheel_index.py): its torch cannot be verified.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from .conftest import ROOT, Run, World, fresh
from .faults import said

sys.path.insert(0, str(ROOT / "tests/tools"))
import wheel_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
NODES = ("n1", "n2")
COUNT = "/var/log/module-executions"
PROFILE = "/etc/profile.d/gpufleet-pytorch.sh"
SCHEMA = json.loads((ROOT / "docs/schemas/report.schema.json").read_text(encoding="utf-8"))


class Fleet:
    """Two nodes without a GPU, the index, and where the reports lie."""

    def __init__(self, world: World, index: wheel_index.Index, work: Path) -> None:
        self.world = world
        self.index = index
        self.work = work

    def play(self, playbook: str, cmdline: str = "", **wanted: Any) -> Run:
        wishes = {
            "gpufleet_report_dir": str(self.work / "report"),
            "gpufleet_lock_directory": str(self.work / "locks"),
            "gpufleet_facts_directory": str(self.work / "facts"),
            "pytorch_index_url": self.index.simple,
        }
        for node in NODES:
            self.world.sh(node, f"rm -f {COUNT}")
        run = self.world.play(playbook=playbook, cmdline=cmdline, **{**wishes, **wanted})
        assert run.rc == 0, said(run)
        return run

    def executions(self) -> list[int]:
        return [int(self.world.sh(node, f"cat {COUNT} 2>/dev/null | wc -l")) for node in NODES]

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work / "report/report.json").read_text(encoding="utf-8"))
        jsonschema.validate(found, SCHEMA)
        return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    work = tmp_path_factory.mktemp("report")
    wheel_index.build(work / "wheels", mib=1)
    with fresh("report", work, nodes=NODES) as world:
        gateway = world.sh("n1", "ip route show default").split()[2]
        index = wheel_index.Index(work / "wheels", gateway)
        threading.Thread(target=index.serve_forever, daemon=True).start()
        try:
            yield Fleet(world, index, work)
        finally:
            index.shutdown()
            index.server_close()


def test_the_report_follows_the_nodes(fleet: Fleet) -> None:
    fleet.play("site.yml", "--skip-tags verify")
    first = fleet.document()
    assert {host: row["state"] for host, row in first["nodes"].items()} == dict.fromkeys(NODES, "unverified")

    # A run that changes nothing: one execution on each node, with the report at its end.
    run = fleet.play("site.yml", "--skip-tags verify")
    assert fleet.executions() == [1, 1]
    assert f"report: {fleet.work}/report/report.html" in said(run)
    assert fleet.document()["drift"]["altered"] == []

    # A look finds what somebody removed, and leaves it at that.
    fleet.world.sh("n1", f"rm {PROFILE}")
    fleet.play("playbooks/report.yml")
    assert fleet.executions() == [1, 1]
    fleet.world.sh("n1", f"test ! -e {PROFILE}")
    looked = fleet.document()["drift"]["altered"]
    assert [(group["names"], group["part"], group["mended"]) for group in looked] == [("n1", "PyTorch", False)]
    assert PROFILE in looked[0]["what"]

    # The same from what the look kept, without contacting a node.
    fleet.play("playbooks/report.yml", gpufleet_facts="cached")
    assert fleet.executions() == [0, 0]
    assert fleet.document()["drift"]["altered"] == looked

    # A run puts it right and says so.
    fleet.play("site.yml", "--skip-tags verify")
    assert [group["mended"] for group in fleet.document()["drift"]["altered"]] == [True]
    fleet.play("playbooks/report.yml")
    assert fleet.document()["drift"]["altered"] == []
