"""Wheels from a directory or an address in place of the lock's own addresses."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_shared,
    environments,
    wheelhouse,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.modules import wheelhouse as module
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import TORCH, Index, build_wheel, serve

HASH = "a" * 64
URL = "https://files.example/some/torch-2.0.1%2Bcu118-cp311-cp311-linux_x86_64.whl"
NAME = "torch-2.0.1+cu118-cp311-cp311-linux_x86_64.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "controller-cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    build_wheel(folder, "torch", "2.0.1", TORCH, ("leaf",))
    build_wheel(folder, "leaf", "1.0", {"leaf.py": "x = 1\n"})
    with serve(folder) as served:
        yield served


def lock(index: Index, tmp_path: Path) -> locks.Lock:
    return locks.ensure_lock(
        ["torch==2.0.1"],
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        architecture=platform.machine(),
        glibc=platform.libc_ver()[1],
        lock_directory=str(tmp_path / "locks"),
        name="default",
        index_url=index.simple,
    )


def fill(folder: Path, index: Index, text: str) -> None:
    for each in wheelhouse.locked_files(text):
        target = Path(wheelhouse.place(str(folder), each["name"], each["sha256"]))
        target.parent.mkdir(parents=True)
        target.write_bytes((index.folder / each["name"]).read_bytes())


def wanted(index: Index, tmp_path: Path, base: str) -> Wanted:
    made = lock(index, tmp_path)
    uv = tmp_path / f"opt/tools/uv-{locks.uv_version()}/uv"
    if not uv.exists():
        uv.parent.mkdir(parents=True)
        uv.symlink_to(locks.uv_path())
    return Wanted(
        name="default",
        path=str(tmp_path / "opt/envs/default/one"),
        link=str(tmp_path / "opt/envs/default/current"),
        interpreter=os.path.realpath(sys.executable),
        lock_text=made.text,
        lock_sha256=made.sha256,
        torch_version="2.0.1+cu117",
        cuda="11.7",
        companions={},
        uv={"version": locks.uv_version(), "url": "", "sha256": "", "size": None},
        prefix=str(tmp_path / "opt"),
        cache_dir=str(tmp_path / "opt/cache"),
        wheelhouse=base,
    )


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("", URL),
        ("http://cache:8400", f"http://cache:8400/{HASH}/torch-2.0.1%2Bcu118-cp311-cp311-linux_x86_64.whl"),
        ("http://cache/house/", f"http://cache/house/{HASH}/torch-2.0.1%2Bcu118-cp311-cp311-linux_x86_64.whl"),
        ("/a b", f"file:///a%20b/{HASH}/torch-2.0.1%2Bcu118-cp311-cp311-linux_x86_64.whl"),
    ],
)
def test_an_address_in_the_wheelhouse(base: str, expected: str) -> None:
    assert wheelhouse.file_name(URL) == NAME
    assert wheelhouse.address(base, URL, HASH) == expected


def test_the_locks_of_this_collection_can_be_rewritten(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path)

    assert [{key: each[key] for key in ("url", "sha256", "size")} for each in made.wheels] == [
        {key: each[key] for key in ("url", "sha256", "size")} for each in wheelhouse.locked_files(made.text)
    ]
    text = wheelhouse.rewritten(made.text, "http://cache")
    assert index.url not in text.partition("lock-version")[2]
    assert [each["url"] for each in wheelhouse.locked_files(text)] == [
        f"http://cache/{each['sha256']}/{each['url'].rpartition('/')[2]}" for each in made.wheels
    ]


@pytest.mark.parametrize("kind", ["directory", "address"])
def test_an_environment_is_built_from_the_wheelhouse_alone(index: Index, tmp_path: Path, kind: str) -> None:
    house = tmp_path / "house"
    want = wanted(index, tmp_path, str(house))
    fill(house, index, want.lock_text)
    index.requests.clear()
    index.mode = "503"
    if kind == "directory":
        made = environments.ensure(want)
    else:
        with serve_tree(house) as base:
            made = environments.ensure(dataclasses.replace(want, wheelhouse=base))
    assert made["action"] == "built"
    # What lies on the node, or on a file system of the site, is not fetched.
    assert (made["fetched_bytes"] > 0) == (kind == "address")

    assert index.requests == []
    assert (Path(want.path) / "pylock.toml").read_text() == want.lock_text
    assert not (Path(want.path) / "pylock.wheelhouse.toml").exists()


def test_a_spoiled_wheel_of_the_wheelhouse_is_refused(index: Index, tmp_path: Path) -> None:
    house = tmp_path / "house"
    want = wanted(index, tmp_path, str(house))
    fill(house, index, want.lock_text)
    (tmp_path / "other").mkdir()
    other = build_wheel(tmp_path / "other", "leaf", "1.0", {"leaf.py": "x = 2\n"})
    next(house.glob("*/leaf-*")).write_bytes(other.read_bytes())

    with pytest.raises(GpufleetError) as caught:
        environments.ensure(want)

    assert caught.value.code == "GF-DOWNLOAD-HASH"
    assert not os.path.lexists(want.link)


def test_a_shared_environment_is_built_once_and_used_as_it_is(index: Index, tmp_path: Path) -> None:
    want = dataclasses.replace(wanted(index, tmp_path, ""), shared=True)
    assert environments.ensure(want)["action"] == "built"
    index.mode = "503"
    module_of_torch = next(Path(want.path).glob("lib/*/site-packages/leaf.py"))
    module_of_torch.write_text("x = 2\n")

    other = environments.ensure(want)

    assert (other["changed"], other["bytes"]) == (False, 0)
    # The node that builds is the one that reads every file.
    assert environments.ensure(dataclasses.replace(want, shared=False), check_mode=True)["action"] == "repaired"


def test_a_shared_environment_is_imported_on_every_node(index: Index, tmp_path: Path) -> None:
    want = dataclasses.replace(wanted(index, tmp_path, ""), shared=True)
    environments.ensure(want)
    next(Path(want.path).glob("lib/*/site-packages/torch/__init__.py")).write_text(
        "raise ImportError('no such library')\n"
    )

    with pytest.raises(GpufleetError) as caught:
        environments.ensure(want)

    assert caught.value.code == "GF-TORCH-IMPORT"


def test_a_node_that_may_only_read_waits_for_the_one_that_builds(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_shared, "PAUSE", 0.05)
    want = dataclasses.replace(wanted(index, tmp_path, ""), shared=True, lock_wait=60)
    may_write = {"reader": False, "builder": True}
    monkeypatch.setattr(environment_shared, "may_write", lambda _path: may_write[threading.current_thread().name])
    done: dict[str, str] = {}

    def node() -> None:
        done[threading.current_thread().name] = environments.ensure(want)["action"]

    reader, builder = (threading.Thread(target=node, name=name) for name in ("reader", "builder"))
    reader.start()
    time.sleep(0.3)
    assert done == {}
    builder.start()
    builder.join(120)
    reader.join(120)

    assert done == {"builder": "built", "reader": "none"}


def test_a_node_that_may_only_read_says_so_when_nobody_builds(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_shared, "PAUSE", 0.05)
    want = dataclasses.replace(wanted(index, tmp_path, ""), shared=True, lock_wait=0.2)
    monkeypatch.setattr(environment_shared, "may_write", lambda _path: False)
    monkeypatch.setattr(environments.os, "makedirs", refuse)

    with pytest.raises(GpufleetError) as caught:
        environments.ensure(want)

    assert caught.value.code == "GF-RIGHTS"


def refuse(path: str, *_args: object, **_more: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def serve_tree(folder: Path):  # type: ignore[no-untyped-def]
    """The directory as a web server has it."""
    import contextlib
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            """Quiet."""

    @contextlib.contextmanager
    def serving() -> Iterator[str]:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    return serving()


def arrived(tmp_path: Path, *contents: bytes) -> list[dict[str, str]]:
    """Files as they were copied to a node: by their SHA-256."""
    files = []
    (tmp_path / "incoming").mkdir()
    for number, content in enumerate(contents):
        sha256 = hashlib.sha256(content).hexdigest()
        (tmp_path / "incoming" / sha256).write_bytes(content)
        files.append({"name": f"file_{number}-1-py3-none-any.whl", "sha256": sha256})
    return files


def test_what_arrives_is_checked_and_lies_by_its_digest(tmp_path: Path) -> None:
    house = str(tmp_path / "house")
    files = arrived(tmp_path, b"one", b"two")
    assert wheelhouse.lacking(house, files) == files

    module.arrive(house, files, str(tmp_path / "incoming"))

    assert wheelhouse.lacking(house, files) == []
    path = Path(wheelhouse.place(house, files[0]["name"], files[0]["sha256"]))
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o644
    page = (tmp_path / "house/simple/file-0/index.html").read_text()
    assert f'href="../../{files[0]["sha256"]}/{files[0]["name"]}#sha256={files[0]["sha256"]}"' in page
    path.write_bytes(b"own")
    assert wheelhouse.lacking(house, files) == files[:1]


def test_what_arrives_spoiled_is_not_kept(tmp_path: Path) -> None:
    files = arrived(tmp_path, b"one", b"two")
    (tmp_path / "incoming" / files[0]["sha256"]).write_bytes(b"On")

    with pytest.raises(GpufleetError) as caught:
        module.arrive(str(tmp_path / "house"), files, str(tmp_path / "incoming"))

    assert caught.value.code == "GF-WHEELHOUSE-SPOILED"
    assert files[0]["name"] in caught.value.message
    assert wheelhouse.lacking(str(tmp_path / "house"), files) == files[:1]
    assert [path.name for path in (tmp_path / "house" / files[0]["sha256"]).iterdir()] == []


def test_a_proxy_is_not_asked_for_the_wheelhouse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("NO_PROXY", "")

    wheelhouse.keep_off_proxies("/srv/wheelhouse")
    assert os.environ["no_proxy"] == "localhost"

    wheelhouse.keep_off_proxies("http://cache:8400")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "localhost,cache"
