# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a fleet as a table that a person reads: plain ASCII, narrow, without colours. Private to the collection."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold

Row = dict[str, Any]
# Ansible prints a text eight columns in: with these the lines end at the 80th.
WIDTH = 72
COLUMN = 35
BECAUSE_SHOWN = 4
LONGEST = 2000
LABELS = {
    "nvidia_driver": "driver",
    "cuda_toolkit": "CUDA",
    "cudnn": "cuDNN",
    "python": "Python",
    "pytorch": "PyTorch",
    "verify": "verify",
}
SIMPLER = str.maketrans(
    {
        "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u2018": "'", "\u2019": "'",
        "\u201c": '"', "\u201d": '"', "\u2192": "->",
    }
)  # fmt: skip
# Colours and cursor movements of a terminal: the whole sequence, so that no "[31m" is left over.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x9b[0-?]*[ -/]*[@-~]", re.DOTALL)


def plain(text: Any) -> str:
    """A text from anywhere as one line of printable ASCII: names of devices are what somebody's firmware says."""
    text = unicodedata.normalize("NFKD", ESCAPES.sub("", str(text)).translate(SIMPLER))
    kept = "".join(character for character in text if not unicodedata.combining(character))
    line = " ".join("".join(c if " " <= c <= "~" else " " if c.isspace() else "?" for c in kept).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def fleet_lines(document: Row) -> list[str]:
    """The table: every group of nodes, then each conflict and each note once, then the sums."""
    if not document["nodes"]:
        return ["GF-FLEET-EMPTY: there is no node to plan for", *_missed(document)]
    lines = _title(document)
    for group in document["groups"]:
        lines += _group(group)
    for conflict in document["conflicts"]:
        lines += _conflict(conflict)
    for warning in document["warnings"]:
        where = "" if len(document["groups"]) == 1 else f" on {plain(warning['names'])}"
        lines += wrapped(f"note {warning['code']}{where}: {plain(warning['message'])}", "  ")
    return lines + _missed(document) + _wheels(document) + _sums(document)


def reasons(lines: list[str]) -> list[str]:
    """The reasons for each choice, told where the table is about one node."""
    return ["Why:", *(f"  {line}" for text in lines for line in _indented(text))]


def _indented(text: str) -> list[str]:
    indent = " " * (len(text) - len(text.lstrip()))
    return wrapped(indent + plain(text), indent + "  ", WIDTH - 2)


def _title(document: Row) -> list[str]:
    number = len(document["nodes"])
    of = ""
    if document["facts"] == "cached":
        read = sorted(filter(None, (node["facts_read_at"] for node in document["nodes"].values())))
        of = f" from cached facts, read since {plain(read[0])}" if read else " from cached facts"
    lines = wrapped(f"Plan for {_count(number, 'node')}{of}", "  ")
    if any(map(_changes, document["groups"])):
        lines += wrapped("now -> wanted; what has no arrow stays; every changed node is verified", "  ")
    return lines


def _group(group: Row) -> list[str]:
    hardware = plain(group["hardware"] or "what it is made of is not known")
    remarks = [f"{len(group['nodes'])} nodes"] if len(group["nodes"]) > 1 else []
    if _changes(group):
        remarks.append("reboot: " + {True: "yes", False: "no", None: "maybe"}[group["reboot"]])
    remark = f" ({', '.join(remarks)})" if remarks else ""
    lines = wrapped(plain(group["names"]) + remark, "    ") + [
        f"  {line}" for line in wrapped(hardware, "  ", WIDTH - 2)
    ]
    if not group["ok"]:
        return [*lines, f"  cannot be planned: {', '.join(group['conflicts'])}"]
    return lines + _columns(_cells(group))


def _changes(decision: Row) -> bool:
    return any(stage["action"] == "change" for stage in decision["stages"].values())


def _cells(group: Row) -> list[tuple[str, str]]:
    stages = group["stages"]
    cells = [(LABELS[role], _change(stage)) for role, stage in stages.items() if _shown(role, stage, stages)]
    return [*cells, ("size", _size(group["size"])) if _changes(group) else ("change", "nothing to do")]


def _shown(role: str, stage: Row, stages: dict[str, Row]) -> bool:
    if role == "verify":
        others = [each["action"] for name, each in stages.items() if name != "verify"]
        return bool(stage["action"] == "change" and "change" not in others)
    return stage["action"] != "none" or stage["now"] is not None


def _change(stage: Row) -> str:
    # The usual flavour goes without saying; with it the cell would not fit beside another.
    now, wanted = plain(stage["now"] or "none"), plain(stage["wanted"] or "").replace(", proprietary)", ")")
    if stage["action"] != "change":
        return now if stage["action"] == "none" or stage["now"] else wanted
    version = wanted.split(" ", maxsplit=1)[0]
    # A series that is there already: 3.11.2 -> 3.11 would read like a step back.
    return f"{now} (completed)" if f"{now}.".startswith(f"{version}.") else f"{now} -> {wanted}"


def _size(size: Row) -> str:
    """2.9 GB, 9.1 GiB on disk; with >= where something is not known, ~ where it is estimated."""
    download = f"{'' if size['download_complete'] else '>='}{size['download_bytes'] / 1e9:.1f} GB"
    disk = f"{'' if size['disk_complete'] else '>='}{'~' if size['disk_estimated'] else ''}{size['disk_mib'] / 1024:.1f} GiB"
    nothing = not size["download_bytes"] and not size["download_complete"]
    return f"{'?' if nothing else download}, disk {'?' if not size['disk_mib'] and not size['disk_complete'] else disk}"


def _columns(cells: list[tuple[str, str]]) -> list[str]:
    """Two cells a line where both fit, else one."""
    texts = [f"{label:<8}{value}" for label, value in cells]
    lines: list[str] = []
    left: str | None = None
    for text in texts:
        if len(text) >= COLUMN:
            lines += [*([f"  {left}"] if left else []), *(f"  {line}" for line in wrapped(text, " " * 8, WIDTH - 2))]
            left = None
        elif left is None:
            left = text
        else:
            lines.append(f"  {left:<{COLUMN}}{text}")
            left = None
    return [*lines, f"  {left}"] if left else lines


def _conflict(conflict: Row) -> list[str]:
    number = f" ({len(conflict['nodes'])} nodes)" if len(conflict["nodes"]) > 1 else ""
    lines = wrapped(f"{conflict['code']} on {plain(conflict['names'])}{number}:", "    ")
    lines += [f"  {line}" for line in wrapped(plain(conflict["message"]), "  ", WIDTH - 2)]
    because = conflict["because"]
    told = because if len(because) <= BECAUSE_SHOWN else because[: BECAUSE_SHOWN - 1]
    lines += [line for reason in told for line in _labelled("because", reason)]
    if len(told) < len(because):
        lines += _labelled("", f"and {len(because) - len(told)} more reasons")
    mending = [*map(wish_text, conflict["fixes"]), *conflict["advice"]]
    return lines + [line for fix in mending for line in _labelled("mend", fix)]


def wish_text(fix: Any) -> str:
    """The wishes of a fix as they are written in a variables file; a fix that is a sentence stays one."""
    return ", ".join(f"{name}: {_value(value)}" for name, value in fix.items()) if isinstance(fix, dict) else str(fix)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = str(value)
    # Quotes for what YAML would read as a number: 2.10 is not 2.1.
    return f'"{text}"' if isinstance(value, str) and not re.fullmatch(r"[A-Za-z/_][\w./+-]*", text) else text


def _missed(document: Row) -> list[str]:
    names = fold(document["not_reached"])
    return wrapped(f"not planned, as they could not be looked at (errors above): {plain(names)}", "  ") if names else []


def _wheels(document: Row) -> list[str]:
    """What crosses the uplink once, where wheels are carried by the site itself."""
    wheels = document["wheels"]
    if not wheels["once_bytes"]:
        return []
    once, all_nodes = (f"{wheels[key] / 1e9:.1f} GB" for key in ("once_bytes", "bytes"))
    to = f"{all_nodes} from there to {_count(wheels['nodes'], 'node')}"
    return wrapped(f"wheels: {once} once at most from outside of the site, {to} ({wheels['way']})", "  ")


def _sums(document: Row) -> list[str]:
    nodes = list(document["nodes"].values())
    if len(nodes) == 1:
        return []
    bad = sum(not node["ok"] for node in nodes)
    changing = list(filter(_changes, nodes))
    rebooting = sum(node["reboot"] is True for node in changing)
    parts = [f"{len(changing)} to change", f"{len(nodes) - len(changing) - bad} as they should be"]
    parts += [f"{bad} cannot be planned"] if bad else []
    parts += [f"{rebooting} to reboot"]
    return wrapped(f"{_count(len(nodes), 'node')}: {', '.join(parts)}", "  ")


def _labelled(label: str, text: str) -> list[str]:
    return [f"  {line}" for line in wrapped(f"{label:<8}{plain(text)}", " " * 8, WIDTH - 2)]


def wrapped(line: str, indent: str, width: int = WIDTH) -> list[str]:
    """Lines of at most this width, broken at spaces and after commas: a long list of nodes has no spaces."""
    lines, current = [], ""
    for piece in re.findall(r"[^\s,]*,(?=\S)|\S+\s*|\s+", line):
        if len(current + piece.rstrip()) > width and current.strip():
            lines.append(current.rstrip())
            current = indent
        current += piece
        while len(current.rstrip()) > width:  # a word that is longer than a line
            lines.append(current[:width])
            current = indent + current[width:]
    return [*lines, current.rstrip()]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
