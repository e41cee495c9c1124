# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may stand in a row of the catalog, as one table, and the check of a row against it. Private to the collection.

The kinds of fields, such as ``version?``, are those of ``kinds.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog.kinds import PLATFORMS, Kind, wrong
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key, looks_like_version

Row = dict[str, Any]


class Table(NamedTuple):
    """A list of rows: what tells two rows apart, the kind of each field, and of those that few rows have."""

    identity: tuple[str, ...]
    fields: dict[str, Kind]
    optional: dict[str, Kind] = {}  # nobody writes to it


class Problem(NamedTuple):
    """One thing that is wrong: in which list of which file, in which row, in which field."""

    place: str
    row: str
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}, {self.row}, {self.field}: {self.text}"


FAMILIES = ("apt", "dnf", "dnf-modular", "macos", "zypper")
FLAVOURS = ("open", "proprietary")
PARTS = ("container_toolkit", "dcgm", "fabric_manager", "imex", "nvlink5", "persistence")

TABLES: dict[str, Table] = {
    "torch.releases": Table(
        ("version",),
        {
            "version": "version",
            "series": "version",
            "released": "text?",
            "torchvision": "version?",
            "torchaudio": "version?",
            "pythons": "versions by platform",
            "glibc_min": "version by platform",
            "macos_min": "version by platform",
            "numpy": "text?",
            "constraints": "texts",
        },
    ),
    "torch.builds": Table(
        ("variant", "platform"),
        {
            "variant": "text",
            "platform": PLATFORMS,
            "index": ("package", "pytorch"),
            "cuda": "version?",
            "cudnn": "version?",
            "compiled_for": "versions",
            "ptx": "version?",
            "min_driver": "version?",
            "local_version": "any text",
            "disk_mib": "number?",
        },
    ),
    "torch.profiles": Table(
        ("profile", "first_torch", "first_python"),
        {
            "profile": "text",
            "first_torch": "version",
            "last_torch": "version?",
            "first_python": "version",
            "last_python": "version?",
            "requirements": "texts",
        },
    ),
    "cuda.compatibility": Table(
        ("major",), {"major": "version", "min_driver": "version", "windows_min_driver": "version?"}
    ),
    "cuda.host_libraries": Table(("glibc",), {"glibc": "version", "first_cuda": "version"}),
    "cuda.toolkits": Table(
        ("version",),
        {"version": "version", "series": "version", "driver": "version?", "targets": "versions", "gcc_max": "number?"},
    ),
    "cudnn.cudnn": Table(
        ("version", "cuda_major"),
        {
            "version": "version",
            "cuda_major": "number",
            "packaged_for": "version?",
            "package": "text",
            "architectures": "architectures",
            "compute_capability_min": "version?",
            "compute_capability_max": "version?",
            "disk_mib": "number?",
        },
    ),
    "cudnn.packages": Table(
        ("series", "family"),
        {
            "series": "version",
            "family": FAMILIES,
            "runtime": "text",
            "development": "text",
            "cuda_majors": "versions",
        },
    ),
    "gpu.compute_capabilities": Table(
        ("compute_capability",),
        {
            "compute_capability": "version",
            "architecture": "text",
            "first_branch": "version",
            "last_branch": "version?",
        },
    ),
    "gpu.chips": Table(("chip",), {"chip": "text", "first_branch": "version"}),
    "driver.branches": Table(
        ("branch",),
        {
            "branch": "version",
            "type": "text?",
            "end_of_life": "text?",
            "ended": "flag",
            "max_cuda": "version?",
            "open": "texts",
            "proprietary": "texts",
            "newest_seen": "version?",
        },
    ),
    "driver.archive": Table(
        ("distribution", "version", "branch", "flavour"),
        {
            "distribution": "text",
            "version": "version",
            "branch": "version",
            "driver_version": "version?",
            "flavour": FLAVOURS,
            "architectures": "architectures",
            "packages": "texts",
            "headers": "text by name",
            "components": "texts",
            "dkms_name": "text?",
            "fabric_manager": "texts?",
            "download_mib": "number?",
            "disk_mib": "number?",
        },
        {"suite": "text", "withdrawn": "text"},
    ),
    "driver.installer_options": Table(
        ("option",),
        {
            "option": "text",
            "flavour": ("any", *FLAVOURS),
            "first_branch": "version?",
            "last_branch": "version?",
            "required": "flag",
        },
    ),
    "driver.precompiled": Table(
        ("distribution", "version"),
        {
            "distribution": "text",
            "version": "version",
            "kernel": "version",
            "architectures": "architectures",
            "flavours": "texts",
        },
    ),
    "repository.keys": Table(("name",), {"name": "text", "file": "text", "fingerprint": "text"}),
    "repository.retired_keys": Table(("name",), {"name": "text", "file": "text", "fingerprint": "text"}),
    "repository.repositories": Table(
        ("name",),
        {
            "name": "text",
            "architectures": "architectures",
            "key": "text?",
            "first_cuda": "version?",
            "last_cuda": "version?",
            "first_branch": "version?",
            "last_branch": "version?",
        },
    ),
    "repository.driver_packages": Table(
        ("family", "flavour", "first_branch"),
        {
            "family": FAMILIES,
            "flavour": FLAVOURS,
            "first_branch": "version",
            "last_branch": "version?",
            "packages": "texts",
            "pin": "text?",
            "module_stream": "text?",
            "versionlock": "text?",
            "fabric_manager": "texts?",
        },
    ),
    "repository.parts": Table(
        ("part", "family", "first_branch"),
        {
            "part": PARTS,
            "family": FAMILIES,
            "first_branch": "version",
            "last_branch": "version?",
            "packages": "texts",
            "tied": "texts",
        },
    ),
    "repository.units": Table(("part", "unit"), {"part": PARTS, "unit": "text", "paths": "texts", "optional": "flag"}),
    "python.managed": Table(
        ("version", "architecture"),
        {
            "version": "version",
            "full_version": "version",
            "release": "text",
            "architecture": PLATFORMS[:2],
            "sha256": "text",
            "size": "number?",
        },
    ),
    "distro.distributions": Table(
        ("name", "version"),
        {
            "name": "text",
            "names": "texts",
            "version": "version",
            "family": FAMILIES,
            "glibc": "version?",
            "gcc": "number?",
            "python": "version",
            "pythons": "python rows",
            "repository": "text?",
            "toolkit": "toolkit?",
        },
    ),
}


