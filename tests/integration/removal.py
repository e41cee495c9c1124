"""What a node has before this collection comes and after it went, for the tests of remove.yml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import World

SCRIPT = (Path(__file__).parent / "snapshot.sh").read_text(encoding="utf-8")
PLAYBOOK = "playbooks/remove.yml"


def snapshot(world: World, node: str) -> set[str]:
    """Packages with their marks, /etc with its contents, links and directories, a line each."""
    return set(world.sh(node, SCRIPT).splitlines())


def difference(before: set[str], after: set[str]) -> list[str]:
    return sorted([f"gone: {line}" for line in before - after] + [f"new: {line}" for line in after - before])
