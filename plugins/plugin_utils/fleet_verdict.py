# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers of all nodes come to: the verdict of a fleet check. Private to the collection.

Pure functions: the brief and the answers in (docs/contracts.md), the verdict out.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import fleet_ends
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_links import FEWEST_NODES, slow_ones
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold

Row = dict[str, Any]

SCHEMA = 1
NOT_REACHED = "the check did not come so far"
# Half of the exchanges, and beside a rank that hangs: that says nothing of a link.
NOT_ENDED = "not every rank came to its end, so the speed of the links is not judged"


class Finding:
    """One check on its way: what was measured, what is wrong with it, and who is suspected."""

    def __init__(self, name: str, measured: Any, expected: Any) -> None:
        self.name, self.measured, self.expected = name, measured, expected
        self.problems: list[str] = []
        self.suspects: list[Row] = []
        self.skipped: str | None = None

    def check(self) -> Row:
        """As the contract has a check."""
        status = "failed" if self.problems else "skipped" if self.skipped else "passed"
        return {
            "name": self.name,
            "status": status,
            "measured": self.measured,
            "expected": self.expected,
            "seconds": 0.0,
            "message": "; ".join(self.problems) or self.skipped or "",
        }


class Fleet:
    """The answers of all ranks."""

    def __init__(self, brief: Row, answers: dict[str, Row]) -> None:
        self.brief = brief
        self.host_of = {rank: host for host, ranks in brief["ranks"].items() for rank in ranks}
        reports = [row for host in brief["hosts"] for row in (answers.get(host) or {}).get("ranks") or []]
        self.reports: list[Row] = reports
        self.answers: dict[int, Row] = {row["rank"]: row["answer"] for row in reports if row["answer"]}

    def with_part(self, part: str) -> dict[int, Any]:
        """What each rank says of a part, of those that came so far."""
        return {rank: answer[part] for rank, answer in self.answers.items() if answer.get(part)}

    def ended(self) -> int:
        """How many ranks came to their end."""
        return sum(1 for row in self.reports if row["answer"] and not row["answer"]["error"] and row["rc"] == 0)

    def hosts(self, ranks: Any) -> list[str]:
        """The hosts of ranks, each once."""
        return list(dict.fromkeys(self.host_of[rank] for rank in sorted(ranks)))


def make_verdict(brief: Row, answers: dict[str, Row], at: str) -> Row:
    """The verdict of the whole fleet.

    :param brief: what fleet_brief.make_brief returned.
    :param answers: what fleet_check returned on each host; a host without is one that gave no answer.
    """
    fleet = Fleet(brief, answers)
    pairs, sums = _pair_rows(fleet), _sum_rows(fleet)
    findings = [
        _finished(fleet, answers),
        _all_reduce(fleet, sums),
        _parameters(fleet),
        _equal_to_single(fleet),
        _pairs(fleet, pairs),
    ]
    suspects = [suspect for finding in findings for suspect in finding.suspects]
    checks = [finding.check() for finding in findings]
    return {
        "schema": SCHEMA,
        "ok": not any(check["status"] == "failed" for check in checks),
        "at": at,
        "backend": brief["backend"],
        "hosts": list(brief["hosts"]),
        "world_size": brief["world_size"],
        "seconds": max([row["seconds"] for row in fleet.reports], default=0.0),
        "checks": checks,
        "all_reduce": [row for row in sums if row["seconds"] is not None],
        "pairs": [{"hosts": row["hosts"], "gib_s": row["gib_s"]} for row in pairs],
        "suspects": _once(suspects),
    }


def _once(suspects: list[Row]) -> list[Row]:
    """Each node and each link with the first reason that was found for it."""
    found: dict[str, Row] = {}
    for suspect in suspects:
        found.setdefault(name_of(suspect), suspect)
    return list(found.values())


def name_of(suspect: Row) -> str:
    """n3, or the link n1 - n3."""
    return str(suspect["host"]) if "host" in suspect else "the link " + " - ".join(suspect["link"])


def _finished(fleet: Fleet, answers: dict[str, Row]) -> Finding:
    done = fleet.ended()
    finding = Finding("finished", {"ranks": done}, {"ranks": fleet.brief["world_size"]})
    absent = fleet.brief["absent"]
    finding.suspects = [{"host": row["host"], "why": f"it could not take part: {row['why']}"} for row in absent]
    if absent:
        finding.problems.append(f"{fold(row['host'] for row in absent)} could not take part")
    if done < fleet.brief["world_size"]:
        finding.problems.append(f"{done} of {fleet.brief['world_size']} ranks came to the end")
        finding.suspects += fleet_ends.blocked(fleet.brief, answers)
    return finding


