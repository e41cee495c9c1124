# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who kept a fleet check from its end. Private to the collection.

Where one node dies or hangs all others fail, too: they lose a connection or wait in vain. So the surest sign counts,
and what usually follows from it names nobody.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]

STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting for a device or a file system", "Z": "dead"}


def blocked(brief: Row, answers: dict[str, Row]) -> list[Row]:
    """The suspects, {host or link, why}; an empty list where every rank came to its end."""
    silent = [
        {"host": host, "why": _no_answer(answers.get(host))} for host in brief["hosts"] if not _ranks(answers, host)
    ]
    ended = [(host, report) for host in brief["hosts"] for report in _ranks(answers, host)]
    signs = (_killed, _frozen, _no_document, _own_error)
    for found in (silent, *([*_by(sign, ended)] for sign in signs)):
        if found:
            return found
    host_of = {rank: host for host, ranks in brief["ranks"].items() for rank in ranks}
    late = list(_by(_late, ended))
    return _never_came(ended, host_of) or _behind(ended, host_of) or (late if len(late) < len(ended) else [])


def _ranks(answers: dict[str, Row], host: str) -> list[Row]:
    return list((answers.get(host) or {}).get("ranks") or [])


def _by(sign: Any, ended: list[tuple[str, Row]]) -> Iterator[Row]:
    for host, report in ended:
        why = sign(report)
        if why:
            yield {"host": host, "why": why}


def _no_answer(result: Row | None) -> str:
    said = str((result or {}).get("msg") or "").strip().splitlines()
    return "it gave no answer: it is down, frozen or cut off" + (f" ({said[0]})" if said else "")


def where(report: Row) -> str:
    """In which step a rank was: rank 2 in all_reduce (4096 bytes)."""
    step = report.get("step") or (report.get("answer") or {}).get("step")
    if not step:
        return f"rank {report['rank']} at its start"
    return f"rank {report['rank']} in {step['phase']}" + (f" ({step['detail']})" if step["detail"] else "")


def _killed(report: Row) -> str | None:
    if report["ended"] != "signal":
        return None
    try:
        name = signal.Signals(-report["rc"]).name
    except ValueError:
        name = f"signal {-report['rc']}"
    return f"{where(report)} was ended by {name}"


def _frozen(report: Row) -> str | None:
    if report["ended"] != "frozen":
        return None
    state = STATES.get(report["state"])
    return f"{where(report)} gave no sign of life" + (f": its process was {state}" if state else "")


def _no_document(report: Row) -> str | None:
    if report["ended"] != "exit" or report["answer"]:
        return None
    said = report["stderr"].splitlines()[-1:] or ["nothing on standard error"]
    return f"{where(report)} exited with {report['rc']} and left no answer: {said[0]}"


def _own_error(report: Row) -> str | None:
    error = (report["answer"] or {}).get("error")
    return f"{where(report)}: {error['text']}" if error and error["kind"] == "own" else None


def _late(report: Row) -> str | None:
    if report["ended"] == "timeout":
        return f"{where(report)} was still at work when the time was over"
    return _last_words(report) if (report["answer"] or {}).get("error") else None


def _never_came(ended: list[tuple[str, Row]], host_of: dict[int, str]) -> list[Row]:
    """Rank 0 knows who did not come; and each link that both sides could not open."""
    answers = [report["answer"] or {} for _host, report in ended]
    links = sorted({tuple(link) for answer in answers for link in answer.get("unreachable", [])})
    if links:
        return _cut_off([(host_of[one], host_of[other]) for one, other in links])
    missing = sorted({rank for answer in answers for rank in answer.get("missing", [])})
    late = [(host, report) for host, report in ended if report["rank"] in missing]
    return [
        {"host": host, "why": f"it did not come to where they meet: {_last_words(report)}"} for host, report in late
    ]


def _last_words(report: Row) -> str:
    error = (report["answer"] or {}).get("error")
    return where(report) + (f": {error['text']}" if error else "")


def _cut_off(links: list[tuple[str, str]]) -> list[Row]:
    """A node that several others cannot reach is the cause, and not each of its links."""
    counts: dict[str, int] = {}
    for link in links:
        for host in link:
            counts[host] = counts.get(host, 0) + 1
    nodes = [host for host, count in counts.items() if count > 1 and count == max(counts.values())]
    found: list[Row] = [
        {"host": host, "why": f"{counts[host]} other nodes cannot open a connection to it"} for host in nodes
    ]
    rest = [link for link in links if not set(link) & set(nodes)]
    return found + [{"link": list(link), "why": "no connection can be opened between them"} for link in rest]


def _behind(ended: list[tuple[str, Row]], host_of: dict[int, str]) -> list[Row]:
    """All were waiting: the ones who had not come as far as the others are what they waited for."""
    steps = {host: (report["step"], report) for host, report in ended if _waited(report) and report["step"]}
    if not steps:
        return []
    first = min(step["at"] for step, _report in steps.values())
    last = [host for host, (step, _report) in steps.items() if step["at"] == first]
    if len(last) == len(steps):
        return []
    if len(last) == 2 and steps[last[0]][0]["phase"].startswith("pairs"):
        return [{"link": last, "why": f"nothing came through it for a whole step: {where(steps[last[0]][1])}"}]
    return [{"host": host, "why": f"the others waited for it: {where(steps[host][1])}"} for host in last]


def _waited(report: Row) -> bool:
    """Ended without an end of its own: by the time, or by want of what others should have sent."""
    return report["ended"] == "timeout" or bool((report["answer"] or {}).get("error"))
