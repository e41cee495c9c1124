# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of modules: read from dnf's own file, changed in two steps, and the former one back where that fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import dnf_streams
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# As dnf 4.14 writes it.
FILE = "[nvidia-driver]\nname=nvidia-driver\nstream=580-dkms\nprofiles=\nstate={}\n"


def node(root: Path, state: str | None) -> str:
    if state is not None:
        path = root / dnf_streams.path("nvidia-driver").lstrip("/")
        path.parent.mkdir(parents=True)
        path.write_text(FILE.format(state))
    return str(root)


@pytest.mark.parametrize(("state", "stream"), [("enabled", "580-dkms"), ("disabled", None), ("", None), (None, None)])
def test_the_stream_is_read_from_dnfs_file(tmp_path: Path, state: str | None, stream: str | None) -> None:
    assert dnf_streams.enabled("nvidia-driver", node(tmp_path, state)) == stream


@pytest.mark.parametrize(
    ("state", "wanted", "words"),
    [
        (None, "570-open", ["enable nvidia-driver:570-open"]),
        ("enabled", "570-open", ["reset nvidia-driver", "enable nvidia-driver:570-open"]),
        ("enabled", "580-dkms", []),
    ],
)
def test_a_stream_takes_the_place_of_another(tmp_path: Path, state: str | None, wanted: str, words: list[str]) -> None:
    said: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(command)
        return 0, "", ""

    dnf_streams.switch(run, "nvidia-driver", wanted, node(tmp_path, state))
    assert [" ".join(command[-2:]) for command in said] == words


def test_the_former_stream_comes_back_where_the_wanted_one_is_not_to_be_had(tmp_path: Path) -> None:
    said: list[str] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(" ".join(command[-2:]))
        return (
            (1, "", "Error: Problems in request:\nmissing groups or modules: nvidia-driver:999")
            if "999" in said[-1]
            else (0, "", "")
        )

    with pytest.raises(GpufleetError) as caught:
        dnf_streams.switch(run, "nvidia-driver", "999", node(tmp_path, "enabled"))
    assert caught.value.code == "GF-STREAM-UNKNOWN"
    assert said[-1] == "enable nvidia-driver:580-dkms"


@pytest.mark.parametrize(
    ("said", "wanted"), [("Error: No matching Modules to list\n", []), ("Error: no cache\n", ["enable"])]
)
def test_where_no_repository_has_the_module_there_is_nothing_to_choose(
    tmp_path: Path, said: str, wanted: list[str]
) -> None:
    words: list[str] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        words.append(command[5])
        return (1, "", said) if command[5] == "list" else (0, "", "")

    assert dnf_streams.switch(run, "nvidia-driver", "570-open", node(tmp_path, None), cached=True) is bool(wanted)
    assert [word for word in words if word != "list"] == wanted


def test_a_reset_asks_the_network_where_the_lists_on_the_node_do_not_do(tmp_path: Path) -> None:
    said: list[str] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(" ".join(command[5:]))
        return (1, "", "Error: no cache") if "--cacheonly" in command else (0, "", "")

    dnf_streams.reset(run, "nvidia-driver", node(tmp_path, "enabled"), cached=True)
    assert said == ["reset --cacheonly nvidia-driver", "reset nvidia-driver"]
