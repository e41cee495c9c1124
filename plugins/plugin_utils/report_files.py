# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the report lies on the controller. Private to the collection."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json, write_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils import report_render

Row = dict[str, Any]

JSON = "report.json"
# The last but one: what the last report was compared with.
FORMER = "report-former.json"


def former(directory: str) -> Row | None:
    """The last report that was written there; None where there is none that can be read."""
    return read_json(os.path.join(directory, JSON))


def write(directory: str, document: Row) -> list[str]:
    """Write every format, each whole at any time, and the JSON last: with it the report is there.

    :raises GpufleetError: GF-REPORT-UNWRITABLE.
    """
    texts = {
        "report.html": report_render.html(document),
        "report.md": report_render.md(document),
        "report.csv": report_render.csv_text(document),
        JSON: report_render.json_text(document),
    }
    last = os.path.join(directory, JSON)
    try:
        os.makedirs(directory, exist_ok=True)
        if os.path.isfile(last):
            with open(last, encoding="utf-8", errors="replace") as stream:
                write_text(os.path.join(directory, FORMER), stream.read())
        for name, text in texts.items():
            write_text(os.path.join(directory, name), text)
    except OSError as error:
        raise GpufleetError(
            "GF-REPORT-UNWRITABLE",
            f"the report cannot be written to {directory}: {error.strerror or error}",
            "the directory is not writable, or its disk is full",
            "set gpufleet_report_dir to a directory that you can write to, or to none",
        ) from error
    return [os.path.join(directory, name) for name in texts]
