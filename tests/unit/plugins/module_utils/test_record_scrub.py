# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken out of a record's text, and what must stay."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.record_scrub import Scrubber


@pytest.mark.parametrize(
    "text",
    [
        "535.183.01",
        "8.9.6.50-1+cuda11.8",
        "/opt/gpufleet/cudnn/8.9.6.50-cuda11/lib",
        "0000:3b:00.0",
        "NVRM: Xid (PCI:0000:3b:00): 79",
        "/usr/bin:/bin:/c::/d",
        "NVIDIA A100-SXM4-80GB",
        "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "GPU-00000000-0000-0000-0000-000000000001",
    ],
)
def test_what_facts_are_made_of_stays(text: str) -> None:
    assert Scrubber(["gpu042"], ["alice"], ["SN01"]).text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to 10.1.2.3 and 10.1.2.4, 10.1.2.3", "to 192.0.2.1 and 192.0.2.2, 192.0.2.1"),
        ("https://a:b@c/d?e=f end", "url-removed end"),
        ("Serial Number: 0123", "Serial Number: SERIAL"),
        ("gpu042.example.org GPU042", "node1 node2"),
        ("alice's /home/alice and /home/bob", "user1's /home/user1 and /home/user2"),
        ("52:54:00:12:34:56", "02:00:00:00:00:01"),
        ("fe80::1ff:fe23:4567:890a", "2001:db8::1"),
        ("malice and gpu0421", "malice and gpu0421"),
    ],
)
def test_what_tells_whose_machine_it_is_goes(text: str, expected: str) -> None:
    assert Scrubber(["gpu042", "gpu042.example.org"], ["alice"]).text(text) == expected


def test_names_that_say_nothing_are_no_secret() -> None:
    assert Scrubber(["localhost", "a"], ["root"], ["To Be Filled By O.E.M.", "0"]).text("a root localhost 0") == (
        "a root localhost 0"
    )


def test_the_same_thing_gets_the_same_word_throughout() -> None:
    scrubber = Scrubber()
    uuid = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
    first = scrubber.data({"uuid": f"GPU-{uuid}", "rows": [1, None, f"MIG-{uuid}"]})
    assert first == {
        "uuid": "GPU-00000000-0000-0000-0000-000000000001",
        "rows": [1, None, "MIG-00000000-0000-0000-0000-000000000001"],
    }
