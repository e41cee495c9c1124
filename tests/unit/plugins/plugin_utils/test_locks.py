"""Locks, made with the real uv from an index on this machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import TORCH, Index, build_wheel, serve


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "1")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "wheels"
    folder.mkdir()
    build_wheel(folder, "torch", "2.0.1", TORCH, ("leaf-node",))
    build_wheel(folder, "leaf-node", "1.0", {"leaf_node.py": "x = 1\n"})
    with serve(folder) as served:
        yield served


def lock(index: Index, tmp_path: Path, *requirements: str, **more: Any) -> locks.Lock:
    wanted = {
        "python": "3.11",
        "architecture": "x86_64",
        "glibc": "2.36",
        "lock_directory": str(tmp_path / "locks"),
        "name": "default-torch2.0.1",
        "index_url": index.simple,
        **more,
    }
    return locks.ensure_lock(list(requirements) or ["torch==2.0.1"], **wanted)


def test_a_lock_has_every_wheel_with_address_digest_and_size(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path)
    assert [(wheel["name"], wheel["version"]) for wheel in made.wheels] == [("leaf-node", "1.0"), ("torch", "2.0.1")]
    sizes = [path.stat().st_size for path in index.folder.glob("*.whl")]
    assert made.download_bytes == sum(sizes)
    assert all(wheel["url"].startswith(index.url) and len(wheel["sha256"]) == 64 for wheel in made.wheels)
    assert Path(made.path).name == "pylock.default-torch2_0_1-py3_11-x86_64-glibc2_36.toml"
    assert Path(made.path).read_text() == made.text
    assert index.url in made.text


def test_a_lock_at_hand_is_used_without_asking_the_index(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path)
    index.mode = "503"
    index.requests.clear()
    assert lock(index, tmp_path) == made
    assert index.requests == []


def test_other_requirements_make_another_lock(index: Index, tmp_path: Path) -> None:
    lock(index, tmp_path)
    made = lock(index, tmp_path, "leaf-node==1.0")
    assert [wheel["name"] for wheel in made.wheels] == ["leaf-node"]
    assert Path(made.path).read_text() == made.text


def test_a_dry_run_writes_nothing(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path, write=False)
    assert len(made.wheels) == 2
    assert not (tmp_path / "locks").exists()


def test_of_several_wheels_the_one_the_node_would_take(index: Index, tmp_path: Path) -> None:
    for tag in (
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp37-abi3-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_38_x86_64",
    ):
        build_wheel(index.folder, "many", "1", {"many.py": ""}, tag=tag)
    for build in ("1", "2"):
        build_wheel(index.folder, "built", "1", {"built.py": ""}, tag="py3-none-manylinux1_x86_64", build=build)
    build_wheel(index.folder, "many", "1", {"many.py": ""})
    built, many = lock(index, tmp_path, "many", "built").wheels
    assert many["url"].endswith("many-1-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert built["url"].endswith("built-1-2-py3-none-manylinux1_x86_64.whl")


@pytest.mark.parametrize(
    ("architecture", "glibc", "platform"),
    [
        ("x86_64", "2.36", "x86_64-manylinux_2_36"),
        ("x86_64", "2.41", "x86_64-manylinux_2_40"),
        ("aarch64", "2.31", "aarch64-manylinux_2_31"),
        ("x86_64", "2.30", "x86_64-manylinux_2_28"),
        ("x86_64", "2.27", "x86_64-manylinux_2_17"),
        ("x86_64", None, "x86_64-manylinux_2_17"),
    ],
)
def test_platform(architecture: str, glibc: str | None, platform: str) -> None:
    assert locks.uv_platform(architecture, glibc) == platform


def test_uv_knows_every_platform_that_is_asked_for(index: Index, tmp_path: Path) -> None:
    for architecture in ("x86_64", "aarch64"):
        for minor in locks.UV_GLIBC_MINORS:
            lock(index, tmp_path, "leaf-node", architecture=architecture, glibc=f"2.{minor}", write=False)


def test_a_second_index_is_asked_too(index: Index, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    build_wheel(other, "torch", "2.0.1+cu118", TORCH, ("leaf-node",))
    build_wheel(other, "leaf-node", "0.1", {"leaf_node.py": "x = 0\n"})
    with serve(other) as second:
        made = lock(index, tmp_path, "torch==2.0.1+cu118", extra_index_url=second.simple)
    assert [wheel["version"] for wheel in made.wheels] == ["1.0", "2.0.1+cu118"]


def test_passwords_are_not_written(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path, index_url=index.simple.replace("//", "//me:secret@"))
    assert "secret" not in made.text


def failure(index: Index, tmp_path: Path, *requirements: str, **more: Any) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        lock(index, tmp_path, *requirements, **more)
    return caught.value


def test_no_such_version(index: Index, tmp_path: Path) -> None:
    error = failure(index, tmp_path, "torch==9.9")
    assert error.code == "GF-RESOLVE"
    assert "there is no version of torch==9.9" in error.message


def test_no_such_package(index: Index, tmp_path: Path) -> None:
    error = failure(index, tmp_path, "nonesuch")
    assert error.code == "GF-RESOLVE"
    assert "nonesuch was not found" in error.message


def test_no_wheel_for_the_platform(index: Index, tmp_path: Path) -> None:
    build_wheel(index.folder, "newer", "1", {}, tag="cp311-cp311-manylinux_2_38_x86_64")
    assert failure(index, tmp_path, "newer").code == "GF-RESOLVE"


def test_an_index_that_fails(index: Index, tmp_path: Path) -> None:
    index.mode = "503"
    error = failure(index, tmp_path)
    assert error.code == "GF-INDEX-UNREACHABLE"
    assert index.simple in error.message
    assert not list(tmp_path.glob("locks/*.toml"))


def test_an_index_that_is_not_there(index: Index, tmp_path: Path) -> None:
    error = failure(index, tmp_path, index_url="http://me:secret@127.0.0.1:9/simple")
    assert error.code == "GF-INDEX-UNREACHABLE"
    assert "http://127.0.0.1:9/simple" in error.message
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[[packages]]", "[[packages"),
        ("# made-for: {", "# made-for: "),
        ("# made-for: {", "# made by hand {"),
        ("sha256 = ", "md5 = "),
        ("wheels = [", "others = ["),
        ('sha256 = "', 'sha256 = "x'),
        ("[[packages]]", "[[things]]"),
    ],
)
def test_a_broken_lock_is_not_used(index: Index, tmp_path: Path, old: str, new: str) -> None:
    made = lock(index, tmp_path)
    broken = made.text.replace(old, new)
    Path(made.path).write_text(broken)
    error = failure(index, tmp_path)
    assert error.code == "GF-LOCK-INVALID"
    assert made.path in error.fix
    assert Path(made.path).read_text() == broken


def test_a_directory_that_cannot_be_written(index: Index, tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    assert failure(index, tmp_path).code == "GF-LOCK-INVALID"


def test_no_uv(monkeypatch: pytest.MonkeyPatch, index: Index, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    error = failure(index, tmp_path)
    assert error.code == "GF-UV-MISSING"
    assert error.fix.endswith("pip install uv")


def test_a_uv_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, index: Index, tmp_path: Path) -> None:
    broken = tmp_path / "uv"
    broken.write_text("#!/bin/sh\necho no >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(GpufleetError, match="does not answer with a version: no"):
        locks.uv_tool("x86_64", "2.36", str(tmp_path / "locks"), index.simple)


def test_the_uv_of_the_node_is_the_one_of_the_controller(index: Index, tmp_path: Path) -> None:
    version = locks.uv_version()
    tag = "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64"
    wheel = build_wheel(index.folder, "uv", version, {"uv/__init__.py": ""}, tag=tag)
    uv = locks.uv_tool("x86_64", "2.36", str(tmp_path / "locks"), index.simple)
    assert (uv["version"], uv["size"]) == (version, wheel.stat().st_size)
    assert set(uv) == {"version", "url", "sha256", "size"}


def test_uvs_reason_is_one_line_without_passwords() -> None:
    text = "warning: nothing\nerror: No solution\n  cause: look at https://me:secret@host/simple\n"
    assert locks.trim(text) == "No solution - look at https://host/simple"
    assert len(locks.trim("x" * 5000)) == 600
