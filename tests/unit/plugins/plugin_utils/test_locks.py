"""Locks, made with the real uv from an index on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import lock_file, lock_resolve, lock_wheels, locks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses
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
    assert lock_wheels.uv_platform(architecture, glibc) == platform


def test_uv_knows_every_platform_that_is_asked_for(index: Index, tmp_path: Path) -> None:
    for architecture in ("x86_64", "aarch64"):
        for minor in lock_wheels.UV_GLIBC_MINORS:
            lock(index, tmp_path, "leaf-node", architecture=architecture, glibc=f"2.{minor}", write=False)


def test_a_second_index_is_asked_too(index: Index, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    build_wheel(other, "torch", "2.0.1+cu118", TORCH, ("leaf-node",))
    build_wheel(other, "leaf-node", "0.1", {"leaf_node.py": "x = 0\n"})
    with serve(other) as second:
        made = lock(index, tmp_path, "torch==2.0.1+cu118", indexes={"torch": second.simple})
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
        locks.uv_wish("x86_64", "2.36", index.simple)


def test_the_uv_of_the_node_is_the_one_of_the_controller(index: Index, tmp_path: Path) -> None:
    version = locks.uv_version()
    tag = "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64"
    wheel = build_wheel(index.folder, "uv", version, {"uv/__init__.py": ""}, tag=tag)
    uv = locks.uv_tool(locks.make(locks.uv_wish("x86_64", "2.36", index.simple), str(tmp_path / "locks")))
    assert (uv["version"], uv["size"]) == (version, wheel.stat().st_size)
    assert set(uv) == {"version", "url", "sha256", "size"}


def test_uvs_reason_is_one_line_without_passwords() -> None:
    text = "warning: nothing\nerror: No solution\n  cause: look at https://me:secret@host/simple\n"
    assert lock_resolve.trim(text) == "No solution - look at https://host/simple"
    assert len(lock_resolve.trim("x" * 5000)) == 600


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Index]:
    """An index of the site's own, or of somebody who has names there that are not his."""
    folder = tmp_path / "site"
    folder.mkdir()
    with serve(folder) as served:
        yield served


def origins(made: locks.Lock, **named: Index) -> dict[str, str]:
    """Which index each package came from."""
    return {
        wheel["name"]: next(name for name, index in named.items() if wheel["url"].startswith(index.url))
        for wheel in made.wheels
    }


def test_a_second_index_gives_nothing_but_what_is_said_to_come_from_it(
    index: Index, site: Index, tmp_path: Path
) -> None:
    build_wheel(site.folder, "torch", "2.0.1+cu118", TORCH, ("leaf-node",))
    build_wheel(site.folder, "leaf-node", "9.0", {"leaf_node.py": "x = 'not ours'\n"})
    made = lock(index, tmp_path, "torch==2.0.1+cu118", indexes={"torch": site.simple})
    assert origins(made, index=index, site=site) == {"leaf-node": "index", "torch": "site"}
    assert [request for request in site.requests if "leaf" in request] == []


def test_what_comes_from_a_second_index_never_comes_from_the_first(index: Index, site: Index, tmp_path: Path) -> None:
    build_wheel(site.folder, "ours", "1.0", {"ours.py": ""}, ("ours-core",))
    build_wheel(site.folder, "ours-core", "1.0", {"ours_core.py": ""})
    indexes = {"ours": site.simple, "ours-core": site.simple}
    # Not there at all, and then there under the same name and newer.
    for attempt in ("alone", "with-a-namesake"):
        made = lock(index, tmp_path, "ours", "leaf-node", indexes=indexes, name=attempt)
        assert origins(made, index=index, site=site) == {"leaf-node": "index", "ours": "site", "ours-core": "site"}
        build_wheel(index.folder, "ours-core", "99.0", {"ours_core.py": "x = 'not ours'\n"})
        build_wheel(index.folder, "ours", "99.0", {"ours.py": "x = 'not ours'\n"})
        shutil.rmtree(tmp_path / "uv-cache")


def test_builds_never_stand_for_each_other(index: Index, tmp_path: Path) -> None:
    for build in ("cpu", "cu118"):
        build_wheel(index.folder, "torch", f"2.0.1+{build}", TORCH)
    for wanted in ("2.0.1", "2.0.1+cpu", "2.0.1+cu118"):
        assert lock(index, tmp_path, f"torch=={wanted}", name=wanted).wheels[-1]["version"] == wanted
    (index.folder / "torch-2.0.1-py3-none-any.whl").unlink()
    shutil.rmtree(tmp_path / "uv-cache")
    assert failure(index, tmp_path, "torch==2.0.1", name="plain").code == "GF-RESOLVE"


def test_a_companion_that_nobody_asked_for_is_of_the_same_build(index: Index, tmp_path: Path) -> None:
    build_wheel(index.folder, "model", "1", {"model.py": ""}, ("torchvision", "torch"))
    build_wheel(index.folder, "torchvision", "0.15.2+cpu", {"torchvision.py": ""})
    error = failure(index, tmp_path, "torch==2.0.1", "model")
    assert error.code == "GF-RESOLVE"
    assert "torchvision would come as build cpu beside torch of the plain build" in error.message


