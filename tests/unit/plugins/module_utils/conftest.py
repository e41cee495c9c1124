"""What several tests of environments share: one index, and with it one set of locks, for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.tests.unit.plugins.environment_house import stock, want
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, serve


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("wheels")
    stock(folder)
    with serve(folder) as served:
        yield served


@pytest.fixture
def index(house: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "controller-cache"))
    monkeypatch.setattr(uv_tool, "NETWORK_RETRIES", 1)
    house.mode = "ok"
    house.requests.clear()
    return house


@pytest.fixture
def wanted(index: Index, tmp_path: Path) -> Wanted:
    return want(index, tmp_path)
