# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own rows on top of the catalog: read, merged, and refused where they do not fit. Private to the collection."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog.references import dangling
from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog.schema import (
    TABLES,
    Problem,
    Row,
    check_row,
    name_of,
    order,
    wrong_field,
)

Catalog = dict[str, Any]
# Path, size and time of change of every file of an overlay.
State = tuple[tuple[str, int, int], ...]
# What was read: (file, name of the catalog's file, its content).
Parts = list[tuple[pathlib.Path, str, Any]]

_CAUSE = "a row of gpufleet_catalog_overlay does not have the form that the catalog's own rows have"
_MEND = "correct that row; docs/catalog.md describes every field, its section Overlay has an example"
# Single values that a site may replace: where its mirror is.
ADDRESSES = ("torch.pytorch_index", "repository.base")
# More would hide the first one, which is often the cause of the others.
_SHOWN = 5


def state(path: pathlib.Path) -> State:
    """What has to change for the overlay to be read again."""
    try:
        found = [(file, file.stat()) for file in _files(path)]
    except OSError as error:
        raise _unreadable(path, error) from error
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in found)


def read(path: pathlib.Path) -> Parts:
    """The overlay's content, each part with the file that it stands in."""
    parts: Parts = []
    for file in _files(path):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(file, error) from error
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise _error(f"{file} is not YAML: {problem}", "a slip of the pen", f"correct {file}") from error
        if path.is_dir():
            parts.append((file, file.stem, content))
        elif isinstance(content, dict):
            parts += [(file, str(name), inner) for name, inner in content.items()]
        else:
            raise _error(f"{file} is no mapping of the catalog's files (torch, driver, ...) to lists of rows")
    return parts


def merge(shipped: Catalog, parts: Parts) -> Catalog:
    """The catalog with the overlay's rows: a row of the same identity is changed, any other is added in its place."""
    catalog: Catalog = copy.deepcopy(shipped)
    for file, name, content in parts:
        if name not in catalog:
            raise _error(f"{file} names {name!r}, which is no file of the catalog ({', '.join(catalog)})")
        if not isinstance(content, dict):
            raise _error(f"{file}: {name} is no mapping of lists of rows")
        for list_name, rows in content.items():
            _merge_list(catalog, file, f"{name}.{list_name}", rows)
    problems = list(dangling(catalog))
    if problems:
        raise _wrong(" and ".join(dict.fromkeys(str(file) for file, _name, _content in parts)), problems)
    return catalog


def _merge_list(catalog: Catalog, file: pathlib.Path, place: str, rows: Any) -> None:
    name, list_name = place.split(".", 1)
    if place in ADDRESSES:
        if not isinstance(rows, str) or not rows.startswith(("https://", "http://", "file:///")):
            raise _error(f"{file}: {place} is no address (https://...)")
        catalog[name][list_name] = rows.rstrip("/")
        return
    if place not in TABLES:
        known = [each.split(".")[1] for each in (*TABLES, *ADDRESSES) if each.startswith(f"{name}.")]
        raise _error(f"{file}: {place} is no list of the catalog ({name} has {', '.join(known)})")
    if place != "torch.builds":
        _merge_rows(file, place, catalog[name][list_name], rows)
        return
    if not isinstance(rows, dict) or not all(isinstance(series, str) for series in rows):
        raise _error(f'{file}: torch.builds is a mapping of series in quotes ("2.0") to lists of rows')
    for series, inner in rows.items():
        _merge_rows(file, place, catalog[name][list_name].setdefault(series, []), inner)


def _merge_rows(file: pathlib.Path, place: str, there: list[Row], rows: Any) -> None:
    if not isinstance(rows, list):
        raise _error(f"{file}: {place} is not a list of rows")
    problems = list(_unidentified(place, rows))
    if problems:
        raise _wrong(str(file), problems)
    identity = TABLES[place].identity
    known = {tuple(row[field] for field in identity): row for row in there}
    for row in rows:
        mark = tuple(row[field] for field in identity)
        old = known.get(mark)
        merged = _over(old, row) if old else row
        problems += check_row(place, merged)
        if old:
            there.remove(old)
        there.append(merged)
        known[mark] = merged
    if problems:
        raise _wrong(str(file), problems)
    there.sort(key=lambda row: order(place, row))


def _unidentified(place: str, rows: Iterable[Any]) -> Iterator[Problem]:
    """Rows that cannot be told apart: an identity that is missing, of another kind, or comes twice."""
    table = TABLES[place]
    seen = set()
    for row in rows:
        if not isinstance(row, dict):
            yield Problem(place, str(row)[:40], "-", "a row is a mapping of fields")
            continue
        label = name_of(table, row)
        for field in table.identity:
            # A branch that is the number 470 would otherwise be a new row, with all its other fields missing.
            text = wrong_field(table, field, row[field]) if field in row else "is missing: it tells rows apart"
            if text:
                yield Problem(place, label, field, text)
        if label in seen:
            yield Problem(place, label, table.identity[0], "comes twice in this overlay")
        seen.add(label)
        if not row.get("source"):
            yield Problem(place, label, "source", "is missing: say where the row comes from")


def _over(old: Row, new: Row) -> Row:
    """A row with the fields of another on top. What a site states is no longer unverified; both sources count."""
    merged = {**old, **new}
    unverified = [field for field in old.get("unverified", []) if field not in new]
    unverified += [field for field in _listed(new.get("unverified", [])) if field not in unverified]
    merged.pop("unverified", None)
    if unverified:
        merged["unverified"] = unverified
    merged["source"] = [*_listed(old["source"]), *_listed(new["source"])]
    return merged


def _listed(source: Any) -> list[Any]:
    return source if isinstance(source, list) else [source]


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.glob("*.yml")) if path.is_dir() else [path]


def _wrong(where: str, problems: list[Problem]) -> GpufleetError:
    shown = "; ".join(str(problem) for problem in problems[:_SHOWN])
    more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
    return _error(f"{where}: {shown}{more}")


def _unreadable(path: pathlib.Path, error: Exception) -> GpufleetError:
    reason = getattr(error, "strerror", None) or str(error)
    return _error(
        f"{path} cannot be read: {reason}",
        "gpufleet_catalog_overlay names a path on the controller that is not there or not readable",
        f"ls -l {path}; set gpufleet_catalog_overlay to a YAML file or a directory of them, or leave it empty",
    )


def _error(message: str, cause: str = _CAUSE, fix: str = _MEND) -> GpufleetError:
    return GpufleetError("GF-CATALOG-OVERLAY", f"the catalog's overlay does not fit: {message}", cause, fix)
