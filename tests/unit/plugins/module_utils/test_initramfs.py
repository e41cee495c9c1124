# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that are older than the settings of modules are found, and made anew with the node's own tool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import initramfs
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SETTINGS = "/etc/modprobe.d/gpufleet-nvidia.conf"


def node(root: Path, images: dict[str, int]) -> str:
    files = {SETTINGS.lstrip("/"): 1000, **{f"boot/{name}": when for name, when in images.items()}}
    for name, when in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        os.utime(root / name, (when, when))
    return str(root)


def test_older_images_of_both_families_are_found(tmp_path: Path) -> None:
    names = ("initramfs-5.14.0-570.el9.x86_64.img", "initrd.img-6.1.0-9-amd64", "initramfs-0-rescue-1.img")
    root = node(tmp_path, {**dict.fromkeys(names, 999), "initramfs-5.14.0-600.el9.x86_64.img": 1001})
    assert initramfs.older([SETTINGS, "/etc/dracut.conf.d/none.conf"], root) == [
        "/boot/initramfs-5.14.0-570.el9.x86_64.img",
        "/boot/initrd.img-6.1.0-9-amd64",
    ]
    assert initramfs.older(["/etc/dracut.conf.d/none.conf"], root) == []


@pytest.mark.parametrize(("tool", "done"), [("update-initramfs", True), ("dracut", True), (None, False)])
def test_the_nodes_own_tool_makes_them(tool: str | None, done: bool) -> None:
    said: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        said.append(command)
        return (0, "", "") if command[0] == tool else (127, "", "not installed")

    assert initramfs.rebuild(run) is done
    assert not done or said[-1] == next(command for command in initramfs.TOOLS if command[0] == tool)


def test_an_image_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(GpufleetError) as caught:
        initramfs.rebuild(lambda command: (127, "", "") if command[0] != "dracut" else (1, "", "No space left"))
    assert caught.value.code == "GF-INITRAMFS"
    assert "No space left" in str(caught.value)
