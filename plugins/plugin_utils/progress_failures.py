# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The failures of a run, each told once with all its nodes. Private to the collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_text import duration, size

CODES = re.compile(r"\s*(GF-[A-Z0-9-]+)((?:, GF-[A-Z0-9-]+)*): *")
# Of one code so many different messages are shown.
MESSAGES_SHOWN = 3
# A message is cut there: it stands in full where the task failed.
LONGEST = 400
UNREACHABLE = "not reached"
OTHER = "failed"
REACH = (
    "it is down, or the controller's SSH does not get in",
    "try ssh to one of them by hand, then run the playbook again with --limit and these nodes",
)


class Failure(NamedTuple):
    """Why a node did not get through."""

    code: str
    message: str
    details: tuple[str, ...] = ()
    cause: str = ""
    mend: str = ""


UNTOLD = Failure(OTHER, "it did not say why")
# What the callback saw, by node. Ansible forks a process for each task, so that a task of the play sees it too
# (the filter run_stats); it is empty where the callback is not enabled.
SEEN: dict[str, Failure] = {}


def failure(result: Mapping[str, Any], unreachable: bool = False) -> Failure:
    """What a task's result says; the words are those of ``GpufleetError`` where there is a code.

    :param result: the result of a task that failed, or of a loop in which an item did.
    """
    text = _message(result)
    if unreachable:
        return Failure(UNREACHABLE, _first(text), (), *REACH)
    match = CODES.match(text)
    if match is None:
        return Failure(OTHER, _first(text)) if _first(text) else UNTOLD
    first, *rest = text[match.end() :].splitlines() or [""]
    told: dict[str, list[str]] = {"cause": [], "mend": []}
    details = []
    for line in rest:
        word, _colon, said = line.strip().partition(":")
        if word in told and line.startswith("  "):
            told[word].append(said.strip())
        elif line.strip():
            details.append(line.strip())
    return Failure(
        match.group(1) + match.group(2), first, tuple(details), "; ".join(told["cause"]), "; ".join(told["mend"])
    )


def _message(result: Mapping[str, Any]) -> str:
    items = result.get("results")
    if isinstance(items, (list, tuple)):
        failed = (
            item for item in items if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable"))
        )
        said = [str(item.get("msg") or "") for item in failed]
        if any(said):
            return next(text for text in said if text)
    return str(result.get("msg") or result.get("module_stderr") or result.get("stderr") or result.get("censored") or "")


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def by_code(failures: Mapping[str, Failure]) -> dict[str, list[str]]:
    """The nodes of each code, in natural order."""
    found: dict[str, list[str]] = {}
    for host in sorted(failures, key=natural):
        found.setdefault(failures[host].code, []).append(host)
    return found


def failure_lines(failures: Mapping[str, Failure]) -> list[str]:
    """Each failure once: its nodes, what it says, why that usually is and what mends it."""
    return [_safe(line) for code, hosts in by_code(failures).items() for line in _told(code, hosts, failures)]


def _told(code: str, hosts: list[str], failures: Mapping[str, Failure]) -> Iterator[str]:
    several = len(hosts) > 1
    messages: dict[str, list[str]] = {}
    for host in hosts:
        messages.setdefault(_of_any(failures[host].message, host, several), []).append(host)
    if len(messages) == 1:
        yield f"{_on(code, hosts)}: {''.join(messages)}"
    else:
        yield f"{_on(code, hosts)}:"
        ordered = sorted(messages.items(), key=lambda item: -len(item[1]))
        for message, those in ordered[:MESSAGES_SHOWN]:
            yield f"  {fold(those)}: {message}"
        if len(ordered) > MESSAGES_SHOWN:
            yield f"  and {len(ordered) - MESSAGES_SHOWN} more that differ"
    details = (_of_any(each, host, several) for host in hosts for each in failures[host].details)
    yield from (f"  {detail}" for detail in _once(details))
    for word in ("cause", "mend"):
        said = (_of_any(getattr(failures[host], word), host, several) for host in hosts)
        yield from (f"  {word}: {each}" for each in _once(said))


def _on(code: str, hosts: list[str]) -> str:
    return f"{code} on {fold(hosts)}" + (f" ({len(hosts)} nodes)" if len(hosts) > 1 else "")


def _of_any(text: str, host: str, several: bool) -> str:
    """The text as it would be on any of the nodes: its own name does not make it another failure."""
    if several:
        text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", "NODE", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))[:MESSAGES_SHOWN]


def _safe(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))] + plain(line)


class End(NamedTuple):
    """How a run ended, in numbers."""

    nodes: int
    failed: int
    unreachable: int
    stopped: int
    seconds: float
    fetched: int


def end_line(end: End) -> str:
    """The run in one line. A node that others kept from its end counts as none of ours."""
    well = end.nodes - end.failed - end.unreachable - end.stopped
    parts = [f"{well} of {end.nodes} nodes got through" if well < end.nodes else f"all {end.nodes} nodes got through"]
    if end.nodes == 1:
        parts = ["the node got through" if well else "the node did not get through"]
    told = ((end.failed, "failed"), (end.unreachable, "not reached"), (end.stopped, "stopped because others failed"))
    parts += [f"{count} {what}" for count, what in told if count and end.nodes > 1]
    if end.fetched:
        parts.append(f"{size(end.fetched)} transferred")
    return f"gpufleet {', '.join(parts)}, in {_took(end.seconds)}"


def _took(seconds: float) -> str:
    return f"{round(seconds)} s" if seconds < 60 else duration(seconds)
