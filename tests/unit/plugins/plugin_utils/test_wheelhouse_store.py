"""The controller's wheelhouse: fetched once, continued, checked, and nothing where nothing may be fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.action.wheelhouse import LOT_BYTES, lots
from ansible_collections.gpufleet.stack.plugins.module_utils import download
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.managed_python import PUBLISHED
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store, at_mirror, with_password
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, serve

DATA = {f"w{number}-1-py3-none-any.whl": bytes([number]) * 50_000 for number in range(6)}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setattr(download.time, "sleep", lambda _seconds: None)
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in DATA.items():
        (folder / name).write_bytes(content)
    with serve(folder) as served:
        yield served


def files(index: Index) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "url": f"{index.url}/files/{name}",
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
        for name, content in DATA.items()
    ]


def store(tmp_path: Path, run: str = "run", **more: Any) -> Store:
    (tmp_path / run).mkdir(exist_ok=True)
    return Store(str(tmp_path / "store"), str(tmp_path / run), **more)


def failure(house: Store, wanted: list[dict[str, Any]]) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        house.bring(wanted, [])
    return caught.value


def test_every_file_is_fetched_once_by_all_runs(index: Index, tmp_path: Path) -> None:
    wanted = files(index)
    assert store(tmp_path).absent(wanted) == wanted

    fetched = [store(tmp_path, run).bring(wanted, []) for run in ("first", "first", "second")]

    assert fetched == [sum(map(len, DATA.values())), 0, 0]
    assert sorted(index.requests) == sorted(f"/files/{name}" for name in DATA)
    assert {Path(store(tmp_path).path(each)).read_bytes() for each in wanted} == set(DATA.values())
    assert store(tmp_path).absent(wanted) == []


def test_a_run_reads_a_file_once_however_many_nodes_ask(index: Index, tmp_path: Path) -> None:
    wanted = files(index)
    store(tmp_path).bring(wanted, [])
    Path(store(tmp_path).path(wanted[0])).write_bytes(b"damaged since")

    assert store(tmp_path).bring(wanted, []) == 0
    # Another run looks again, and mends it.
    assert store(tmp_path, "other").bring(wanted, []) == 50_000


def test_what_was_cut_off_is_continued_and_the_others_are_kept(index: Index, tmp_path: Path) -> None:
    wanted = files(index)
    store(tmp_path).bring(wanted[:5], [])
    index.mode = "short"
    assert failure(store(tmp_path), wanted).code == "GF-DOWNLOAD-SHORT"
    index.mode = "ok"
    index.requests.clear()

    assert store(tmp_path).bring(wanted, []) == 50_000
    assert len(index.requests) == 1


def test_another_file_is_refused(index: Index, tmp_path: Path) -> None:
    index.mode = "other"
    assert failure(store(tmp_path), files(index)).code == "GF-DOWNLOAD-HASH"
    assert len(store(tmp_path).absent(files(index))) == len(DATA)


def test_nothing_is_fetched_offline(index: Index, tmp_path: Path) -> None:
    wanted = files(index)
    store(tmp_path).bring(wanted[:4], [])
    index.requests.clear()

    error = failure(store(tmp_path, "offline", offline=True), wanted)

    assert error.code == "GF-WHEELHOUSE-INCOMPLETE"
    assert "lacks 2 files" in error.message and wanted[5]["name"] in error.message
    assert index.requests == []
    assert store(tmp_path, "offline", offline=True).bring(wanted[:4], []) == 0


def test_a_store_that_cannot_be_written_is_said(index: Index, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the directory belongs")

    assert failure(store(tmp_path), files(index)).code == "GF-WHEELHOUSE-UNWRITABLE"


def test_one_process_is_the_first(tmp_path: Path) -> None:
    assert [store(tmp_path).first("cache") for _time in range(3)] == [True, False, False]
    assert store(tmp_path).first("other cache")


def test_what_was_carried_to_a_shared_place_is_not_carried_again(index: Index, tmp_path: Path) -> None:
    wanted = files(index)
    store(tmp_path).carry("cache:/srv", wanted[:2])

    assert store(tmp_path).carried("cache:/srv", wanted) == wanted[2:]
    assert store(tmp_path).carried("other:/srv", wanted) == wanted


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://mirror.example/files/a.whl", "https://me:secret@mirror.example/files/a.whl"),
        ("https://elsewhere.example/files/a.whl", "https://elsewhere.example/files/a.whl"),
        ("http://mirror.example/files/a.whl", "http://mirror.example/files/a.whl"),
    ],
)
def test_a_password_goes_to_its_own_server_only(url: str, expected: str) -> None:
    assert with_password(url, ["https://me:secret@mirror.example/simple", "https://open.example/simple"]) == expected


def test_small_files_travel_together_and_large_ones_alone() -> None:
    sizes = [LOT_BYTES * 3, 10, 20, LOT_BYTES - 25, None]
    made = [[each["size"] for each in lot] for lot in lots([{"size": size} for size in sizes])]

    assert made == [[10, 20], [LOT_BYTES - 25], [None], [LOT_BYTES * 3]]
    assert list(lots([])) == []


def test_builds_of_python_come_from_the_sites_mirror() -> None:
    build = f"{PUBLISHED}/20261110/cpython.tar.gz"

    assert at_mirror(build, "") == build
    assert (
        at_mirror(build, "https://me:secret@m.example/py/") == "https://me:secret@m.example/py/20261110/cpython.tar.gz"
    )
    assert at_mirror("https://files.example/a.whl", "https://m.example/py") == "https://files.example/a.whl"
