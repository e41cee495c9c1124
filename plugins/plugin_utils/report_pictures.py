# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pictures: what each shows, as points. How it is drawn stands in report_plot.py. Private to the collection."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_attention import METRICS, metric_label, number
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_plot import BAND
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import shown

Row = dict[str, Any]
Point = tuple[float, float]

FEWEST_BINS, MOST_BINS = 8, 36
# A colour for each kind of device; kinds beyond that are one.
KINDS_SHOWN = 4
MARKS_SHOWN = 12
OTHERS = "others"
# A loss that ends this many times above the median is drawn by itself.
STRAY = 3
STRAYS_SHOWN = 5
SMALLEST_LOSS = 1e-9


def pictures(document: Row) -> list[Row]:
    """Every picture that there is something to show in: {title, about, x, y, logarithmic, logarithmic_x, whole, series[], summary}.

    A series is {name, kind (line | area | stray | marks), points[], labels[], note}.
    """
    rows: dict[str, Row] = document["nodes"]
    found = [_loss(rows)]
    metrics = dict.fromkeys(each["metric"] for row in rows.values() for each in row["performance"])
    order = list(METRICS)
    for metric in sorted(metrics, key=lambda name: (order.index(name) if name in order else len(order), name)):
        found.append(_distribution(metric, rows, document["outliers"]))
    found.append(_all_reduce(document["fleet"]))
    return [picture for picture in found if picture]


def _series(name: str, kind: str, points: list[Point], labels: list[str] | None = None, note: str = "") -> Row:
    return {"name": name, "kind": kind, "points": points, "labels": labels or [], "note": note}


# ---- losses -------------------------------------------------------------------------------------------------------------


def _loss(rows: dict[str, Row]) -> Row | None:
    """The middle of all nodes, what lies between the lowest and the highest, and nodes that end far above."""
    curves = {host: row["loss"] for host, row in rows.items() if len(row["loss"]) > 1}
    if not curves:
        return None
    steps = _commonest([tuple(step for step, _loss in curve) for curve in curves.values()])
    same = {host: curve for host, curve in curves.items() if tuple(step for step, _loss in curve) == steps}
    columns = [sorted(max(curve[place][1], SMALLEST_LOSS) for curve in same.values()) for place in range(len(steps))]
    middle = [median(column) for column in columns]
    strays = [host for host, curve in same.items() if curve[-1][1] > STRAY * middle[-1]]
    strays = sorted(strays, key=lambda host: -same[host][-1][1])[:STRAYS_SHOWN]
    series = [_series("median", "line", list(zip(steps, middle)))]
    if len(same) > 1:
        low = [(step, column[0]) for step, column in zip(steps, columns)]
        high = [(step, column[-1]) for step, column in zip(steps, columns)]
        series.insert(0, _series(BAND, "area", [*low, *reversed(high)]))
    for host in strays:
        series.append(_series(shown(host), "stray", [(step, max(loss, SMALLEST_LOSS)) for step, loss in same[host]]))
    count = f"{len(same)} node{'' if len(same) == 1 else 's'}"
    # What is drawn ends at the axis; what is said does not.
    end = median(curve[-1][1] for curve in same.values())
    return {
        "title": "Training loss",
        "about": f"the small network of verify, {count}",
        "x": "step",
        "y": "loss",
        "logarithmic": True,
        "series": series,
        "summary": f"the median falls from {number(middle[0])} to {number(end)} in {steps[-1]} steps",
    }


def _commonest(found: list[tuple[float, ...]]) -> tuple[float, ...]:
    return max(set(found), key=lambda steps: (found.count(steps), len(steps)))


# ---- distributions ------------------------------------------------------------------------------------------------------


