#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a plan of many nodes from cached facts takes, and how much memory each node costs the controller.

    tests/benchmarks/plan_1000.py --max-s 10 --max-mb-per-node 1

The GPUs are the recorded nodes of tests/fixtures/nodes; the rest of each node is made up. No node is contacted. Memory is
the peak of all processes of the run together (proportional set size), against a run with ten nodes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpufleet.stack.plugins.module_utils.node import SCHEMA  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache  # noqa: E402

# Name of the nodes, recorded GPUs, share of the fleet in percent, wishes.
KINDS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (
    ("login", "debian12-none", 4, {}),
    ("cpu", "debian12-none", 26, {"pytorch_cuda": "cpu"}),
    ("volta", "v100-x2", 20, {}),
    ("ampere", "debian12-a100", 30, {}),
    ("hopper", "h100-x8-nvswitch", 15, {"pytorch_version": "2.1.2"}),
    ("b200-", "b200-x8", 5, {}),
)


@dataclass
class Cost:
    """What a run took."""

    seconds: float
    peak_mib: float
    rc: int
    output: str


def node(recorded: str, number: int) -> dict[str, Any]:
    """A probe of a made-up node with recorded GPUs, no two alike in what is their own."""
    facts = json.loads((ROOT / "tests/fixtures/nodes" / recorded / "expected.json").read_text(encoding="utf-8"))["gpu"]
    for index, device in enumerate(facts["devices"]):
        device["uuid"] = f"GPU-{number:08x}-{index:04x}"
    return {
        "schema": SCHEMA,
        "gpu": facts,
        "cuda": {
            "toolkits": [], "cudnn": [], "torch": [], "shadowed": [], "errors": [],
            "environment": {"cuda_home": None, "path": [], "ld_library_path": [], "set_by": []},
        },
        "node": {
            "distribution": "Debian", "version": "12", "codename": "bookworm", "architecture": "x86_64",
            "glibc": "2.36", "package_manager": "apt", "packages_interrupted": False,
            "pythons": [{"version": "3.11", "full_version": "3.11.2", "path": "/usr/bin/python3.11", "provider": "distribution"}],
            "root": True, "prefix": {"path": "/opt/gpufleet", "writable": True, "free_mib": 100_000 + number},
            "kernel": {"release": "6.1.0-47-amd64", "headers": False}, "initramfs": True,
            "boot_id": f"{number:032x}", "errors": [],
        },
        "receipts": {},
        "verdict": None,
    }  # fmt: skip


def prepare(work: Path, nodes: int, playbook_locks: Path) -> tuple[Path, Path]:
    """An inventory and the cached facts of all its nodes."""
    facts, groups = work / "facts", {}
    for name, recorded, percent, wishes in KINDS:
        count = max(1, nodes * percent // 100)
        hosts = [f"{name}{number:04d}" for number in range(1, count + 1)]
        for number, host in enumerate(hosts):
            facts_cache.keep(str(facts), host, node(recorded, number))
        groups[name.strip("-")] = {"hosts": dict.fromkeys(hosts), "vars": wishes}
    inventory = work / "hosts.json"
    every = {"children": groups, "vars": {"gpufleet_lock_directory": str(playbook_locks), "ansible_host": "192.0.2.1"}}
    inventory.write_text(json.dumps({"all": every}), encoding="utf-8")
    return inventory, facts


def measure(work: Path, nodes: int, locks: Path) -> Cost:
    """One run of plan.yml."""
    work.mkdir()
    inventory, facts = prepare(work, nodes, locks)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/plan.yml", "-i", str(inventory)]
    command += ["-e", "gpufleet_facts=cached", "-e", f"gpufleet_facts_directory={facts}"]
    command += ["-e", f"gpufleet_plan_json={work / 'plan.json'}"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        peaks: list[float] = []
        watcher = threading.Thread(target=watch, args=(run, peaks), daemon=True)
        watcher.start()
        output = run.communicate()[0].decode()
    watcher.join()
    return Cost(time.monotonic() - started, max(peaks, default=0.0), run.returncode, output)


def watch(run: subprocess.Popen[bytes], peaks: list[float]) -> None:
    """The memory of the process and all below it, ten times a second."""
    while run.poll() is None:
        peaks.append(sum(pss_mib(each) for each in family(run.pid)))
        time.sleep(0.1)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in family(int(child)))]


def pss_mib(pid: int) -> float:
    """Memory of a process, what it shares counted in parts; 0 where it is gone already."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0.0
    line = next(line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def main() -> int:
    """Measure, print, and compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--locks", help="a directory of locks; otherwise the first run makes them at the package index")
    parser.add_argument("--max-s", type=float)
    parser.add_argument("--max-mb-per-node", type=float)
    parser.add_argument("--show", action="store_true", help="print what the large run printed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpufleet-benchmark-") as directory:
        locks = Path(arguments.locks or directory + "/locks").resolve()
        small = measure(Path(directory) / "small", 10, locks)
        large = measure(Path(directory) / "large", arguments.nodes, locks)
    if arguments.show or large.rc not in (0, 2):
        print(large.output)
    grown = (large.peak_mib - small.peak_mib) * 1.048576 / (arguments.nodes - 10)
    print(f"10 nodes: {small.seconds:.1f} s, {small.peak_mib:.0f} MiB at most; exit status {small.rc}")
    print(f"{arguments.nodes} nodes: {large.seconds:.1f} s, {large.peak_mib:.0f} MiB at most; exit status {large.rc}")
    print(f"memory for each further node: {grown:.3f} MB; lines printed: {len(large.output.splitlines())}")
    slow = arguments.max_s is not None and large.seconds > arguments.max_s
    fat = arguments.max_mb_per_node is not None and grown > arguments.max_mb_per_node
    if slow or fat:
        print("over the limit: " + " and ".join(name for name, over in (("time", slow), ("memory", fat)) if over))
    return int(slow or fat or large.rc not in (0, 2))


if __name__ == "__main__":
    raise SystemExit(main())
