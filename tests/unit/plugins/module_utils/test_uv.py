"""uv on the node: brought once, checked, seen by nobody half done; and what its messages mean."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import uv
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import Index, build_wheel, serve


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    (tmp_path / "wheels").mkdir()
    with serve(tmp_path / "wheels") as served:
        yield served


def tool(index: Index, files: dict[str, str]) -> dict[str, Any]:
    wheel = build_wheel(index.folder, "uv", "1.2", files)
    content = wheel.read_bytes()
    return {
        "version": "1.2",
        "url": f"{index.url}/files/{wheel.name}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def test_uv_is_brought_once(index: Index, tmp_path: Path) -> None:
    wheel = tool(index, {"uv-1.2.data/scripts/uv": "#!/bin/sh\necho here\n", "uv-1.2.data/scripts/uvx": "no"})
    path, brought = uv.ensure_uv(str(tmp_path / "opt"), wheel)
    assert (path, brought) == (str(tmp_path / "opt/tools/uv-1.2/uv"), True)
    assert subprocess.run([path], capture_output=True, text=True, check=True).stdout == "here\n"
    assert uv.ensure_uv(str(tmp_path / "opt"), wheel) == (path, False)
    assert sorted(each.name for each in Path(path).parent.iterdir()) == [".lock", "uv"]


def test_a_wheel_without_uv(index: Index, tmp_path: Path) -> None:
    with pytest.raises(GpufleetError) as caught:
        uv.ensure_uv(str(tmp_path / "opt"), tool(index, {"uv/__init__.py": ""}))
    assert caught.value.code == "GF-UV-DAMAGED"
    assert not (tmp_path / "opt/tools/uv-1.2/uv").exists()


def test_uv_sees_no_setting_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_INDEX", "http://elsewhere/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "http://elsewhere/simple")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    seen = uv.environment("/cache")
    assert "elsewhere" not in str(seen)
    assert seen["https_proxy"] == "http://proxy:3128"
    assert (seen["LC_ALL"], seen["UV_CACHE_DIR"], seen["UV_PYTHON_DOWNLOADS"]) == ("C", "/cache", "never")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("error: Failed to download `a==1`\n  cause: Hash mismatch for `a==1`", "GF-DOWNLOAD-HASH"),
        ("  cause: end of file before message length reached", "GF-DOWNLOAD-SHORT"),
        ("  cause: Failed to extract archive: a.whl\n  cause: unexpected BufError", "GF-DOWNLOAD-SHORT"),
        ("error: failed to write\n  cause: No space left on device (os error 28)", "GF-DISK-SPACE"),
        ("  cause: error sending request for url (http://me:secret@host/a.whl)", "GF-DOWNLOAD-UNREACHABLE"),
        ("error: something else", "GF-UV-FAILED"),
    ],
)
def test_what_uvs_messages_mean(text: str, code: str) -> None:
    error = uv.explain(text, "environment default")
    assert error.code == code
    assert "secret" not in str(error)
    assert error.message.startswith("environment default: ")
