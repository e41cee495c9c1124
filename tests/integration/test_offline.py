"""A site without internet: the nodes' way out is denied by a firewall, the controller has none at all.

The wheelhouse is made while a stand-in index (tests/tools/wheel_index.py) can be reached. Then the node may answer connections and begin
none, and the controller is a namespace of its own on the nodes' network, without a route and with a firewall that lets it reach
the node alone. Both firewalls count what they refuse.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, World, fresh

sys.path.insert(0, str(ROOT / "tests/tools"))
import wheel_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
SPACE = f"gpufleet-offline-{os.getpid()}"
COUNT = "/var/log/module-executions"
# What the role python would fetch; at a site without internet it comes from the site's mirror.
PACKAGES = ["python3.11", "python3.11-venv", "python3.11-dev", "g++"]
NODE_RULES = """
table inet denied {
  counter refused {}
  chain output { type filter hook output priority 0; policy drop;
    oif lo accept
    ct state established,related accept
    meta l4proto != { tcp, udp } drop comment "the kernel's own: neighbours and routers"
    counter name refused drop
  }
}
"""
CONTROLLER_RULES = NODE_RULES.replace("oif lo accept", "oif lo accept\n    ip daddr NODE tcp dport 22 accept")


def sh(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Site:
    world: World
    work: Path
    index: wheel_index.Index
    inside: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, Any]:
        return {
            "node_stages": ["python", "pytorch"],
            "gpufleet_cache_dir": "/opt/gpufleet/cache",
            "gpufleet_wheelhouse_directory": str(self.work / "wheelhouse"),
            "gpufleet_facts_directory": str(self.work / "facts"),
            "gpufleet_lock_directory": str(self.work / "locks"),
            "pytorch_index_url": self.index.simple,
            # Connections of the time before lead around the namespace.
            "ansible_control_path_dir": f"/tmp/{SPACE}",
        }

    def play(self, playbook: str, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [*self.inside, "ansible-playbook", str(ROOT / playbook), "-e", json.dumps({**self.variables, **more})]
        for inventory in self.world.inventory:
            command += ["-i", inventory]
        environment = {
            **os.environ,
            "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "NO_COLOR": "1",
        }
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)

    def refused(self) -> dict[str, int]:
        """Packets that each firewall refused."""
        found = {}
        for name, inside in (("controller", self.inside), ("node", namespace(self.world))):
            counters = json.loads(sh(*inside, "nft", "-j", "list", "counters"))["nftables"]
            found[name] = next(each["counter"]["packets"] for each in counters if "counter" in each)
        return found


def namespace(world: World) -> tuple[str, ...]:
    """Runs a command in the network namespace of the node."""
    name = sh(str(ROOT / "tests/tools/nodes"), "name", world.name, "node").strip()
    return ("nsenter", "--net", "--target", sh("podman", "inspect", "--format", "{{.State.Pid}}", name).strip())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node and a wheelhouse for it, made while there was a network; then there is none."""
    work = tmp_path_factory.mktemp("offline")
    wheel_index.build(work / "wheels", mib=5)
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / "key"))
    with fresh("offline", work, node_packages=PACKAGES) as world:
        address = world.sh("node", "hostname -I").split()[0]
        gateway = world.sh("node", "ip route show default").split()[2]
        index = wheel_index.Index(work / "wheels", gateway)
        threading.Thread(target=index.serve_forever, daemon=True).start()
        this = Site(world, work, index)
        try:
            for playbook in ("playbooks/plan.yml", "playbooks/wheelhouse.yml"):
                done = this.play(playbook, gpufleet_wheelhouse_key=str(work / "key"))
                assert done.returncode == 0, done.stdout + done.stderr
            cut_off(this, address, gateway)
            index.asked.clear()
            yield this
        finally:
            subprocess.run(["ip", "netns", "del", SPACE], check=False, capture_output=True)
            index.shutdown()
            index.server_close()


def cut_off(site: Site, node: str, gateway: str) -> None:
    """Put the controller into a namespace on the nodes' network, and both firewalls up."""
    bridge = bridge_of(gateway)
    own = ".".join([*gateway.split(".")[:3], "251"])
    link = f"gfo{os.getpid() % 100000}"
    sh("ip", "netns", "add", SPACE)
    sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", SPACE)
    sh("ip", "link", "set", link, "master", bridge, "up")
    site.inside = ("ip", "netns", "exec", SPACE)
    for command in (f"addr add {own}/24 dev eth0", "link set eth0 up", "link set lo up"):
        sh(*site.inside, "ip", *command.split())
    sh(*site.inside, "nft", "-f", "-", stdin=CONTROLLER_RULES.replace("NODE", node))
    sh(*namespace(site.world), "nft", "-f", "-", stdin=NODE_RULES)
    # A site's own sources name its mirror; here there is none, and what they would bring is installed.
    site.world.sh("node", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d && mkdir /etc/apt/sources.list.d")


def bridge_of(gateway: str) -> str:
    """The interface of the nodes' network on this host."""
    for each in json.loads(sh("ip", "-json", "address")):
        if any(found.get("local") == gateway for found in each["addr_info"]):
            return str(each["ifname"])
    raise AssertionError(f"no interface has {gateway}")


def test_there_is_no_way_out(site: Site) -> None:
    host, port = site.index.server_address[:2]
    ask = f"import socket; socket.create_connection(({host!r}, {port}), timeout=3)"
    before = site.refused()

    for inside in (site.inside, namespace(site.world)):
        done = subprocess.run([*inside, sys.executable, "-c", ask], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "timed out" in done.stderr or "not permitted" in done.stderr

    after = site.refused()
    assert after["controller"] > before["controller"] and after["node"] > before["node"]


def test_a_stranger_signature_stops_the_run_before_the_node_is_touched(site: Site) -> None:
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(site.work / "stranger"))

    done = site.play(
        "molecule/shared/stages.yml", gpufleet_offline=True, gpufleet_wheelhouse_signer=str(site.work / "stranger.pub")
    )

    assert done.returncode != 0
    assert "GF-WHEELHOUSE-SIGNATURE" in done.stdout
    assert site.world.sh("node", "ls /opt /var/lib/gpufleet 2>&1 || true").count("gpufleet") <= 1


def test_provisioned_from_the_wheelhouse_alone(site: Site) -> None:
    before = site.refused()

    done = site.play(
        "molecule/shared/stages.yml", gpufleet_offline=True, gpufleet_wheelhouse_signer=str(site.work / "key.pub")
    )

    assert done.returncode == 0, done.stdout + done.stderr
    torch = "/opt/gpufleet/envs/default/current/bin/python -c 'import torch; print(torch.__version__)'"
    assert site.world.sh("node", torch) == "2.0.1+cu117"
    assert site.index.asked == []
    # Nothing even tried.
    assert site.refused() == before


def test_a_second_run_is_one_module_execution(site: Site) -> None:
    site.world.sh("node", f"rm -f {COUNT}")

    done = site.play(
        "molecule/shared/stages.yml", gpufleet_offline=True, gpufleet_wheelhouse_signer=str(site.work / "key.pub")
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert " changed=0 " in done.stdout
    assert site.world.sh("node", f"wc -l < {COUNT}") == "1"


def test_another_wish_is_a_conflict(site: Site) -> None:
    done = site.play("molecule/shared/stages.yml", gpufleet_offline=True, pytorch_environments=[{"name": "other"}])

    assert done.returncode != 0
    assert "GF-OFFLINE-LOCK" in done.stdout
