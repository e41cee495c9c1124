# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as HTML, Markdown and CSV. Private to the collection.

HTML and Markdown are Jinja2 templates with everything escaped. The page forbids itself, by its Content-Security-Policy, every
request and every script and style but the two whose digests it names.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import report_plot
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_attention import metric_label, number
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_drift import names_of
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_nodes import PARTS, STATES
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_pictures import pictures
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import cell, clean, markdown, shown
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup

Row = dict[str, Any]

TEMPLATES = Path(__file__).parent / "report_templates"
COLUMNS = {"node": "node", "verdict": "verdict", **PARTS}
ATTENTION_SHOWN = 6
DRIFTS_SHOWN = 12
BAR = 1000
NO_PICTURES = "Without pictures: they need pygal on the controller (pip install -r requirements.txt)."


def template(name: str) -> Template:
    """A template that stops at a name it does not know; in HTML everything is escaped, in Markdown what says ``md``."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        shown=shown, md=markdown, number=number, moment=moment, counted=counted, figures=figures, checks=checks
    )
    return made.get_template(name)


def html(document: Row) -> str:
    """The page, one file that needs no other."""
    style, script = _minified("report.css"), (TEMPLATES / "report.js").read_text(encoding="utf-8")
    drawn = [_drawn(picture) for picture in pictures(document)] if report_plot.drawer() else []
    page: str = template("report.html.j2").render(
        **_common(document),
        anchors={host: f"n-{place}" for place, host in enumerate(document["nodes"], start=1)},
        bar=_bar(document["summary"]),
        pictures=drawn,
        no_pictures="" if report_plot.drawer() else NO_PICTURES,
        attention_shown=ATTENTION_SHOWN,
        drifts_shown=DRIFTS_SHOWN,
        ranks={state: rank for rank, state in enumerate(STATES)},
        # Ours and without anything from outside; not escaped, as it would change what it is.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_hash=_digest(style),
        script_hash=_digest(script),
    )
    return page


def md(document: Row) -> str:
    """The same for a ticket: nodes that are alike in one line."""
    shown = {"folded": _folded(document["nodes"]), "pictures": pictures(document)}
    text: str = template("report.md.j2").render(**_common(document), **shown)
    return re.sub(r"\n{3,}", "\n\n", text)


def csv_text(document: Row) -> str:
    """One line a node."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(
        [*COLUMNS, "seen", "system", "kernel", "passed", "failed", "skipped", "code", "problem", "drift", "outliers"]
    )
    for host, row in document["nodes"].items():
        verdict = row["verdict"] or {}
        writer.writerow(
            cell(value)
            for value in (
                host,
                row["state"],
                *(row[part] for part in PARTS),
                row["at"],
                row["system"],
                row["kernel"],
                *(verdict.get(status) for status in ("passed", "failed", "skipped")),
                "; ".join(dict.fromkeys(problem["code"] for problem in row["problems"] if problem["code"])),
                "; ".join(problem["what"] for problem in row["problems"]),
                "; ".join(f"{each['part']}: {each['what']}" for each in row["drift"]),
                "; ".join(row["outliers"]),
            )
        )
    return stream.getvalue()


def json_text(document: Row) -> str:
    """As data. ASCII only: a terminal that shows it obeys nothing in it."""
    return json.dumps(document, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"


def _common(document: Row) -> Row:
    return {"doc": document, "states": STATES, "parts": PARTS, "columns": COLUMNS}


def _drawn(picture: Row) -> Row:
    # The drawing is built element by element, from a list of those that are allowed, and escaped by ElementTree.
    svg = Markup(report_plot.draw(picture))  # noqa: S704
    legend = [
        {"name": series["name"], "note": series["note"], "class": kind}
        for series, kind in zip(picture["series"], report_plot.classes(picture["series"]))
    ]
    return {**picture, "svg": svg, "legend": legend}


def _minified(name: str) -> str:
    lines = (TEMPLATES / name).read_text(encoding="utf-8").splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _bar(summary: Row) -> list[Row]:
    """The share of each state, verified first; whatever there is can be seen."""
    total = summary["nodes"] or 1
    parts, x = [], 0.0
    for state in reversed(STATES):
        count = summary["states"][state]
        if count:
            width = max(BAR * count / total, 4.0)
            parts.append({"state": state, "x": x, "width": width})
            x += width
    for part in parts:
        part.update(x=f"{part['x'] * BAR / x:.1f}", width=f"{part['width'] * BAR / x:.1f}")
    return parts


def _folded(nodes: dict[str, Row]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for host, row in nodes.items():
        groups.setdefault((row["state"], *(row[part] for part in PARTS)), []).append(host)
    rows = [
        {
            "state": STATES[values[0]],
            "rank": list(STATES).index(values[0]),
            "names": names_of(hosts),
            **dict(zip(PARTS, values[1:])),
        }
        for values, hosts in groups.items()
    ]
    return sorted(rows, key=lambda row: int(row["rank"]))


# ---- filters ------------------------------------------------------------------------------------------------------------


def moment(at: Any) -> str:
    """2026-11-25T09:30:00Z as a person writes it."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*$", r"\1 \2 UTC", clean(at))


def counted(number_of: int, what: str) -> str:
    """1 node, 2 nodes."""
    return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"


def figures(row: Row) -> list[tuple[str, str]]:
    """Each metric of a node with its values on one line, in the order of the GPUs."""
    several = len({each["environment"] for each in row["performance"]}) > 1
    found: dict[tuple[str, str], list[str]] = {}
    for each in sorted(row["performance"], key=lambda figure: -1 if figure["device"] is None else figure["device"]):
        label = metric_label(each["metric"]) + (f", {each['environment']}" if several and each["environment"] else "")
        found.setdefault((label, each["unit"]), []).append(number(each["value"]))
    return [(label, f"{' · '.join(values)} {unit}") for (label, unit), values in found.items()]


def checks(row: Row) -> list[tuple[str, str]]:
    """The checks by how they ended; those of GPUs folded, and a skipped one with its reason."""
    several = len({check["environment"] for check in row["checks"]}) > 1
    found: dict[tuple[str, str | None], list[str]] = {}
    for check in row["checks"]:
        if check["status"] != "failed":
            reason = check["message"] if check["status"] == "skipped" else None
            name = check["name"].replace(":", " ")
            found.setdefault((check["status"], reason), []).append(
                f"{check['environment']}/{name}" if several else name
            )
    return [
        (status, ", ".join(_numbers(names)) + (f" ({reason})" if reason else ""))
        for (status, reason), names in sorted(found.items())
    ]


def _numbers(names: list[str]) -> list[str]:
    """``gpu_kernel 0``, ``gpu_kernel 1`` as ``gpu_kernel 0-1``."""
    by_name: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        base, _space, index = name.partition(" ")
        by_name.setdefault(base, []).append(index)
    return [
        base if numbers == [""] else f"{base} {numbers[0]}" + (f"-{numbers[-1]}" if len(numbers) > 1 else "")
        for base, numbers in by_name.items()
    ]
