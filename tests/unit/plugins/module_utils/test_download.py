"""Downloads: continued, checked, and explained when they fail."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.download import fetch, size_of
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, serve

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served/data").write_bytes(DATA)
    with serve(tmp_path / "served") as served:
        yield served


def get(index: Index, tmp_path: Path, size: int | None = len(DATA), url: str | None = None) -> bool:
    return fetch(url or f"{index.url}/files/data", str(tmp_path / "here/data"), SHA256, size, timeout=5, pause=0.01)


def here(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "here").iterdir())


def failure(index: Index, tmp_path: Path, size: int | None = len(DATA), url: str | None = None) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        get(index, tmp_path, size, url)
    assert not (tmp_path / "here/data").exists()
    return caught.value


@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_file_is_fetched_once(index: Index, tmp_path: Path, size: int | None) -> None:
    assert get(index, tmp_path, size)
    assert not get(index, tmp_path, size)
    assert len(index.requests) == 1
    assert here(tmp_path) == ["data"]


def test_only_what_came_over_a_network_counts(index: Index, tmp_path: Path) -> None:
    path = str(tmp_path / "here/data")
    for url, size in ((f"{index.url}/files/data", len(DATA)), (f"file://{tmp_path}/served/data", 0)):
        assert size_of(get(index, tmp_path, url=url), url, path) == size
        assert size_of(get(index, tmp_path, url=url), url, path) == 0
        (tmp_path / "here/data").unlink()


@pytest.mark.parametrize("ranges", [True, False])
def test_what_arrived_is_continued(index: Index, tmp_path: Path, ranges: bool) -> None:
    index.mode = "short"
    assert failure(index, tmp_path).code == "GF-DOWNLOAD-SHORT"
    assert (tmp_path / "here/data.part").stat().st_size == len(DATA) // 2
    index.mode, index.ranges = "ok", ranges
    assert get(index, tmp_path)
    assert here(tmp_path) == ["data"]


def test_a_short_file_says_how_much_is_missing(index: Index, tmp_path: Path) -> None:
    index.mode = "whole-but-short"
    error = failure(index, tmp_path)
    assert error.code == "GF-DOWNLOAD-SHORT"
    assert f"{len(DATA) // 2} of {len(DATA)} bytes" in error.message


@pytest.mark.parametrize("size", [len(DATA), None])
def test_another_file_is_refused(index: Index, tmp_path: Path, size: int | None) -> None:
    index.mode = "other"
    error = failure(index, tmp_path, size)
    assert error.code == "GF-DOWNLOAD-HASH"
    assert SHA256 in error.message
    assert here(tmp_path) == []


def test_a_beginning_that_belongs_to_another_file_is_fetched_anew(index: Index, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/data.part").write_bytes(b"x" * 1000)
    assert get(index, tmp_path)
    (tmp_path / "here/data").unlink()
    (tmp_path / "here/data.part").write_bytes(b"x" * (len(DATA) + 1))
    assert get(index, tmp_path)


def test_a_server_that_fails(index: Index, tmp_path: Path) -> None:
    index.mode = "503"
    error = failure(index, tmp_path)
    assert error.code == "GF-DOWNLOAD-UNREACHABLE"
    assert "HTTP 503" in error.message
    assert len(index.requests) == 3


def test_a_server_that_is_not_there(index: Index, tmp_path: Path) -> None:
    error = failure(index, tmp_path, url="http://me:secret@127.0.0.1:9/files/data")
    assert error.code == "GF-DOWNLOAD-UNREACHABLE"
    assert "secret" not in str(error)
