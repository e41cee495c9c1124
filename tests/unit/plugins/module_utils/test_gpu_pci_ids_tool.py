# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The script that writes the tables of device ids."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
TOOL = ROOT / "tests/tools/pci_ids"
SAMPLE = """\
#\tVersion: 2030.01.02
10dd  Other
\t2330  GH100 [Wrong vendor]
10de  NVIDIA Corporation
\t1000  GF119 [Too old]
\t2080  GA100
\t20f1  GA100 [A100 PCIe 40GB]
\t20f2  GA100GL [A100 PCIe 80GB]
\t\t10de 145f  A card's own row
\t20f3  GH100 [Stranger]
\t2300  GH100 [Reserved Dev ID A]
\t2330  GH100 [H100 SXM5 80GB]
\t22a3  GH100 [H100 NVSwitch]
\t228b  GA104 High Definition Audio Controller
10df  Emulex
\t2331  GH100 [Wrong vendor]
"""


def run(*arguments: str, status: int = 0) -> str:
    done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def sample(tmp_path: Path) -> list[str]:
    (tmp_path / "pci.ids").write_text(SAMPLE)
    return ["--pci-ids", str(tmp_path / "pci.ids"), "--output", str(tmp_path)]


def tables(folder: Path) -> tuple[dict[str, Any], str]:
    return runpy.run_path(str(folder / "gpu_table.py")), runpy.run_path(str(folder / "gpu_names.py"))["NAMES"]


def test_from_nothing(tmp_path: Path, sample: list[str]) -> None:
    run(*sample)
    table, names = tables(tmp_path)
    assert table["BLOCKS"] == ((0x2080, 0x20FF, "GA100"), (0x2300, 0x233F, "GH100"))
    assert table["EXCEPTIONS"] == {0x20F3: "GH100"}
    assert names == "\n20f1 A100 PCIe 40GB\n20f2 A100 PCIe 80GB\n20f3 Stranger\n2330 H100 SXM5 80GB\n"


def test_doing_it_again_changes_nothing(tmp_path: Path, sample: list[str]) -> None:
    run(*sample, "--check", status=1)
    assert not (tmp_path / "gpu_table.py").exists()
    run(*sample)
    assert run(*sample, "--check") == "would change: nothing\n"


def test_what_an_older_list_lacks_is_kept_and_said(tmp_path: Path, sample: list[str]) -> None:
    run(*sample)
    before = tables(tmp_path)
    old = "#\tVersion: 2020.01.01\n10de  NVIDIA\n\t20f1  GA100 [Old name]\n\t2900  GA100 [Moved]\n\t2331  GA100 [Odd]\n"
    (tmp_path / "pci.ids").write_text(old)
    said = run(*sample)
    assert "kept, not in this pci.ids: block 2300-233f GH100" not in said  # 2331 stands in it
    assert "kept, not in this pci.ids: name 2330 H100 SXM5 80GB" in said
    table, names = tables(tmp_path)
    assert table["DATABASE"] == "2030.01.02"
    assert set(before[0]["BLOCKS"]) < set(table["BLOCKS"])
    assert table["EXCEPTIONS"] == {0x20F3: "GH100", 0x2331: "GA100"}
    assert "\n20f1 A100 PCIe 40GB\n" in names
    assert "\n2900 Moved\n" in names


def test_a_block_that_the_list_lacks_is_kept(tmp_path: Path, sample: list[str]) -> None:
    run(*sample)
    (tmp_path / "pci.ids").write_text("#\tVersion: 2031.01.01\n10de  NVIDIA\n\t20f1  GA100 [New name]\n")
    assert "kept, not in this pci.ids: block 2300-233f GH100" in run(*sample)
    table, names = tables(tmp_path)
    assert (0x2300, 0x233F, "GH100") in table["BLOCKS"]
    assert "\n20f1 New name\n" in names


def test_the_tables_are_what_the_script_writes(tmp_path: Path) -> None:
    """A hand's edit of the tables shows: written anew from a list that adds nothing, they are the same."""
    for name in ("gpu_table.py", "gpu_names.py"):
        (tmp_path / name).write_text((ROOT / "plugins/module_utils" / name).read_text())
    (tmp_path / "pci.ids").write_text("#\tVersion: 2000.01.01\n10de  NVIDIA\n\t20f1  GA100 [A100 PCIe 40GB]\n")
    said = run("--pci-ids", str(tmp_path / "pci.ids"), "--output", str(tmp_path), "--check")
    assert said.endswith("would change: nothing\n")


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pci.ids").write_text("hello\n")
    run("--pci-ids", str(tmp_path / "pci.ids"), "--output", str(tmp_path), status=1)