def _sum_rows(fleet: Fleet) -> list[Row]:
    """One row for every size, with the time of the slowest rank: a sum is there when all have it."""
    rows: dict[int, Row] = {}
    for found in fleet.with_part("all_reduce").values():
        for one in found:
            row = rows.setdefault(
                one["bytes"], {"bytes": one["bytes"], "seconds": one["seconds"], "gib_s": one["gib_s"]}
            )
            if one["seconds"] is not None and one["seconds"] > (row["seconds"] or 0):
                row.update(seconds=one["seconds"], gib_s=one["gib_s"])
    return [rows[size] for size in sorted(rows)]


def _all_reduce(fleet: Fleet, sums: list[Row]) -> Finding:
    found = fleet.with_part("all_reduce")
    left_out = [row["bytes"] for row in sums if row["seconds"] is None]
    measured = {"sizes": [row["bytes"] for row in sums if row["seconds"] is not None], "left_out": left_out}
    finding = Finding("all_reduce", measured, {"sizes": fleet.brief["script"]["sizes"]})
    wrong = {rank: [row["bytes"] for row in rows if row["right"] is False] for rank, rows in found.items()}
    bad = [rank for rank, sizes in wrong.items() if sizes]
    if bad:
        sizes = sorted({size for rank in bad for size in wrong[rank]})
        finding.problems.append(f"the sum is wrong on {fold(fleet.hosts(bad))} for {', '.join(map(str, sizes))} bytes")
        finding.suspects = _summed_wrongly(fleet, bad, len(found))
    elif len(found) < fleet.brief["world_size"]:
        finding.skipped = NOT_REACHED
    return finding


def _summed_wrongly(fleet: Fleet, bad: list[int], count: int) -> list[Row]:
    """Few ranks with a wrong sum computed it wrongly; where all have one, the sums over halves spell who adds wrongly."""
    if 2 * len(bad) < count:
        return [{"host": host, "why": "its sum is wrong, that of most others is right"} for host in fleet.hosts(bad)]
    halves = fleet.with_part("halves")
    wrong = {(row["bit"], row["value"]) for rows in halves.values() for row in rows if not row["right"]}
    bits = max(1, (fleet.brief["world_size"] - 1).bit_length())
    if not wrong:
        return []
    ranks = [rank for rank in fleet.host_of if all((bit, rank >> bit & 1) in wrong for bit in range(bits))]
    why = "every sum that it takes part in is wrong"
    return [{"host": host, "why": why} for host in fleet.hosts(ranks)]


def _parameters(fleet: Fleet) -> Finding:
    found = fleet.with_part("training")
    kinds: dict[str, list[int]] = {}
    for rank, training in found.items():
        kinds.setdefault(training["parameters"], []).append(rank)
    finding = Finding("ddp_parameters", {"kinds": len(kinds)}, {"kinds": 1})
    if len(kinds) > 1:
        finding.problems.append(f"after DDP the ranks have {len(kinds)} different sets of parameters")
        most = max(map(len, kinds.values()))
        few = [rank for ranks in kinds.values() if len(ranks) < most for rank in ranks]
        why = "its parameters after training are not those of the others"
        finding.suspects = [{"host": host, "why": why} for host in fleet.hosts(few)]
    elif len(found) < fleet.brief["world_size"]:
        finding.skipped = NOT_REACHED
    return finding


def _equal_to_single(fleet: Fleet) -> Finding:
    """Who computes other gradients is accused by many; who computes wrongly accuses many, and alone."""
    found = fleet.with_part("training")
    measured = {
        "difference": _worst([training["difference"] for training in found.values()]),
        "loss_start": next((training["loss_start"] for training in found.values()), None),
        "loss_end": next((training["loss_end"] for training in found.values()), None),
    }
    bound = next((training["bound"] for training in found.values()), None)
    finding = Finding("ddp_equals_single", measured, {"difference_below": bound})
    bad = [rank for rank, training in found.items() if not training["equal"]]
    if bad:
        finding.problems.append(
            f"training on all ranks gives other parameters than in one process, on {fold(fleet.hosts(bad))}"
        )
        accused: dict[int, int] = {}
        for training in found.values():
            for rank in training["strangers"]:
                accused[rank] = accused.get(rank, 0) + 1
        most = max(accused.values(), default=0)
        ranks = [rank for rank, count in accused.items() if count == most]
        if not ranks and 2 * len(bad) < len(found):
            ranks = bad
        why = "its gradients are not what the others compute for its data"
        finding.suspects = [{"host": host, "why": why} for host in fleet.hosts(ranks)]
    elif len(found) < fleet.brief["world_size"]:
        finding.skipped = NOT_REACHED
    return finding