def _distribution(metric: str, rows: dict[str, Row], outliers: list[Row]) -> Row | None:
    """How far each value is off the median of its kind of device; what the judge picked out is marked.

    Shares of the median, so that kinds which are not equally fast lie over each other, and what is off stands out.
    """
    values, unit, better = _values(metric, rows)
    if sum(map(len, values.values())) < 2:
        return None
    middles = {kind: median(value for value, _host, _device in found) or 1.0 for kind, found in values.items()}
    shares = {
        kind: [(100 * value / middles[kind], host, device) for value, host, device in found]
        for kind, found in values.items()
    }
    low = min(share for found in shares.values() for share, _host, _device in found)
    high = max(share for found in shares.values() for share, _host, _device in found)
    total = sum(map(len, shares.values()))
    bins = min(max(round(2 * math.sqrt(total)), FEWEST_BINS), MOST_BINS)
    width = (high - low) / bins or 1.0
    told = {(each["host"], each["device"]) for each in outliers if each["metric"] == metric}
    series, marked = [], []
    for kind, found in shares.items():
        counts = _counts([share for share, _host, _device in found], low, width, bins)
        series.append(_series(kind, "area", _steps(counts, low, width), note=f"{number(middles[kind])} {unit}"))
        for share, host, device in found:
            if (host, device) in told:
                marked.append((share, shown(host) if device is None else f"{shown(host)} GPU {device}"))
    marked = sorted(marked)[:MARKS_SHOWN]
    names = ", ".join(name for _share, name in marked)
    if marked:
        # One above the other, so that their names can be read.
        top = max(y for each in series for _x, y in each["points"])
        points = [(share, top * (place + 1) / (len(marked) + 1)) for place, (share, _name) in enumerate(marked)]
        series.append(_series("outlier", "marks", points, [name for _share, name in marked], note=names))
    what = "node" if all(device is None for found in values.values() for _v, _h, device in found) else "GPU"
    told_middles = [f"{kind} {number(middle)} {unit}" for kind, middle in middles.items()]
    return {
        "title": metric_label(metric),
        "about": f"{total:,} {what}{'' if total == 1 else 's'}, {better} is better",
        "x": "% of the median",
        "y": f"{what}s",
        "logarithmic": False,
        "whole": True,
        "series": series,
        "summary": f"median: {'; '.join(told_middles)}" + (f"; outliers: {names}" if names else ""),
    }


def _values(metric: str, rows: dict[str, Row]) -> tuple[dict[str, list[tuple[float, str, Any]]], str, str]:
    """Every value of a metric with its host and device, by kind of device; its unit, and which way is better."""
    values: dict[str, list[tuple[float, str, Any]]] = {}
    unit, better = "", "higher"
    for host, row in rows.items():
        names = {gpu["index"]: gpu["name"] for gpu in row["gpus"]}
        # Of several environments the first: the others' figures are about the same GPUs.
        first = row["performance"][0]["environment"] if row["performance"] else None
        for each in row["performance"]:
            if each["metric"] == metric and each["environment"] == first:
                unit, better = each["unit"], each["better"]
                kind = "all nodes" if each["device"] is None else names.get(each["device"], "GPU")
                values.setdefault(kind, []).append((float(each["value"]), host, each["device"]))
    return _fewest(values), unit, better


def _fewest(values: dict[str, list[tuple[float, str, Any]]]) -> dict[str, list[tuple[float, str, Any]]]:
    """The commonest kinds by name, all others together."""
    ordered = sorted(values, key=lambda kind: (-len(values[kind]), kind))
    found = {kind: values[kind] for kind in ordered[:KINDS_SHOWN]}
    rest = [each for kind in ordered[KINDS_SHOWN:] for each in values[kind]]
    return {**found, OTHERS: rest} if rest else found


def _counts(values: list[float], low: float, width: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / width), bins - 1)] += 1
    return counts


def _steps(counts: list[int], low: float, width: float) -> list[Point]:
    """The outline of a histogram, without the empty ends."""
    filled = [place for place, count in enumerate(counts) if count]
    points: list[Point] = []
    for place in range(filled[0], filled[-1] + 1):
        left, right = low + place * width, low + (place + 1) * width
        points += [(left, float(counts[place])), (right, float(counts[place]))]
    return [(points[0][0], 0.0), *points, (points[-1][0], 0.0)]


# ---- the fleet ----------------------------------------------------------------------------------------------------------


def _all_reduce(fleet: Row | None) -> Row | None:
    rows = [each for each in (fleet or {}).get("all_reduce", []) if each["bytes"] and each["gib_s"]]
    if len(rows) < 2 or fleet is None:
        return None
    points = [(each["bytes"] / 2**20, float(each["gib_s"])) for each in rows]
    best = max(gib for _size, gib in points)
    return {
        "title": "All-reduce across nodes",
        "about": f"{fleet['hosts']} nodes, {fleet['backend']}; GiB/s",
        "x": "MiB",
        "y": "GiB/s",
        "logarithmic": False,
        "logarithmic_x": True,
        "series": [_series("all-reduce", "line", points)],
        "summary": f"at most {number(best)} GiB/s",
    }
