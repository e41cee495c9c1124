"""The catalog against itself: every row has a source that is explained, and no name dangles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key, looks_like_version

ROWS = catalog.load()


def nodes(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary of a document with the path to it."""
    if isinstance(value, dict):
        yield path, value
        for name, inner in value.items():
            yield from nodes(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from nodes(inner, f"{path}[{number}]")


def rows_with_source() -> list[tuple[str, str, Any]]:
    return [
        (name, path, row["source"])
        for name, content in ROWS.items()
        for path, row in nodes(content, name)
        if "source" in row
    ]


@pytest.mark.parametrize(("name", "path", "source"), rows_with_source(), ids=lambda value: str(value)[:60])
def test_every_source_is_explained(name: str, path: str, source: Any) -> None:
    for each in source if isinstance(source, list) else [source]:
        assert each in ROWS[name]["sources"], f"{path} names the source {each}"


def test_every_row_has_a_source() -> None:
    lists = [
        ROWS["torch"]["releases"],
        ROWS["torch"]["builds"],
        ROWS["driver"]["branches"],
        ROWS["driver"]["flavours"]["rows"],
        ROWS["cudnn"]["cudnn"],
    ]
    assert all(row.get("source") for rows in lists for row in rows)
    assert all(row[part]["source"] for row in ROWS["debian"]["debian"].values() for part in ("driver", "toolkit"))


def test_versions_are_text() -> None:
    for name, content in ROWS.items():
        for path, row in nodes(content, name):
            for field in ("version", "cuda", "cudnn", "branch", "max_cuda", "min_driver"):
                value = row.get(field)
                if value is not None and not isinstance(value, (dict, list)) and not path.endswith(".sources"):
                    assert isinstance(value, str), f"{path}.{field}"
                    assert looks_like_version(value), f"{path}.{field}"


def test_releases_are_sorted_and_complete() -> None:
    releases = ROWS["torch"]["releases"]
    assert [row["version"] for row in releases] == sorted((row["version"] for row in releases), key=key)
    for row in releases:
        assert row["pythons"], row["version"]
        assert {"torchvision", "torchaudio", "glibc_min", "constraints", "builds"} <= set(row)


def test_every_branch_of_a_distribution_is_described() -> None:
    known = {row["branch"] for row in ROWS["driver"]["branches"]}
    assert {row["driver"]["branch"] for row in ROWS["debian"]["debian"].values()} <= known


def test_every_architecture_has_a_flavour() -> None:
    named = {name for row in ROWS["driver"]["branches"] for name in row["architectures"]}
    assert named <= {row["architecture"] for row in ROWS["driver"]["flavours"]["rows"]}


def test_every_distribution_with_packages_has_a_python() -> None:
    assert set(ROWS["debian"]["debian"]) == set(ROWS["distro"]["pythons"]["Debian"])
