"""Which way wheels come, and which of them a node needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog, wheelhouse_plan
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_plan import Site
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

from .factory import facts

CACHES = ({"host": "c1", "address": "10.0.0.1", "port": 8400}, {"host": "c2", "address": "c2", "port": 80})
MANAGED = "/opt/gpufleet/python/3.11.18-20261110"
PATH, CUDNN = "/opt/gpufleet/envs/default/one", "/opt/gpufleet/cudnn/8.9.6.50-cuda11"


def wheel(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "version": "1", "url": f"https://i.example/{name}.whl", "sha256": name * 64, "size": size}


def lock(*wheels: dict[str, Any]) -> str:
    return "\n".join(
        f'[[packages]]\nwheels = [{{ url = "{each["url"]}", size = {each["size"]}, hashes = {{ sha256 = "{each["sha256"]}" }} }}]'
        for each in wheels
    )


def plan(
    *, needed: bool = True, because: str = "it was never completed on this node", there: tuple[str, ...] = ()
) -> Any:
    stage = {"needed": needed, "because": because, "digest": "d"}
    return {
        "ok": True,
        "facts": {"cuda": {"torch": [{"path": path} for path in there], "toolkits": [], "cudnn": []}},
        "stages": {
            "python": {**stage, "managed": [], "uv": None},
            "pytorch": {
                **stage,
                "environments": [{"path": PATH, "lock": {"text": lock(wheel("a", 5), wheel("b", 7))}}],
                "uv": wheel("c", 1),
            },
            "cuda_toolkit": {**stage, "toolkits": [{"path": "/usr/local/cuda-11.8", "wheels": []}]},
            "cudnn": {**stage, "cudnns": [{"path": CUDNN, "wheel": wheel("d", 9)}]},
        },
    }


@pytest.mark.parametrize(
    ("wanted", "caches", "number", "way", "base"),
    [
        ({}, (), 0, "index", ""),
        ({}, CACHES, 0, "cache", "http://10.0.0.1:8400"),
        ({}, CACHES, 3, "cache", "http://c2:80"),
        ({"gpufleet_wheelhouse": "index"}, CACHES, 0, "index", ""),
        ({"gpufleet_offline": True}, (), 0, "copy", "/opt/gpufleet/cache/wheelhouse"),
        ({"gpufleet_wheelhouse": "copy", "gpufleet_cache_dir": "/c"}, CACHES, 0, "copy", "/c/wheelhouse"),
        ({"gpufleet_wheelhouse": "/nfs/wheels"}, CACHES, 0, "shared", "/nfs/wheels"),
        ({"gpufleet_wheelhouse": "https://web/wheels"}, CACHES, 0, "address", "https://web/wheels"),
    ],
)
def test_the_way(wanted: dict[str, Any], caches: Any, number: int, way: str, base: str) -> None:
    chosen = wheelhouse_plan.route(wanted, Site(None, caches, number))

    assert (chosen["way"], chosen["base"]) == (way, base)


def test_nodes_take_turns_with_the_caches(tmp_path: Path) -> None:
    variables = {
        "groups": {"all": ["c1", "n1", "n2", "n3"], "gpufleet_cache": ["c1"]},
        "hostvars": {"c1": {"ansible_host": "10.0.0.9", "gpufleet_cache_port": 8500}},
        "inventory_hostname": "n3",
    }
    site = wheelhouse_plan.site_of(variables, Store(str(tmp_path), str(tmp_path)))

    assert site.caches == ({"host": "c1", "address": "10.0.0.9", "port": 8500},)
    assert site.number == 2


def test_a_bare_node_needs_all_files_with_the_tool_that_installs_them() -> None:
    made = wheelhouse_plan.make(plan(), {}, {}, wheelhouse_plan.ALONE)

    assert [(each["role"], each["name"]) for each in made["files"]] == [
        ("pytorch", "a.whl"),
        ("pytorch", "b.whl"),
        ("pytorch", "c.whl"),
        ("cudnn", "d.whl"),
    ]
    assert made["bytes"] == 22


@pytest.mark.parametrize(
    ("because", "digest", "files"),
    [
        ("/etc/profile.d/gpufleet-pytorch.sh was edited", "d", 0),
        (f"{PATH} was changed", "d", 3),
        ("the plan for it has changed", "other", 3),
    ],
)
def test_a_stage_that_runs_for_another_part_needs_no_wheels(because: str, digest: str, files: int) -> None:
    receipts = {role: {"digest": digest} for role in ("pytorch", "cuda_toolkit")}

    made = wheelhouse_plan.make(plan(because=because, there=(PATH,)), {}, receipts, wheelhouse_plan.ALONE)

    assert len([each for each in made["files"] if each["role"] == "pytorch"]) == files


def test_a_node_that_needs_nothing_needs_no_files() -> None:
    assert wheelhouse_plan.make(plan(needed=False), {}, {}, wheelhouse_plan.ALONE)["files"] == []


def test_a_cache_that_nobody_is(tmp_path: Path) -> None:
    wanted = {"gpufleet_wheelhouse": "cache"}
    made = wheelhouse_plan.make(plan(), wanted, {}, wheelhouse_plan.ALONE)

    with pytest.raises(GpufleetError) as caught:
        wheelhouse_plan.check(made, wanted, wheelhouse_plan.ALONE)

    assert caught.value.code == "GF-WHEELHOUSE-NO-CACHE"


def test_what_an_offline_run_lacks_is_known_before_a_node_is_touched(tmp_path: Path) -> None:
    wanted = {"gpufleet_offline": True}
    site = Site(Store(str(tmp_path / "store"), str(tmp_path), offline=True))
    made = wheelhouse_plan.make(plan(), wanted, {}, site)

    with pytest.raises(GpufleetError) as caught:
        wheelhouse_plan.check(made, wanted, site)

    assert caught.value.code == "GF-WHEELHOUSE-INCOMPLETE"
    assert "lacks 4 files" in caught.value.message


@pytest.mark.parametrize(("scope", "code"), [("node", ["GF-PREFIX-READONLY"]), ("shared", [])])
def test_a_shared_prefix_may_be_read_only_on_a_node(scope: str, code: list[str]) -> None:
    node = facts()
    node["node"]["prefix"] = {"path": "/nfs/gpufleet", "writable": False, "free_mib": None}

    answer = resolve(node, {"pytorch_scope": scope}, catalog.load())

    assert [each["code"] for each in answer["conflicts"]] == code


def test_copies_count_on_the_nodes_disk() -> None:
    made = wheelhouse_plan.make(plan(), {"gpufleet_wheelhouse": "copy"}, {}, wheelhouse_plan.ALONE)

    assert [part.disk_mib for part in wheelhouse_plan.copies({**made, "bytes": 3 << 20})] == [3]
    assert wheelhouse_plan.copies({**made, "way": "cache"}) == []


def with_python(**changes: Any) -> Any:
    made = plan(there=(PATH, CUDNN), **changes)
    interpreter = {"path": MANAGED, "full_version": "3.11.18", "release": "20261110", "architecture": "x86_64"}
    made["stages"]["python"].update(managed=[{**interpreter, "sha256": "e" * 64, "size": None}], uv=wheel("c", 1))
    return made


def test_a_managed_python_comes_the_same_way_with_the_tool_that_unpacks_it() -> None:
    made = wheelhouse_plan.make(with_python(), {}, {}, wheelhouse_plan.ALONE)
    files = [each for each in made["files"] if each["role"] == "python"]
    name = "cpython-3.11.18+20261110-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
    assert [each["name"] for each in files] == [name, "c.whl"]
    assert files[0]["url"].endswith("/20261110/" + name.replace("+", "%2B"))


@pytest.mark.parametrize(("because", "count"), [("package g++ was 1, is 2", 0), (f"directory {MANAGED} is gone", 2)])
def test_an_interpreter_that_is_there_is_not_brought_again(because: str, count: int) -> None:
    receipts = {role: {"digest": "d"} for role in ("python", "pytorch", "cudnn")}
    made = wheelhouse_plan.make(with_python(because=because), {}, receipts, wheelhouse_plan.ALONE)
    assert len([each for each in made["files"] if each["role"] == "python"]) == count
