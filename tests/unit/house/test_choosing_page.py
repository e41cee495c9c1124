"""The worked examples of docs/choosing.md are what the resolver answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

from tests.unit.plugins.plugin_utils.factory import facts

PAGE = (Path(__file__).parents[3] / "docs/choosing.md").read_text(encoding="utf-8")
WSL = {
    "virtualization": "wsl",
    "driver": "551.61",
    "loaded": "551.61",
    "driver_source": "windows",
    "driver_cuda": "12.4",
    "distribution": "Ubuntu",
    "version": "22.04",
}
EXAMPLES: list[tuple[str, dict[str, Any], str]] = [
    ("4 x V100, Ubuntu 22.04", facts(*["v100"] * 4, distribution="Ubuntu", version="22.04"), "2.0.1"),
    ("4 x V100, Ubuntu 22.04", facts(*["v100"] * 4, distribution="Ubuntu", version="22.04"), "auto"),
    ("A100, Debian 12", facts("a100"), "2.0.1"),
    ("A100, Debian 12", facts("a100"), "auto"),
    ("RTX 4090, Ubuntu 24.04", facts("rtx4090", distribution="Ubuntu", version="24.04"), "2.5"),
    (
        "8 x H100 with NVSwitch, Rocky 9.4",
        facts(*["h100"] * 8, distribution="Rocky", version="9.4", nvswitches=4),
        "2.0.1",
    ),
    ("B200, Ubuntu 24.04", facts("b200", distribution="Ubuntu", version="24.04"), "auto"),
    ("no GPU, Debian 12", facts(), "2.0.1"),
    ("RTX 4090 in WSL, Ubuntu 22.04, Windows driver 551.61", facts("rtx4090", **WSL), "2.0.1"),
]


def row(label: str, node: dict[str, Any], version: str) -> str:
    """One line of the page's table."""
    answer = resolve(node, {"pytorch_version": version}, catalog.load())
    assert answer["ok"], answer["conflicts"]
    stages = answer["stages"]
    driver, environment = stages["nvidia_driver"], stages["pytorch"]["environments"][0]
    drivers = (
        f"{driver['version']} {driver['flavour']} ({driver['source']})"
        if driver["wanted"]
        else "as it is"
        if node["gpu"]["devices"]
        else "none"
    )
    toolkit = stages["cuda_toolkit"]["default"] or "none"
    cudnn = ", ".join(each["version"] for each in stages["cudnn"]["cudnns"]) or "none"
    cells = (label, version, drivers, environment["torch_version"], stages["python"]["version"], toolkit, cudnn)
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize(
    ("label", "node", "version"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_worked_example_is_what_the_resolver_answers(label: str, node: dict[str, Any], version: str) -> None:
    assert row(label, node, version) in PAGE


def test_the_refusal_of_the_page_is_the_resolvers() -> None:
    answer = resolve(facts("b200"), {"pytorch_version": "2.0.1"}, catalog.load())
    conflict = answer["conflicts"][0]
    assert conflict["code"] in PAGE
    assert conflict["message"] in PAGE
    assert all(reason in PAGE for reason in conflict["because"])
    assert f'pytorch_version: "{conflict["fixes"][0]["pytorch_version"]}"' in PAGE
