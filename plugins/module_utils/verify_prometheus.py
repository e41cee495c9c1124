# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict as a text file that Prometheus' node exporter collects. Private to the collection."""

from __future__ import annotations

import calendar
import os
import re
import time
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import verdict_store
from ansible_collections.gpufleet.stack.plugins.module_utils.verdict import STATUSES

FILE_NAME = "gpufleet.prom"
# Prometheus wants base units, in the name: what a unit of ours is called there, and how many of them it is.
UNITS = {
    "GFLOP/s": ("flop_per_second", 1e9),
    "TFLOP/s": ("flop_per_second", 1e12),
    "GiB/s": ("bytes_per_second", 2.0**30),
    "MiB/s": ("bytes_per_second", 2.0**20),
    "ms": ("seconds", 1e-3),
    "s": ("seconds", 1.0),
}


def path(folder: str) -> str:
    """The file in the directory that the node exporter collects from."""
    return os.path.join(folder, FILE_NAME)


def text(verdict: dict[str, Any]) -> str:
    """The verdict in the text format, without time stamps: the exporter refuses files that have them."""
    at = calendar.timegm(time.strptime(verdict["at"], "%Y-%m-%dT%H:%M:%SZ"))
    environments = verdict["environments"]
    labels = {"level": verdict["level"], "driver": verdict["driver"] or ""}
    parts = [
        _metric("gpufleet_verdict_ok", "Whether no check of the last verdict failed.", [(labels, int(verdict["ok"]))]),
        _metric("gpufleet_verdict_time_seconds", "When it was made, in seconds since 1970.", [({}, at)]),
        _metric("gpufleet_verdict_duration_seconds", "How long the checks took.", [({}, verdict["seconds"])]),
        _metric("gpufleet_verdict_gpus", "GPUs that the loaded driver listed then.", [({}, verdict["gpus"])]),
        _metric(
            "gpufleet_environment_ok",
            "Whether no check of this environment failed.",
            [
                ({"environment": each["name"], "torch": each["torch_version"] or ""}, int(each["ok"]))
                for each in environments
            ],
        ),
        _metric(
            "gpufleet_checks",
            "Checks of an environment by their outcome.",
            [
                ({"environment": each["name"], "status": status}, _count(each, status))
                for each in environments
                for status in STATUSES
            ],
        ),
    ]
    return "".join([*parts, *_figures(verdict["performance"])])


def _count(environment: dict[str, Any], status: str) -> int:
    return sum(1 for check in environment["checks"] if check["status"] == status)


def _figures(performance: list[dict[str, Any]]) -> list[str]:
    """One metric for each thing that was measured; of the GPU or, without that label, of the CPU."""
    samples: dict[tuple[str, str], list[Any]] = {}
    for figure in performance:
        unit, factor = UNITS.get(figure["unit"], (figure["unit"], 1.0))
        name = re.sub(r"[^a-z0-9]+", "_", f"gpufleet_{figure['metric']}_{unit}".lower())
        labels = {"environment": figure["environment"]}
        if figure["device"] is not None:
            labels["gpu"] = str(figure["device"])
        found = samples.setdefault((name, figure["better"]), [])
        # A sample comes once: of two measurements of the same the first counts.
        if labels not in [others for others, _value in found]:
            found.append((labels, figure["value"] * factor))
    return [_metric(name, f"Measured by verify; {better} is better.", rows) for (name, better), rows in samples.items()]


def _metric(name: str, explained: str, samples: list[Any]) -> str:
    lines = [f"# HELP {name} {explained}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(content)}"' for label, content in labels.items())
        lines.append(f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(content: str) -> str:
    return str(content).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(folder: str, verdict: dict[str, Any]) -> None:
    """Write the file whole, by a rename: the exporter never reads half of one.

    :raises GpufleetError: GF-VERDICT-WRITE.
    """
    verdict_store.put(path(folder), text(verdict))
