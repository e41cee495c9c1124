"""A portable wheelhouse: packed from kept facts, sealed, and enough for a run that asks nobody."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.node import SCHEMA
from ansible_collections.gpufleet.stack.plugins.plugin_utils import (
    facts_cache,
    fleet_locks,
    lock_file,
    locks,
    planning,
    wheelhouse_pack,
    wheelhouse_seal,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.locks import Wish
from ansible_collections.gpufleet.stack.plugins.plugin_utils.offline_locks import OfflineLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import Site
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel, serve

from .factory import facts

WHEELS = {
    "torch": "2.0.1",
    "torchvision": "0.15.2",
    "torchaudio": "2.0.2",
    "numpy": "1.26.4",
    "pip": "24.0",
    "setuptools": "69.0",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "controller-cache"))
    # What stands for uv's own wheel is found under the version that the controller has.
    folder = tmp_path / "served"
    folder.mkdir()
    for name, version in {**WHEELS, "uv": locks.uv_version()}.items():
        build_wheel(folder, name, version, {f"{name}.py": "x = 1\n"})
    with serve(folder) as served:
        yield served


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "key")


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def probe() -> dict[str, Any]:
    return {**facts(), "receipts": {}, "verdict": None, "schema": SCHEMA}


def wishes(index: Index) -> dict[str, Any]:
    return {"pytorch_cuda": "cu117", "pytorch_index_url": index.simple}


def pack(index: Index, tmp_path: Path, key: str = "", run: str = "pack") -> dict[str, Any]:
    facts_cache.keep(str(tmp_path / "facts"), "n1", probe())
    (tmp_path / run).mkdir()
    house = tmp_path / "house"
    packer = wheelhouse_pack.Packer(
        str(tmp_path / "facts"), fleet_locks.RunLocks(str(house / "locks"), write=True, scratch=str(tmp_path / run))
    )
    packer.pack("n1", wishes(index))
    assert packer.refused == {}
    return wheelhouse_pack.write(Store(str(house), str(tmp_path / run)), list(packer.files.values()), ["n1"], [], key)


def offline(index: Index, tmp_path: Path, **wanted: Any) -> dict[str, Any]:
    (tmp_path / "offline").mkdir(exist_ok=True)
    store = Store(str(tmp_path / "house"), str(tmp_path / "offline"), offline=True)
    run = OfflineLocks(f"{store.directory}/locks", write=False, scratch=str(tmp_path / "offline"))
    said = {**wishes(index), "gpufleet_offline": True, **wanted}
    return planning.make_plan(copy.deepcopy(probe()), said, run, site=Site(store))


def test_a_packed_wheelhouse_is_enough_for_a_plan_that_asks_nobody(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pack(index, tmp_path)
    assert made["files"] == len(WHEELS) + 1 and made["fetched"] == made["bytes"] and made["changed"]
    index.requests.clear()
    # The controller of the site has no uv of its own.
    monkeypatch.setattr(locks, "uv_path", lambda: pytest.fail("uv was asked"))

    plan = offline(index, tmp_path)

    assert plan["conflicts"] == []
    assert plan["wheelhouse"]["way"] == "copy"
    assert {each["name"] for each in plan["wheelhouse"]["files"]} == {path.name for path in index.folder.glob("*.whl")}
    assert index.requests == []


def test_of_several_uvs_the_newest_is_taken(tmp_path: Path) -> None:
    node = facts()["node"]
    # As text 0.9.9 is the newest.
    for version in ("0.13.9", "0.9.9", "0.10.2"):
        wish = Wish([f"uv=={version}"], locks.UV_PYTHON, node["architecture"], node["glibc"], f"uv-{version}")
        wheel = {
            "name": "uv",
            "version": version,
            "url": "https://site/uv-py3-none-any.whl",
            "sha256": "0" * 64,
            "size": 1,
        }
        lock_file.write(wish.file(str(tmp_path)), lock_file.render(wish, [wheel]))

    run = OfflineLocks(str(tmp_path), write=False, scratch=str(tmp_path))

    assert run.uv(node["architecture"], node["glibc"])["version"] == "0.13.9"


def test_it_is_fetched_once(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)
    index.requests.clear()

    again = pack(index, tmp_path, run="again")

    assert (again["fetched"], again["changed"]) == (0, False)
    assert index.requests == []


def test_a_wish_that_was_not_packed_is_a_conflict(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)

    plan = offline(index, tmp_path, pytorch_environments=[{"name": "other"}])

    assert [each["code"] for each in plan["conflicts"]] == ["GF-OFFLINE-LOCK"]


def test_a_file_that_was_lost_on_the_way_is_a_conflict(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)
    next((tmp_path / "house").glob("*/torchaudio-*")).unlink()

    plan = offline(index, tmp_path)

    assert [each["code"] for each in plan["conflicts"]] == ["GF-WHEELHOUSE-INCOMPLETE"]
    assert "torchaudio-2.0.2" in plan["conflicts"][0]["message"]


def test_sha256sum_understands_the_checksums(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)

    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path / "house",
        capture_output=True,
        check=True,
        text=True,
    )

    lines = done.stdout.splitlines()
    assert len(lines) == len(WHEELS) + 1 + 2 + 1 and all(line.endswith(": OK") for line in lines)
    about = json.loads((tmp_path / "house/wheelhouse.json").read_text())
    assert about["nodes"] == ["n1"] and len(about["files"]) == len(WHEELS) + 1


def test_the_signature_is_checked(index: Index, tmp_path: Path, key: Path) -> None:
    pack(index, tmp_path, str(key))
    house, public = str(tmp_path / "house"), key.with_suffix(".pub")

    wheelhouse_seal.verify(house, str(public))
    wheelhouse_seal.verify(house, public.read_text())
    wheelhouse_seal.verify(house, "")

    other = make_key(tmp_path / "other").with_suffix(".pub")
    assert code(house, str(other)) == "GF-WHEELHOUSE-SIGNATURE"
    assert code(house, str(tmp_path / "nowhere.pub")) == "GF-WHEELHOUSE-SIGNATURE"
    sums = tmp_path / "house/SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  more\n")
    assert code(house, str(public)) == "GF-WHEELHOUSE-SIGNATURE"
    (tmp_path / "house/SHA256SUMS.sig").unlink()
    assert code(house, str(public)) == "GF-WHEELHOUSE-SIGNATURE"


def code(directory: str, signer: str) -> str:
    with pytest.raises(GpufleetError) as caught:
        wheelhouse_seal.verify(directory, signer)
    return caught.value.code


def test_a_lock_that_was_changed_is_not_used(index: Index, tmp_path: Path) -> None:
    pack(index, tmp_path)
    house = str(tmp_path / "house")
    lock = next((tmp_path / "house/locks").glob("pylock.default*"))
    former = lock.read_text()
    lock.write_text(former.replace(hashlib.sha256(b"").hexdigest()[:1], "0"))
    assert code(house, "") == "GF-WHEELHOUSE-UNSEALED"
    lock.write_text(former)
    wheelhouse_seal.verify(house, "")
    lock.with_name("pylock.more.toml").write_text(former)
    assert code(house, "") == "GF-WHEELHOUSE-UNSEALED"
    lock.with_name("pylock.more.toml").unlink()
    lock.unlink()
    assert code(house, "") == "GF-WHEELHOUSE-UNSEALED"


def test_another_directory_is_no_wheelhouse(tmp_path: Path) -> None:
    assert code(str(tmp_path), "") == "GF-WHEELHOUSE-UNSEALED"


@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_a_key_that_cannot_sign_is_said(index: Index, tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "locked"
    if passphrase:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)
    with pytest.raises(GpufleetError) as caught:
        pack(index, tmp_path, str(path))
    assert caught.value.code == "GF-WHEELHOUSE-KEY"
    assert not (tmp_path / "house/SHA256SUMS.sig").exists()


def test_a_node_that_nobody_looked_at_is_named(index: Index, tmp_path: Path) -> None:
    packer = wheelhouse_pack.Packer(str(tmp_path), fleet_locks.RunLocks(str(tmp_path / "locks"), write=True))
    packer.pack("unseen", wishes(index))
    assert [reason.partition(":")[0] for reason in packer.refused] == ["GF-FACTS-MISSING"]


def test_files_that_a_site_names_go_along(index: Index, tmp_path: Path) -> None:
    content = b"#!/bin/sh\n"
    (tmp_path / "NVIDIA Linux.run").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    packer = wheelhouse_pack.Packer(str(tmp_path), fleet_locks.RunLocks(str(tmp_path / "house/locks"), write=True))
    packer.take([{"file": str(tmp_path / "NVIDIA Linux.run"), "sha256": sha256.upper()}])
    store = Store(str(tmp_path / "house"), str(tmp_path))
    (tmp_path / "house/locks").mkdir(parents=True)

    made = wheelhouse_pack.write(store, list(packer.files.values()), [], [], "")

    assert (made["files"], made["fetched"]) == (1, len(content))
    assert (tmp_path / "house" / sha256 / "NVIDIA Linux.run").read_bytes() == content
    assert f"{sha256}  {sha256}/NVIDIA Linux.run" in (tmp_path / "house/SHA256SUMS").read_text()
