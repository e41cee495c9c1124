# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that others wrote."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" NVIDIA H100 ", "NVIDIA H100"),
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\nb\0c", "a\ufffdb\ufffdc"),
        ("a\u202eb", "a\ufffdb"),
        ("a\x9bb", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("\xe4", "\xe4"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert gpu_text.clean(text) == shown


def test_length_and_other_types() -> None:
    assert len(gpu_text.clean("x" * 1000)) == gpu_text.LIMIT
    assert gpu_text.clean_or_none("  ") is None
    assert gpu_text.clean_or_none(7) is None
