# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: the facts that every choice rests on, read once per process. Private to the collection."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import yaml

DIRECTORY = pathlib.Path(__file__).parent


@functools.cache
def load() -> dict[str, Any]:
    """``{name: content}`` of each file of the catalog. Callers must not change what they get."""
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.yml"))}
