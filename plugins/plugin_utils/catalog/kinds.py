# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of values that a field of the catalog may have. Private to the collection.

A kind is the name of a check in ``_KINDS`` (``?`` behind it: null is allowed too), or a tuple of the words to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import looks_like_version

Kind = str | tuple[str, ...]

PLATFORMS = ("x86_64", "aarch64", "macos_arm64", "macos_x86_64")
ARCHITECTURES = ("x86_64", "aarch64")

# Values that are mappings of fields themselves.
_NESTED: dict[str, dict[str, Kind]] = {
    "python rows": {"version": "version", "packages": "texts"},
    "toolkit": {
        "version": "version",
        "full_version": "version",
        "packages": "texts",
        "layout": "text",
        "components": "texts",
        "download_mib": "number?",
        "disk_mib": "number?",
    },
}
# Those of them that may be left out.
_OPTIONAL = {"toolkit": {"suite": "text", "min_driver": "version"}}


def wrong(kind: Kind, value: Any) -> str | None:
    """What is wrong with a value, as the end of a sentence; None where it is of the kind."""
    if isinstance(kind, tuple):
        return None if value in kind else f"{value!r} is none of {', '.join(kind)}"
    if kind.endswith("?"):
        return None if value is None else wrong(kind[:-1], value)
    return _KINDS[kind](value)


def _wrong_text(value: Any) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value} is a number, text is needed: write it in quotes"
    return None if isinstance(value, str) and value else f"{value!r} is not text"


def _wrong_version(value: Any) -> str | None:
    problem = _wrong_text(value)
    if problem:
        return problem
    return None if looks_like_version(value) else f"{value!r} is not a version (numbers with dots)"


def _wrong_number(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool)
    return None if good else f"{value!r} is not a whole number without quotes"


def _wrong_texts(value: Any) -> str | None:
    return _each(value, _wrong_text)


def _each(value: Any, check: Callable[[Any], str | None]) -> str | None:
    if not isinstance(value, list):
        return f"{value!r} is not a list"
    return next(filter(None, map(check, value)), None)


def _by_name(value: Any, check: Callable[[Any], str | None], names: Iterable[str] = ()) -> str | None:
    if not isinstance(value, dict):
        return f"{value!r} is not a mapping"
    known = tuple(names)
    stranger = [name for name in value if known and name not in known]
    if stranger:
        return f"{stranger[0]!r} is none of {', '.join(known)}"
    return next(filter(None, map(check, value.values())), None)


def _nested(kind: str) -> Callable[[Any], str | None]:
    fields, optional = _NESTED[kind], _OPTIONAL.get(kind, {})

    def check(value: Any) -> str | None:
        if not isinstance(value, dict) or set(value) - set(optional) != set(fields):
            return f"{value!r} is not a mapping with {', '.join(fields)}"
        found = ((name, wrong({**fields, **optional}[name], inner)) for name, inner in value.items())
        return next((f"{name}: {text}" for name, text in found if text), None)

    return check


_KINDS: dict[str, Callable[[Any], str | None]] = {
    "text": _wrong_text,
    "any text": lambda value: None if value == "" else _wrong_text(value),
    "texts": _wrong_texts,
    "version": _wrong_version,
    "versions": lambda value: _each(value, _wrong_version),
    "number": _wrong_number,
    "flag": lambda value: None if isinstance(value, bool) else f"{value!r} is not true or false",
    "architectures": lambda value: _each(value, lambda one: wrong(ARCHITECTURES, one)),
    "text by name": lambda value: _by_name(value, _wrong_text),
    "version by platform": lambda value: _by_name(value, _wrong_version, PLATFORMS),
    "versions by platform": lambda value: _by_name(value, lambda one: _each(one, _wrong_version), PLATFORMS),
    "toolkit": _nested("toolkit"),
    "python rows": lambda value: _each(value, _nested("python rows")),
}
