"""NVIDIA's installers as files: brought once, whole or not at all, and only the wanted one."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import runfile
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = "580.178.04"
HEADER = f"""#! /bin/sh
CRCsum=2546034232
label="NVIDIA Accelerated Graphics Driver for Linux-x86_64 {VERSION}"
version_string={VERSION}
script=./nvidia-installer
TARGET_OS="Linux"
TARGET_ARCH="x86_64"
    echo "  --rebuild-initramfs, --no-rebuild-initramfs"
    echo "  --skip-module-load"
    echo "  --no-wine-files-at-all"
    echo "  --kernel-module-type=KERNEL-MODULE-TYPE"
"""


def installer(path: Path, text: str = HEADER) -> tuple[str, str]:
    data = text.encode() + b"\x1f\x8b" * 3000
    path.write_bytes(data)
    return str(path), hashlib.sha256(data).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, list[str]]]:
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://user:word@127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_it_is_fetched_once(tmp_path: Path, served: tuple[Path, str, list[str]]) -> None:
    folder, base, asked = served
    _path, digest = installer(folder / "driver.run")
    cached = runfile.cached_path("nvidia_driver", digest, str(tmp_path / "cache"))
    address = base.replace("user:word@", "") + "/driver.run"
    assert runfile.bring(address, digest, cached) is True
    assert runfile.bring(address, digest, cached) is False
    assert asked == ["/driver.run"]


def test_another_file_at_the_address_is_refused_without_the_password(
    tmp_path: Path, served: tuple[Path, str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, base, _asked = served
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    installer(folder / "driver.run")
    cached = tmp_path / "cache/driver.run"
    with pytest.raises(GpufleetError) as caught:
        runfile.bring(base + "/driver.run", "0" * 64, str(cached))
    assert caught.value.code == "GF-RUNFILE-HASH"
    assert "word" not in str(caught.value)
    assert not cached.exists()


def test_it_is_copied_where_the_node_has_it_and_a_cut_off_one_is_refused(tmp_path: Path) -> None:
    place, digest = installer(tmp_path / "driver.run")
    cached = tmp_path / "cache/one.run"
    assert runfile.bring(place, digest, str(cached)) is True
    (tmp_path / "driver.run").write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(GpufleetError) as caught:
        runfile.bring(place, digest, str(tmp_path / "cache/two.run"))
    assert caught.value.code == "GF-RUNFILE-HASH"
    assert "bytes" in caught.value.message
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one.run"]


def test_a_path_that_the_node_does_not_have_is_told(tmp_path: Path) -> None:
    assert runfile.bring("/nowhere/driver.run", "0" * 64, str(tmp_path / "cache/x.run")) is None
    assert runfile.nowhere("/nowhere/driver.run").code == "GF-RUNFILE-NOWHERE"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEADER.replace(f"version_string={VERSION}", "version_string=570.211.01"), "570.211.01"),
        (HEADER.replace('TARGET_ARCH="x86_64"', 'TARGET_ARCH="aarch64"'), "aarch64"),
        (HEADER.replace("nvidia-installer", "cuda-installer"), "nvidia-installer"),
        (HEADER.replace("#! /bin/sh", "<html>"), "nvidia-installer"),
        (
            HEADER.replace(f"version_string={VERSION}\n", "").replace(f"x86_64 {VERSION}", "x86_64 535.54.03"),
            "535.54.03",
        ),
    ],
)
def test_another_installer_is_refused(tmp_path: Path, text: str, part: str) -> None:
    place, _digest = installer(tmp_path / "driver.run", text)
    with pytest.raises(GpufleetError) as caught:
        runfile.check(place, "nvidia_driver", VERSION, "x86_64", "/srv/driver.run")
    assert caught.value.code == "GF-RUNFILE-FOREIGN"
    assert part in caught.value.message


def test_options_are_known_by_the_installers_own_help(tmp_path: Path) -> None:
    place, _digest = installer(tmp_path / "driver.run")
    header = runfile.check(place, "nvidia_driver", VERSION, "x86_64", place)
    wanted = [
        "--no-rebuild-initramfs",
        "--skip-module-load",
        "--no-wine-files",
        "--kernel-module-type=open",
        "--skip-module",
    ]
    assert runfile.known(header, wanted) == [
        "--no-rebuild-initramfs",
        "--skip-module-load",
        "--kernel-module-type=open",
    ]
