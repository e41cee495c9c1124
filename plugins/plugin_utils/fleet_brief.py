# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes part in a fleet check, as which ranks, and what stands against it. Private to the collection.

Pure functions: what the nodes were found to be in, the brief of the whole check out.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural

Row = dict[str, Any]

# Of the seconds of the whole check: how long all ranks have to come, and how long one step may wait. Never more than
# these, however long the check may take: a frozen node is to be found soon.
START_SHARE, MOST_START = 2, 60
STALL_SHARE, MOST_STALL = 4, 30


def make_brief(nodes: list[Row], wishes: Row) -> Row:
    """The brief of a fleet check.

    :param nodes: {host, look (what fleet_check found, or null), stage (verify's of the plan, or null), busy (processes
        that use a GPU), why} of every node of the group.
    :param wishes: {forks, together, port, backend, processes, environment, sizes, timeout}.
    :raises GpufleetError: GF-FLEET-FEW, GF-FLEET-FORKS, GF-FLEET-ENVIRONMENT, GF-FLEET-VERSIONS, GF-FLEET-BACKEND,
        GF-FLEET-SRUN, GF-FLEET-BUSY, GF-FLEET-ADDRESS, GF-FLEET-PORT.
    """
    nodes = sorted(nodes, key=lambda node: natural(node["host"]))
    present = [node for node in nodes if node["look"] and node["stage"]]
    _check_number(present, wishes)
    environments = {node["host"]: _environment(node, wishes["environment"]) for node in present}
    _check_torch(present)
    backend = _backend(present, wishes["backend"])
    if backend == "nccl":
        _check_gpus(present)
    first = present[0]["look"]
    _check_meeting_place(present[0]["host"], first, wishes["port"])
    ranks = _ranks(present, backend, wishes["processes"])
    return {
        "hosts": [node["host"] for node in present],
        "absent": [{"host": node["host"], "why": node["why"]} for node in nodes if node not in present],
        "ranks": ranks,
        "world_size": sum(map(len, ranks.values())),
        "backend": backend,
        "torch": first["torch"],
        "address": first["address"],
        "port": wishes["port"],
        "interpreters": {host: environment["interpreter"] for host, environment in environments.items()},
        "timeout": wishes["timeout"],
        "script": {
            "backend": backend,
            "sizes": sorted(set(wishes["sizes"])),
            "seed": present[0]["stage"]["seed"],
            "start": min(MOST_START, wishes["timeout"] // START_SHARE),
            "stall": min(MOST_STALL, wishes["timeout"] // STALL_SHARE),
            "leaders": [numbers[0] for numbers in ranks.values()],
        },
    }


def _check_number(present: list[Row], wishes: Row) -> None:
    count = len(present)
    if count < 2:
        raise GpufleetError(
            "GF-FLEET-FEW",
            f"a fleet check needs two nodes, and there {'is one' if count else 'is none'} that can take part",
            "verify_fleet_group has one host, --limit leaves one, or the others could not be reached (see above)",
            "name a group with more nodes in verify_fleet_group; verify_level: standard checks one node by itself",
        )
    if wishes["forks"] < count or not wishes["together"]:
        raise GpufleetError(
            "GF-FLEET-FORKS",
            f"{count} nodes have to compute at the same time, and this run works on fewer at once",
            "serial is set in the play"
            if not wishes["together"]
            else f"Ansible works on {wishes['forks']} nodes at once (forks)",
            "take serial out of the play" if not wishes["together"] else f"run it again with --forks {count}",
        )


def _environment(node: Row, name: str) -> Row:
    """The node's environment of this name; the first of the plan where none is named."""
    found = [row for row in node["stage"]["environments"] if not name or row["name"] == name]
    if not found or not node["look"]["torch"]:
        raise GpufleetError(
            "GF-FLEET-ENVIRONMENT",
            f"{node['host']} has no environment {name or 'with a torch'}" + ("" if found else " in its plan"),
            "site.yml has not run for this node yet, or verify_fleet_environment names none of pytorch_environments",
            f"ansible-playbook site.yml --limit {node['host']}, then check the fleet again",
        )
    return dict(found[0])


def _check_torch(present: list[Row]) -> None:
    """Ranks of different releases talk past each other, at best with an error that says nothing."""
    kinds: dict[str, list[str]] = {}
    for node in present:
        kinds.setdefault(f"torch {node['look']['torch']}, Python {node['look']['python']}", []).append(node["host"])
    if len(kinds) > 1:
        raise GpufleetError(
            "GF-FLEET-VERSIONS",
            "the nodes have different environments: "
            + "; ".join(f"{fold(names)}: {kind}" for kind, names in kinds.items()),
            "site.yml ran for some of them with other variables, or not since they changed",
            "ansible-playbook site.yml for all of them, or check each kind as a group of its own (verify_fleet_group)",
        )


def _backend(present: list[Row], wanted: str) -> str:
    without = [node["host"] for node in present if not _gpus(node)]
    if wanted == "nccl" and without:
        raise GpufleetError(
            "GF-FLEET-BACKEND",
            f"NCCL was asked for, and {fold(without)} cannot compute on a GPU",
            "the node has no GPU, its driver is not loaded, or its torch is a CPU build",
            "leave verify_fleet_backend at auto, which takes gloo there, or leave the node out of verify_fleet_group",
        )
    return wanted if wanted != "auto" else "gloo" if without else "nccl"


def _gpus(node: Row) -> int:
    stage = node["stage"]
    return int(stage["gpus"]) if stage["gpu_checks"] == "run" and not stage["driver_pending"] else 0


def _check_gpus(present: list[Row]) -> None:
    """Nobody's job is made slower, or ended for want of memory; and what SSH does not see is not computed on."""
    for node in present:
        if node["stage"]["launcher"] != "direct":
            raise GpufleetError(
                "GF-FLEET-SRUN",
                f"the GPUs of {node['host']} are to be used through Slurm (verify_launcher), and a fleet check is not",
                "an SSH session sees no GPU there",
                "verify_fleet_backend: gloo checks network and CPUs; for NCCL start the script in a job, docs/verify-fleet.md",
            )
        if node["busy"] and not node["stage"]["busy"]:
            process = node["busy"][0]
            raise GpufleetError(
                "GF-FLEET-BUSY",
                f"{process['name'] or 'a process'} ({process['pid']}) uses a GPU of {node['host']}",
                "a job runs there, and computing beside it could end it for want of memory",
                "wait for its end, leave the node out with --limit, or set verify_busy: true",
            )


def _check_meeting_place(host: str, look: Row, port: int) -> None:
    if not look["address"]:
        raise GpufleetError(
            "GF-FLEET-ADDRESS",
            f"{host} has no address at which the others could meet",
            "it has no network interface with one that holds beyond a link",
            f"set verify_fleet_address for {host} in its host_vars",
        )
    if not look["port_free"]:
        raise GpufleetError(
            "GF-FLEET-PORT",
            f"something listens on port {port} of {host} already",
            "another fleet check or a job uses it",
            "wait for its end, or set verify_fleet_port to another one",
        )


def _ranks(present: list[Row], backend: str, processes: int) -> dict[str, list[int]]:
    """One rank for each GPU, or one for a node without; the ranks of a node follow each other."""
    ranks: dict[str, list[int]] = {}
    number = 0
    for node in present:
        count = processes or (_gpus(node) if backend == "nccl" else 1)
        ranks[node["host"]] = list(range(number, number + count))
        number += count
    return ranks
