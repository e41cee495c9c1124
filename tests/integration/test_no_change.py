"""A run that finds everything as it should be costs one module execution per node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

COUNT = "/var/log/module-executions"


@pytest.mark.parametrize("node", ["cpu", "a100"])
def test_one_module_execution(converged: World, node: str) -> None:
    converged.sh(node, f"rm -f {COUNT}")

    run = converged.play()

    assert run.rc == 0, run.stdout
    assert run.changed(node) == 0
    assert converged.sh(node, f"wc -l < {COUNT}") == "1"


def test_unreachable_host_does_not_stop_the_others(converged: World, tmp_path: Path) -> None:
    inventory = tmp_path / "gone.yml"
    inventory.write_text(
        "nodes:\n  hosts:\n    gone:\n      ansible_host: 127.0.0.1\n      ansible_port: 1\n", encoding="utf-8"
    )
    converged.sh("cpu", f"rm -f {COUNT}")

    run = converged.play(inventory)

    assert run.rc != 0
    assert list(run.stats["dark"]) == ["gone"]
    assert "gone" in run.stdout.rpartition("PLAY RECAP")[2]
    assert run.stats["failures"] == {}
    assert converged.sh("cpu", f"wc -l < {COUNT}") == "1"
