"""The stand-ins for other distributions on the test nodes are distributions of the catalog."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.module_utils import node_distribution

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("dressing", ROOT / "tests/tools/dressing.py")
assert SPEC is not None
assert SPEC.loader is not None
dressing = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(dressing)

FAMILIES = {"apt": "apt", "dnf": "dnf", "dnf-modular": "dnf"}


class Node:
    """The files that the script of a dress leaves."""

    def __init__(self, script: str) -> None:
        self.files = dict(re.findall(r"^cat > (\S+) <<'END'\n(.*?)\nEND$", script, re.DOTALL | re.MULTILINE))

    def text(self, path: str) -> str | None:
        return self.files.get(path)

    def exists(self, path: str) -> bool:
        # The Debian below has both.
        return path in ("/usr/bin/apt-get", "/usr/bin/dnf")


@pytest.mark.parametrize("name", sorted(dressing.DRESSES))
def test_the_facts_name_a_distribution_of_the_catalog(name: str) -> None:
    rows = yaml.safe_load((ROOT / "plugins/plugin_utils/catalog/distro.yml").read_text(encoding="utf-8"))[
        "distributions"
    ]
    node = Node(dressing.DRESSES[name].script)
    fields = node_distribution.os_release(node)
    distribution, version, _codename = node_distribution.distribution(fields)
    found = [
        row
        for row in rows
        if distribution in (row["name"], *row["names"]) and (version + ".").startswith(row["version"] + ".")
    ]
    assert len(found) == 1
    assert node_distribution.package_manager(node, fields) == FAMILIES[found[0]["family"]]
