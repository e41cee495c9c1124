"""Each wheel crosses the uplink once: copied over SSH, served by a cache host, or in a directory that nodes share.

The index is a stand-in with wheels that have weight (tests/tools/wheel_index.py); it counts what it sends, and to whom. The nodes,
the connections, nginx and uv are real.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from .conftest import NODES as NODES_TOOL
from .conftest import ROOT, Run, World, fresh
from .faults import said
from .removal import PLAYBOOK, difference, snapshot

sys.path.insert(0, str(ROOT / "tests/tools"))
import wheel_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
NODES = ("n1", "n2")
TORCH = "/opt/gpufleet/envs/default/current/bin/python -c 'import torch; print(torch.__version__)'"


@dataclass
class House:
    """Nodes, a cache host and the index."""

    world: World
    index: wheel_index.Index
    work: Path
    bare: set[str]  # the cache host before it served

    def play(self, way: str, *, name: str, nodes: tuple[str, ...] = NODES, **wanted: Any) -> Run:
        """The stages python and pytorch, with locks and a store of their own for each name."""
        cache = {"gpufleet_cache": {"hosts": {"cache": {"gpufleet_cache_address": self.address("cache")}}}}
        inventory = self.work / "cache.yml"
        inventory.write_text(yaml.safe_dump(cache if way == "cache" else {"gpufleet_cache": {}}), encoding="utf-8")
        self.index.sent.clear()
        self.index.asked.clear()
        wishes = {
            "node_stages": ["python", "pytorch"],
            "gpufleet_wheelhouse": way,
            "gpufleet_prefix": f"/opt/{name}",
            "gpufleet_cache_dir": f"/opt/{name}/cache",
            "gpufleet_wheelhouse_directory": str(self.work / name / "store"),
            "gpufleet_lock_directory": str(self.work / name / "locks"),
            "gpufleet_facts_directory": str(self.work / name / "facts"),
            "pytorch_index_url": self.index.simple,
        }
        return self.world.play(
            inventory,
            playbook="molecule/shared/stages.yml",
            cmdline=f"--limit {':'.join(nodes)}",
            **{**wishes, **wanted},
        )

    def address(self, node: str) -> str:
        return self.world.sh(node, "hostname -I").split()[0]

    def torch(self, node: str, name: str) -> str:
        return self.world.sh(node, TORCH.replace("gpufleet", name))

    def received(self, node: str) -> int:
        return int(self.world.sh(node, "cat /sys/class/net/eth0/statistics/rx_bytes"))

    def asked_by_nodes(self) -> list[str]:
        nodes = {self.address(node) for node in (*NODES, "cache")}
        return [path for client, path, _first in self.index.asked if client in nodes]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    work = tmp_path_factory.mktemp("house")
    wheel_index.build(work / "wheels", mib=20)
    with fresh("house", work, nodes=(*NODES, "cache")) as world:
        gateway = world.sh("n1", "ip route show default").split()[2]
        index = wheel_index.Index(work / "wheels", gateway)
        thread = threading.Thread(target=index.serve_forever, daemon=True)
        thread.start()
        try:
            yield House(world, index, work, snapshot(world, "cache"))
        finally:
            index.shutdown()
            index.server_close()


def once(house: House) -> None:
    """The index sent every wheel once, to the controller alone."""
    assert house.asked_by_nodes() == []
    assert sum(house.index.sent.values()) == house.index.size()


def test_copied_over_ssh(house: House) -> None:
    run = house.play("copy", name="copied")

    assert run.rc == 0, run.stdout
    once(house)
    assert [house.torch(node, "copied") for node in NODES] == ["2.0.1+cu117"] * 2


def test_a_second_environment_of_copied_wheels_needs_no_network(house: House) -> None:
    run = house.play("copy", name="copied", pytorch_environments=[{"name": "default"}, {"name": "other"}])

    assert run.rc == 0, run.stdout
    assert sum(house.index.sent.values()) == 0


def test_served_by_a_cache_host(house: House) -> None:
    before = {node: house.received(node) for node in (*NODES, "cache")}

    run = house.play("cache", name="served")

    assert run.rc == 0, run.stdout
    once(house)
    assert [house.torch(node, "served") for node in NODES] == ["2.0.1+cu117"] * 2
    # On the wire: headers and acknowledgements come on top, and the cache host gets nginx too.
    for node in NODES:
        assert house.index.size() < house.received(node) - before[node] < 1.1 * house.index.size()


def test_pip_of_users_finds_the_cached_wheels(house: House) -> None:
    page = house.world.sh(
        "cache",
        "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8400/simple/torch/\").read().decode())'",
    )

    assert "torch-2.0.1-py3-none-any.whl#sha256=" in page


def test_in_a_directory_that_nodes_share(house: House) -> None:
    # tests/tools/nodes mounts one directory of the host on every node.
    house.world.sh("n1", "rm -rf /var/cache/gpufleet/shared-wheelhouse")
    try:
        run = house.play("/var/cache/gpufleet/shared-wheelhouse", name="shared")

        assert run.rc == 0, run.stdout
        once(house)
        assert [house.torch(node, "shared") for node in NODES] == ["2.0.1+cu117"] * 2
    finally:
        house.world.sh("n1", "rm -rf /var/cache/gpufleet/shared-wheelhouse")


def test_a_cut_download_is_continued(house: House) -> None:
    house.index.cut = "payload_1"
    try:
        stopped = house.play("copy", name="cut", nodes=("n1",))
    finally:
        house.index.cut = None
    assert stopped.rc != 0
    assert "GF-DOWNLOAD-SHORT" in said(stopped)
    first = sum(house.index.sent.values())

    run = house.play("copy", name="cut", nodes=("n1",))

    assert run.rc == 0, run.stdout
    largest = max(path.stat().st_size for path in house.index.folder.glob("*.whl"))
    assert first + sum(house.index.sent.values()) <= house.index.size() + largest
    assert [path for _client, path, begin in house.index.asked if begin] == ["payload_1-1.0-py3-none-any.whl"]
    assert house.torch("n1", "cut") == "2.0.1+cu117"


SHARED = "/var/cache/gpufleet/shared-prefix"
SCOPE = {"pytorch_scope": "shared", "gpufleet_prefix": SHARED, "gpufleet_cache_dir": f"{SHARED}/cache"}


@pytest.fixture
def prefix(house: House) -> Iterator[None]:
    house.world.sh("n1", f"rm -rf {SHARED}")
    yield
    house.world.sh("n1", f"rm -rf {SHARED}")


def shared_torch(house: House) -> list[str]:
    torch = f"{SHARED}/envs/default/current/bin/python -c 'import torch; print(torch.__version__)'"
    return [house.world.sh(node, torch) for node in NODES]


@contextlib.contextmanager
def reading_only(house: House, node: str) -> Iterator[None]:
    """What all test nodes share is mounted read-only on one of them, as NFS often is."""
    container = subprocess.run([NODES_TOOL, "name", house.world.name, node], capture_output=True, text=True, check=True)
    inspect = ["podman", "inspect", "--format", "{{.State.Pid}}", container.stdout.strip()]
    pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
    mount = ["nsenter", "--target", pid, "--mount", "mount", "-o"]
    subprocess.run([*mount, "remount,bind,ro", "/var/cache/gpufleet"], check=True)
    try:
        yield
    finally:
        subprocess.run([*mount, "remount,bind,rw", "/var/cache/gpufleet"], check=True)


def test_one_node_builds_in_a_shared_prefix_and_all_use_it(house: House, prefix: None) -> None:
    run = house.play("index", name="prefix", **SCOPE)

    assert run.rc == 0, run.stdout
    # Every wheel was fetched by the one node that built.
    assert len(set(house.asked_by_nodes())) == len(house.asked_by_nodes())
    assert shared_torch(house) == ["2.0.1+cu117"] * 2
    again = house.play("index", name="prefix", **SCOPE)
    assert again.rc == 0 and [again.changed(node) for node in NODES] == [0, 0], again.stdout


def test_a_node_that_may_only_read_a_shared_prefix_waits_and_uses_it(house: House, prefix: None) -> None:
    with reading_only(house, "n2"):
        assert house.world.sh("n2", "touch /var/cache/gpufleet/x || echo refused") == "refused"
        run = house.play("index", name="prefix", **SCOPE)

        assert run.rc == 0, run.stdout
        assert {house.address("n1")} == {client for client, path, _first in house.index.asked if "payload" in path}
        assert shared_torch(house) == ["2.0.1+cu117"] * 2
        again = house.play("index", name="prefix", **SCOPE)
        assert again.rc == 0 and [again.changed(node) for node in NODES] == [0, 0], again.stdout


def test_a_cache_host_that_goes_is_as_it_was(house: House) -> None:
    gone = house.world.play(playbook=PLAYBOOK, cmdline="--limit cache")

    assert gone.rc == 0, gone.stdout
    assert difference(house.bare, snapshot(house.world, "cache")) == []
    assert house.world.sh("cache", "ls -d /var/lib/gpufleet-wheelhouse /usr/sbin/nginx 2>/dev/null || true") == ""
    again = house.world.play(playbook=PLAYBOOK, cmdline="--limit cache")
    assert (again.rc, again.changed("cache")) == (0, 0), again.stdout
