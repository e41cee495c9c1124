"""A conflict on one node stops the run for all of them, before any is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import World

RECEIPTS = "cat /var/lib/gpufleet/receipts/*.json | sha256sum"


def test_a_conflict_on_one_node_leaves_the_others_as_they_are(converged: World, tmp_path: Path) -> None:
    # cpu would be verified again for its new seed; a100 asks for what does not exist.
    wishes = tmp_path / "wishes.yml"
    wishes.write_text(
        'nodes:\n  hosts:\n    cpu: {verify_seed: 7}\n    a100: {pytorch_version: "2.9.9"}\n', encoding="utf-8"
    )
    before = converged.sh("cpu", RECEIPTS)

    run = converged.play(wishes)

    assert run.rc != 0
    assert "GF-TORCH-UNKNOWN" in run.stdout
    assert run.changed("cpu") == 0
    assert converged.sh("cpu", RECEIPTS) == before
