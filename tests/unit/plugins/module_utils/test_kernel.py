# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel enforces on modules."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import kernel


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("text", "mode"),
    [("none [integrity] confidentiality\n", "integrity"), ("[none] integrity confidentiality", "none"), ("x", None)],
)
def test_lockdown(tmp_path: Path, text: str, mode: str | None) -> None:
    assert kernel.facts(str(tmp_path))["lockdown"] is None
    write(tmp_path, "sys/kernel/security/lockdown", text)
    assert kernel.facts(str(tmp_path))["lockdown"] == mode


@pytest.mark.parametrize(("text", "enforced"), [("Y\n", True), ("N\n", False), ("", None)])
def test_signatures(tmp_path: Path, text: str, enforced: bool | None) -> None:
    write(tmp_path, "sys/module/module/parameters/sig_enforce", text)
    assert kernel.facts(str(tmp_path))["module_signatures_enforced"] is enforced


def test_a_hostile_release_is_cleaned(tmp_path: Path) -> None:
    write(tmp_path, "proc/sys/kernel/osrelease", "6.1\x1b[2J" + "x" * 500)
    release = kernel.facts(str(tmp_path))["release"]
    assert release.startswith("6.1\ufffd[2J") and len(release) == 128


def test_installed_kernels_in_their_order(tmp_path: Path) -> None:
    for release in ("6.1.0-10-amd64", "6.1.0-9-amd64"):
        write(tmp_path, f"lib/modules/{release}/modules.dep", "")
        write(tmp_path, f"boot/vmlinuz-{release}", "")
    write(tmp_path, "lib/modules/6.1.0-9-amd64/build/Makefile", "")
    write(tmp_path, "lib/modules/6.2.0-1.el9.x86_64/vmlinuz", "")
    # What DKMS leaves of a kernel that was removed.
    write(tmp_path, "lib/modules/5.10.0-1-amd64/updates/dkms/nvidia.ko", "")
    assert kernel.installed(str(tmp_path)) == [
        {"release": "6.1.0-9-amd64", "headers": True, "image": True},
        {"release": "6.1.0-10-amd64", "headers": False, "image": True},
        {"release": "6.2.0-1.el9.x86_64", "headers": False, "image": True},
    ]
    assert kernel.installed(str(tmp_path / "nowhere")) == []
