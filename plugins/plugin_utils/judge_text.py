# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A judgement as lines that a person reads: who is slow, by how much, and what to do. Private to the collection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain
from ansible_collections.gpufleet.stack.plugins.plugin_utils.outliers import FEWEST

Row = dict[str, Any]
# More slow nodes than these are counted: where so many are, it is hardly the nodes.
SHOWN = 10
# The verdict that is kept has the old figures.
AGAIN = "then measure again: -e verify_max_age=0.01"
# What usually holds a figure down, by the beginning of its metric, and what shows it.
REMEDIES = (
    (
        ("gpu_host_to_device", "gpu_device_to_host"),
        "nvidia-smi -q -d PCIE and the slot: fewer lanes or a lower generation under load; another process that copies",
    ),
    (
        ("gpu_memory",),
        "nvidia-smi -q -d ECC,ROW_REMAPPER,CLOCK: remapped rows, a memory clock that is held down, another process",
    ),
    (
        ("gpu_",),
        "nvidia-smi -q -d PERFORMANCE,CLOCK,TEMPERATURE,POWER: heat, a power limit, another process",
    ),
    (
        ("",),
        "top, and the processor's frequency governor and power profile: another process, heat, a setting of the firmware",
    ),
)


def lines(judgement: Row | None) -> list[str]:
    """What the summary of a run says of it; nothing where nothing was judged."""
    if not judgement:
        return []
    return [*_slow(judgement["outliers"]), *_rules(judgement["rules"]), *_alone(judgement["too_few"])]


def _slow(outliers: list[Row]) -> list[str]:
    """Each slow node with its worst figure; the others of it are named."""
    by_host: dict[str, list[Row]] = {}
    for row in outliers:
        by_host.setdefault(row["host"], []).append(row)
    hosts = sorted(by_host, key=natural)
    told = []
    for host in hosts[:SHOWN]:
        rows = sorted(by_host[host], key=_off, reverse=True)
        same = [row for row in rows if _kind(row) == _kind(rows[0])]
        others = {_kind(row): row for row in reversed(rows) if _kind(row) != _kind(rows[0])}
        told.append(f"{host}: slow - {outlier_text(same)}")
        if others:
            also = [f"{plain(row['metric'])} {_change(row)}" for row in reversed(others.values())]
            told.append(f"  also {', '.join(also)}")
        told.append(f"  look at {remedy(rows[0]['metric'])}; {AGAIN}")
    if len(hosts) > SHOWN:
        told.append(f"slow in all: {fold(hosts)} ({len(hosts)} nodes); gpufleet_judgement has every figure")
    return told


def _kind(row: Row) -> tuple[str, str]:
    return row["metric"], row["against"]


def _off(row: Row) -> float:
    """How far off a figure is, as a share: one that doubled as much as one that halved."""
    ends = sorted((abs(row["value"]), abs(row["median"])))
    return 1 - ends[0] / ends[1] if ends[1] else 0.0


def _change(row: Row) -> str:
    change = f"{(row['value'] - row['median']) / row['median']:+.0%}" if row["median"] else _number(row["value"])
    return f"{change}{' (history)' if row['against'] == 'history' else ''}"


def outlier_text(rows: list[Row]) -> str:
    """gpu_gemm_bf16 of GPU 3 is 148 TFLOP/s, the median of its 127 equals 231 (NVIDIA A100, driver 550.54).

    :param rows: one figure, of one GPU or of several of a node.
    """
    worst = max(rows, key=_off)
    devices = sorted(row["device"] for row in rows if row["device"] is not None)
    where = f" of GPU {', '.join(map(str, devices))}" if devices else ""
    at_worst = "at worst " if len(rows) > 1 else ""
    value, middle = _number(worst["value"]), _number(worst["median"])
    text = f"{plain(worst['metric'])}{where} is {at_worst}{value} {plain(worst['unit'])}".rstrip()
    if worst["against"] == "history":
        return f"{text}, the median of its {worst['equals']} runs before {middle}"
    return f"{text}, the median of its {worst['equals']} equals {middle} ({plain(worst['group'])})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def remedy(metric: str) -> str:
    """Where to look."""
    return next(text for beginnings, text in REMEDIES if metric.startswith(beginnings))


def _rules(rules: Iterable[Row]) -> list[str]:
    told = []
    for rule in rules:
        if not rule["hosts_failing"]:
            continue
        hosts = fold(rule["hosts_failing"])
        told.append(f"{hosts}: rule {plain(rule['name'])} does not hold ({rule['severity']})")
        for why in sorted(set(rule["why"].values())):
            told.append(f"  {fold(host for host, text in rule['why'].items() if text == why)}: {plain(why)}")
        told += [f"  {plain(rule['advice'])}"] if rule["advice"] else []
    return told


def _alone(groups: list[Row]) -> list[str]:
    hosts = {host for group in groups for host in group["hosts"]}
    if not hosts:
        return []
    return [f"speed not compared with other nodes' (fewer than {FEWEST} of a kind in this run): {fold(hosts)}"]


def rule_failure(rule: Row, host: str) -> list[str]:
    """Why a node fails by a rule."""
    why = f" ({plain(rule['why'][host])})" if host in rule["why"] else ""
    mend = plain(rule["advice"]) or f"change what the rule asks for, or the rule: {plain(rule['expression'])}"
    return [
        f"GF-RULE-FAILED: the rule {plain(rule['name'])} does not hold on {host}{why}",
        f"  cause: a rule of this site (verify_rules): {plain(rule['expression'])}",
        f"  mend:  {mend}",
    ]


def outlier_failure(row: Row) -> list[str]:
    """Why a node fails for being slow."""
    return [
        f"GF-VERIFY-OUTLIER: {row['host']} is slow: {outlier_text([row])}",
        "  cause: clocks that are held down, a bad link or slot, or another process; verify_outliers is fail",
        f"  mend:  look at {remedy(row['metric'])}; {AGAIN}",
    ]