def name_of(table: Table, row: Row) -> str:
    """A row as a message names it."""
    return " ".join(str(row.get(field, "?")) for field in table.identity)


def order(place: str, row: Row) -> tuple[Any, ...]:
    """The sort key of a row in its list: versions by their numbers, everything else as text."""
    values = [str(row[field]) for field in TABLES[place].identity]
    if place == "torch.builds":
        # Those of the package index first, the processor's own last: what a reader and the resolver look at first.
        numbers = key(row["variant"])
        return PLATFORMS.index(row["platform"]), row["index"] != "package", not numbers, numbers, row["variant"]
    return tuple((0, key(value), "") if looks_like_version(value) else (1, (), value) for value in values)


def check_row(place: str, row: Any) -> Iterator[Problem]:
    """Everything that is wrong with one complete row."""
    table = TABLES[place]
    if not isinstance(row, dict):
        yield Problem(place, str(row)[:40], "-", "a row is a mapping of fields")
        return
    label = name_of(table, row)
    for field in table.fields:
        if field not in row:
            yield Problem(place, label, field, "is missing")
    for field, value in row.items():
        text = wrong_field(table, field, value)
        if text:
            yield Problem(place, label, str(field), text)
    if not row.get("source"):
        yield Problem(place, label, "source", "is missing: every row says where it comes from")


def wrong_field(table: Table, field: str, value: Any) -> str | None:
    """What is wrong with the value of a field, None where it is good."""
    if field == "source":
        return wrong("texts" if isinstance(value, list) else "text", value)
    if field == "unverified":
        unknown = [name for name in value if name not in table.fields] if isinstance(value, list) else [value]
        return f"names fields that no such row has: {unknown}" if unknown else None
    kinds = {**table.fields, **table.optional}
    if field not in kinds:
        return f"is no field of such a row (fields: {', '.join(kinds)})"
    return wrong(kinds[field], value)
