# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog: the facts that every choice rests on, read once per process. Private to the collection.

What the files mean stands in docs/catalog.md, what may stand in them in ``schema.py``.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import yaml
from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog import overlays

DIRECTORY = pathlib.Path(__file__).parent

# The parser written in C is ten times as fast; a PyYAML without it reads the same.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Catalog = dict[str, Any]


def load(overlay: str | None = None) -> Catalog:
    """``{name: content}`` of each file of the catalog. Callers must not change what they get.

    :param overlay: a site's own rows, a YAML file or a directory of them (``gpufleet_catalog_overlay``).
    :raises GpufleetError: GF-CATALOG-OVERLAY, where the overlay cannot be read or does not fit the catalog.
    """
    if not overlay:
        return _shipped()
    path = pathlib.Path(overlay).expanduser()
    return _with_overlay(path, overlays.state(path))


@functools.cache
def _shipped() -> Catalog:
    return {path.stem: yaml.load(path.read_bytes(), Loader=_LOADER) for path in sorted(DIRECTORY.glob("*.yml"))}  # noqa: S506


@functools.cache
def _with_overlay(path: pathlib.Path, _state: overlays.State) -> Catalog:
    # The state of the files is part of the key: a long-lived process sees an edited overlay.
    return overlays.merge(_shipped(), overlays.read(path))
