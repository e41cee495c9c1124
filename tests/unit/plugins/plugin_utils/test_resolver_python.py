"""Which Python a node gets, and from whom: the distribution, what is installed, then uv's managed builds."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from .factory import facts

DEBIAN13 = facts(version="13")
TWO = [{"name": "old"}, {"name": "new", "version": "2.6.0"}]


def python(node: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    answer = resolve(node, wanted, catalog.load())
    assert answer["ok"], answer["conflicts"]
    stage: dict[str, Any] = answer["stages"]["python"]
    return stage


def test_a_distribution_that_is_too_new_gets_a_managed_build() -> None:
    stage = python(DEBIAN13)
    assert (stage["version"], stage["provider"]) == ("3.11", "managed")
    (build,) = stage["managed"]
    assert build["path"] == f"/opt/gpufleet/python/{build['full_version']}-{build['release']}"
    assert stage["interpreter"] == build["interpreter"] == stage["interpreters"][0]["path"]
    assert build["interpreter"].startswith(f"{build['path']}/cpython-{build['full_version']}-linux-x86_64-gnu/bin/")
    (row,) = [row for row in catalog.load()["python"]["managed"] if row["sha256"] == build["sha256"]]
    assert (row["version"], row["architecture"]) == ("3.11", "x86_64")
    # torch.compile needs a compiler at run time.
    assert stage["packages"] == ["g++"]
    assert "uv's build" in stage["why"][0]


@pytest.mark.parametrize(
    ("node", "version"),
    [
        (facts(distribution="Ubuntu", version="24.04"), "3.11"),
        (facts(distribution="Ubuntu", version="26.04", architecture="aarch64"), "3.11"),
    ],
)
def test_the_same_on_other_new_distributions(node: dict[str, Any], version: str) -> None:
    stage = python(node)
    assert (stage["version"], stage["provider"]) == (version, "managed")
    assert stage["managed"][0]["architecture"] == node["node"]["architecture"]


def test_nothing_is_fetched_where_the_node_has_one() -> None:
    assert python(facts())["managed"] == []
    assert python(facts(version="13", extra_pythons=("3.10",)))["provider"] == "installed"
    # The newest torch would be published for a newer Python too.
    assert python(facts(version="11"), pytorch_version="auto")["provider"] == "distribution"


def test_a_version_that_only_a_managed_build_has() -> None:
    stage = python(facts(), python_version="3.8")
    assert (stage["version"], stage["provider"]) == ("3.8", "managed")


def test_a_site_may_choose_the_provider() -> None:
    assert python(facts(), python_provider="managed")["provider"] == "managed"
    node = facts(extra_pythons=("3.10",))
    assert python(node, python_provider="installed")["interpreter"] == "/usr/local/bin/python3.10"
    assert python(node, python_provider="distribution")["interpreter"] == "/usr/bin/python3.11"


def test_environments_may_rest_on_two_interpreters() -> None:
    stage = python(DEBIAN13, pytorch_environments=TWO)
    assert [each["provider"] for each in stage["interpreters"]] == ["managed", "distribution"]
    assert len(stage["managed"]) == 1
    assert stage["packages"] == ["g++", "python3.13", "python3.13-venv", "python3.13-dev"]


def test_the_prefix_decides_where_it_lies() -> None:
    assert python(DEBIAN13, gpufleet_prefix="/srv/gf")["interpreter"].startswith("/srv/gf/python/3.11.")
