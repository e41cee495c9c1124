"""Names of nodes, folded."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold, natural


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gpu14", *(f"gpu{number:02d}" for number in range(1, 13))], "gpu[01-12,14]"),
        (["n10", "n9", "n2", "n1", "login"], "login, n[1-2,9-10]"),
        (["gpu01.a.example", "gpu02.a.example", "gpu02.b.example"], "gpu[01-02].a.example, gpu02.b.example"),
        (["192.0.2.9", "192.0.2.10", "192.0.3.1"], "192.0.2.[9-10], 192.0.3.1"),
        (["a1", "a2", "a01", "a02"], "a[01-02,1-2]"),
        (["n²", "n1"], "n1, n²"),
        (["n1", "n1"], "n1"),
        (["serial123456789012", "serial123456789013"], "serial123456789012, serial123456789013"),
        ([], ""),
        (["", "1"], ", 1"),
    ],
)
def test_fold(names: list[str], expected: str) -> None:
    assert fold(names) == expected


def test_natural_order() -> None:
    assert sorted(["n10", "n9", "m1", "n9b", "n"], key=natural) == ["m1", "n", "n9", "n9b", "n10"]
