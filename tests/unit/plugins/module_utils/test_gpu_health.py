# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Xid errors out of the kernel's log."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_health

LOG = b"""\
[   10.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01
[  100.2] NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.
<4>[  101.2] NVRM: Xid (0000:5D:00): 13, Graphics \x1b[31mException
[  102.2] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus again
[  103.2] NVRM: Xid (PCI:zzzz:3b:00): 79, nonsense
"""


def test_each_kind_on_each_gpu_once() -> None:
    assert gpu_health.xids(LOG) == [
        {"code": 13, "pci_address": "0000:5d:00.0", "message": "Graphics \ufffd[31mException", "count": 1},
        {"code": 79, "pci_address": "0000:3b:00.0", "message": "GPU has fallen off the bus again", "count": 2},
    ]


def test_a_log_full_of_kinds_is_bounded() -> None:
    log = b"".join(b"NVRM: Xid (PCI:0000:3b:00): %d, x\n" % code for code in range(500))
    assert len(gpu_health.xids(log)) == 64


def test_a_recorded_node_has_log_files(tmp_path: Path) -> None:
    assert gpu_health.facts(str(tmp_path), True) == {"xid": None, "source": None}
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/kern.log").write_bytes(LOG + b"x" * gpu_health.LIMIT)
    assert gpu_health.facts(str(tmp_path), True) == {"xid": [], "source": "var/log/kern.log"}  # too long ago
    (tmp_path / "var/log/dmesg").write_bytes(b"x" * gpu_health.LIMIT + LOG)
    found = gpu_health.facts(str(tmp_path), True)
    assert ([row["code"] for row in found["xid"]], found["source"]) == ([13, 79], "var/log/dmesg")
    assert gpu_health.facts(str(tmp_path), False) == {"xid": None, "source": None}


def test_the_kernel_answers_or_refuses() -> None:
    log = gpu_health.kernel_log(4096)
    assert log is None or len(log) <= 4096