def _worst(values: list[Any]) -> Any:
    """The largest; a text such as nan, which JSON has for what is no number, is worse than any."""
    return next((value for value in values if isinstance(value, str)), max(values, default=None))


def _pair_rows(fleet: Fleet) -> list[Row]:
    """One row for every link, with every exchange as the lower rank timed it."""
    rates: dict[tuple[int, int], list[float]] = {}
    for rank, found in fleet.with_part("pairs").items():
        for one in found:
            if rank < one["peer"]:
                rates.setdefault((rank, one["peer"]), []).extend(one["gib_s"])
    return [
        {"hosts": [fleet.host_of[a], fleet.host_of[b]], "gib_s": max(found), "rates": found}
        for (a, b), found in sorted(rates.items())
    ]


def _pairs(fleet: Fleet, pairs: list[Row]) -> Finding:
    rates = sorted(row["gib_s"] for row in pairs)
    finding = Finding("pairs", {"links": len(pairs), "slowest_gib_s": rates[0] if rates else None}, None)
    damaged = [
        (one["peer"], rank) for rank, found in fleet.with_part("pairs").items() for one in found if not one["right"]
    ]
    for sender, receiver in damaged:
        names = [fleet.host_of[sender], fleet.host_of[receiver]]
        finding.problems.append(f"what {names[0]} sent did not come to {names[1]} as it was")
        finding.suspects.append({"link": names, "why": "data changed on its way"})
    complete = fleet.ended() == fleet.brief["world_size"]
    for slow in slow_ones(pairs) if complete else []:
        kind = "host" if len(slow.names) == 1 else "link"
        rate = f"{slow.gib_s:.3g} GiB/s, and the usual is {slow.usual:.3g}"
        what = f"its best link has {rate}" if kind == "host" else f"it has {rate}"
        suspect: Row = (
            {"host": slow.names[0], "why": what} if kind == "host" else {"link": list(slow.names), "why": what}
        )
        finding.problems.append(f"{name_of(suspect)} is slow: {rate}")
        finding.suspects.append(suspect)
    if not pairs:
        finding.skipped = NOT_REACHED
    elif not complete:
        finding.skipped = NOT_ENDED
    elif len(fleet.brief["hosts"]) < FEWEST_NODES:
        finding.skipped = "two nodes have one link, and nothing to compare it with"
    return finding


def verdict_lines(verdict: Row) -> list[str]:
    """What a person reads: who is suspected and what to do, or what was measured."""
    return _good_lines(verdict) if verdict["ok"] else _failure_lines(verdict)


def _good_lines(verdict: Row) -> list[str]:
    passed = sum(1 for check in verdict["checks"] if check["status"] == "passed")
    lines = [
        f"{fold(verdict['hosts'])}: {verdict['world_size']} ranks computed together ({verdict['backend']}), "
        f"{passed} checks passed in {verdict['seconds']:.1f} s"
    ]
    if verdict["all_reduce"]:
        largest = verdict["all_reduce"][-1]
        lines.append(f"all-reduce of {largest['bytes']} bytes: {largest['gib_s']:.3g} GiB/s")
    rates = sorted(row["gib_s"] for row in verdict["pairs"])
    if rates:
        several = f"{len(rates)} links: {rates[0]:.3g} to {rates[-1]:.3g} GiB/s"
        lines.append(several if len(rates) > 1 else f"one link: {rates[0]:.3g} GiB/s")
    return lines


def _failure_lines(verdict: Row) -> list[str]:
    failed = [check for check in verdict["checks"] if check["status"] == "failed"]
    names = [name_of(suspect) for suspect in verdict["suspects"]]
    lines = [
        f"GF-FLEET-FAILED: the check of {fold(verdict['hosts'])} failed; suspected: {', '.join(names) or 'nobody'}"
    ]
    lines += [f"  {check['name']}: {check['message']}" for check in failed]
    lines += [f"  cause: {name_of(suspect)}: {suspect['why']}" for suspect in verdict["suspects"]]
    if names:
        lines.append(
            "  mend:  look at what is suspected (dmesg, ip -s link), leave it out with --limit and check the rest"
        )
    else:
        lines.append("  cause: the answers do not tell which node it is")
        lines.append("  mend:  check halves of the group (--limit), and each node by itself")
    return lines