def test_settings_of_the_user_bring_in_no_other_index(
    index: Index, site: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_wheel(site.folder, "leaf-node", "9.0", {"leaf_node.py": "x = 'not ours'\n"})
    home = tmp_path / "config" / "uv"
    home.mkdir(parents=True)
    (home / "uv.toml").write_text(f'[[index]]\nurl = "{site.simple}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home.parent))
    monkeypatch.setenv("UV_EXTRA_INDEX_URL", site.simple)
    monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
    assert origins(lock(index, tmp_path, "leaf-node"), index=index, site=site) == {"leaf-node": "index"}


def test_passwords_reach_the_index_and_nothing_else(index: Index, site: Index, tmp_path: Path) -> None:
    build_wheel(site.folder, "ours", "1.0", {"ours.py": ""})
    for each in (index, site):
        each.login = "me:s%cret"
    known = Addresses()
    bare = known.learn(index.simple.replace("//", "//me:s%25cret@"))
    second = known.learn(site.simple.replace("//", "//me:s%25cret@"))
    assert "cret" not in bare + second
    wish = locks.Wish(["leaf-node", "ours"], "3.11", "x86_64", "2.36", "private", bare, {"ours": second})
    made = locks.make(wish, str(tmp_path / "locks"), known)
    assert [wheel["name"] for wheel in made.wheels] == ["leaf-node", "ours"]
    # The sizes were asked of the files, which want the password too.
    assert made.download_bytes
    assert "cret" not in Path(made.path).read_text()
    with pytest.raises(GpufleetError) as caught:
        locks.make(locks.Wish(["nonesuch"], "3.11", "x86_64", "2.36", "private", bare), str(tmp_path), known)
    assert "cret" not in str(caught.value)


def test_passwords_are_in_no_argument_of_a_process(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    run = vars(subprocess)["run"]
    monkeypatch.setattr(subprocess, "run", lambda command, **more: (seen.append(command), run(command, **more))[1])
    lock(index, tmp_path, index_url=index.simple.replace("//", "//me:secret@"), indexes={"torch": index.simple})
    assert len(seen) == 1
    assert "secret" not in str(seen)


def test_a_lock_of_another_platform_is_refused(index: Index, tmp_path: Path) -> None:
    other = lock(index, tmp_path, architecture="aarch64")
    here = Path(other.path.replace("aarch64", "x86_64"))
    here.write_text(other.text)
    error = failure(index, tmp_path)
    assert error.code == "GF-LOCK-PLATFORM"
    assert "made for Python 3.11 on aarch64" in error.message
    assert here.read_text() == other.text


def test_a_wheel_of_another_platform_is_refused(index: Index, tmp_path: Path) -> None:
    build_wheel(index.folder, "native", "1", {"native.py": ""}, tag="cp311-cp311-manylinux_2_17_aarch64")
    wish = locks.Wish(["native"], "3.11", "aarch64", "2.36", "one")
    foreign = locks.make(locks.Wish(**{**vars(wish), "index_url": index.simple}), str(tmp_path)).wheels
    ours = locks.Wish(["native"], "3.11", "x86_64", "2.36", "one")
    lock_file.write(ours.file(str(tmp_path)), lock_file.render(ours, foreign))
    with pytest.raises(GpufleetError, match=r"has native-1-.*_aarch64\.whl, which") as caught:
        lock_file.kept(ours, str(tmp_path))
    assert caught.value.code == "GF-LOCK-PLATFORM"


def test_a_lock_that_was_cut_off_between_two_packages_is_not_used(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path)
    cut = made.text[: made.text.rindex("[[packages]]")]
    Path(made.path).write_text(cut)
    error = failure(index, tmp_path)
    assert error.code == "GF-LOCK-INVALID"
    assert "digest" in error.message


def test_a_slow_index_is_waited_for(index: Index, tmp_path: Path) -> None:
    index.late = 1.0
    assert len(lock(index, tmp_path).wheels) == 2


def test_an_index_that_takes_the_call_and_never_answers_is_given_up(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.late = 60.0
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    started = time.monotonic()
    error = failure(index, tmp_path)
    assert (error.code, index.simple in error.message) == ("GF-INDEX-UNREACHABLE", True)
    assert time.monotonic() - started < 30
    assert not list(tmp_path.glob("locks/*.toml"))


def test_uv_as_a_whole_is_given_a_time(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.late = 60.0
    monkeypatch.setattr(lock_resolve, "RESOLVE_TIMEOUT", 1)
    error = failure(index, tmp_path)
    assert error.code == "GF-INDEX-UNREACHABLE"
    assert "no answer within 1 s" in error.message


def test_a_dead_index_is_known_as_such_within_a_minute() -> None:
    tries = int(lock_resolve.NETWORK["UV_HTTP_RETRIES"]) + 1
    # uv waits longer before each further try: about one, two and four seconds.
    assert tries * int(lock_resolve.NETWORK["UV_HTTP_TIMEOUT"]) + 2**tries - 2 <= 60


def test_a_lock_of_an_earlier_version_is_made_anew(index: Index, tmp_path: Path) -> None:
    made = lock(index, tmp_path)
    lines = made.text.replace('"indexes": {}', '"extra_index": ""').splitlines(keepends=True)
    Path(made.path).write_text("".join(line for line in lines if not line.startswith(lock_file.DIGEST)))
    assert lock(index, tmp_path).text == made.text
    assert Path(made.path).read_text() == made.text
