"""Debian's own update-alternatives, with its records in a folder of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import alternatives
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("update-alternatives") is None, reason="update-alternatives is not here")


@pytest.fixture
def run(tmp_path: Path) -> Callable[[list[str]], tuple[int, str, str]]:
    for folder in ("alternatives", "admin"):
        (tmp_path / folder).mkdir()

    def command(words: list[str]) -> tuple[int, str, str]:
        places = ["--altdir", str(tmp_path / "alternatives"), "--admindir", str(tmp_path / "admin")]
        done = subprocess.run(
            [words[0], *places, "--log", str(tmp_path / "log"), *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        return done.returncode, done.stdout, done.stderr

    return command


@pytest.fixture
def toolkits(tmp_path: Path) -> dict[str, str]:
    found = {}
    for version in ("11.8", "12.4"):
        (tmp_path / f"cuda-{version}").mkdir()
        found[version] = str(tmp_path / f"cuda-{version}")
    return found


def test_a_link_of_nvidias_packages_is_switched_and_stays(
    tmp_path: Path, run: Callable[[list[str]], tuple[int, str, str]], toolkits: dict[str, str]
) -> None:
    link = str(tmp_path / "cuda")
    assert alternatives.kept_link(link) is None
    for version, priority in (("11.8", "118"), ("12.4", "124")):
        assert run(["update-alternatives", "--install", link, "cuda", toolkits[version], priority])[0] == 0
    assert os.path.realpath(link) == toolkits["12.4"]
    assert alternatives.kept_link(link, str(tmp_path / "alternatives")) == str(tmp_path / "alternatives" / "cuda")

    alternatives.choose(link, "cuda", toolkits["11.8"], run)

    assert os.path.realpath(link) == toolkits["11.8"]
    (tmp_path / "cuda-13.0").mkdir()
    assert run(["update-alternatives", "--install", link, "cuda", str(tmp_path / "cuda-13.0"), "130"])[0] == 0
    assert os.path.realpath(link) == toolkits["11.8"]


def test_a_toolkit_that_no_package_registered_is_registered(
    tmp_path: Path, run: Callable[[list[str]], tuple[int, str, str]], toolkits: dict[str, str]
) -> None:
    link = str(tmp_path / "cuda")
    assert run(["update-alternatives", "--install", link, "cuda", toolkits["12.4"], "124"])[0] == 0
    alternatives.choose(link, "cuda", toolkits["11.8"], run)
    assert os.path.realpath(link) == toolkits["11.8"]
    assert alternatives.choices(run(["update-alternatives", "--display", "cuda"])[1]) == sorted(toolkits.values())


def test_a_refusal_is_told(tmp_path: Path, run: Callable[[list[str]], tuple[int, str, str]]) -> None:
    with pytest.raises(GpufleetError) as caught:
        alternatives.choose(str(tmp_path / "cuda"), "cuda", str(tmp_path / "not-there"), run)
    assert caught.value.code == "GF-CUDA-ALTERNATIVES"
    assert "not-there" in str(caught.value)


def test_the_words_of_the_rhel_family_are_read() -> None:
    text = "cuda - status is auto.\n link currently points to /usr/local/cuda-12.4\n/usr/local/cuda-12.4 - family x priority 124\n"
    assert alternatives.choices(text) == ["/usr/local/cuda-12.4"]
