"""What verify's levels beyond the first do on real nodes: compile, load, save, build an operator with the node's toolkit."""

from __future__ import annotations

import json
from typing import Any

from .conftest import World

STANDARD = {"amp_training", "checkpoint", "convolutional_training", "data_loader", "transformer_training"}


def checks(world: World, node: str) -> dict[str, Any]:
    verdict = json.loads(world.sh(node, "cat /var/lib/gpufleet/verdict.json"))
    assert verdict["level"] == "standard"
    assert {row["metric"] for row in verdict["performance"]} == {"cpu_matmul", "training_step"}
    return {check["name"]: check for check in verdict["environments"][0]["checks"]}


def test_standard_passes_and_serves_a_lower_wish(converged: World) -> None:
    run = converged.play(verify_level="standard")
    assert run.rc == 0, run.stdout
    for node in ("cpu", "a100"):
        found = checks(converged, node)
        assert {name: found[name]["status"] for name in STANDARD} == dict.fromkeys(STANDARD, "passed")
        assert "Python 3.11+ not yet supported" in found["compile"]["message"]
    # The node without a GPU has no toolkit; the other one builds for its A100, and runs the operator's part for the CPU.
    assert found["cuda_extension"]["measured"] == {"cpu": True}, found["cuda_extension"]
    assert checks(converged, "cpu")["cuda_extension"]["message"] == "no CUDA toolkit is planned"
    again = converged.play()
    assert (again.rc, again.changed("cpu"), again.changed("a100")) == (0, 0, 0), again.stdout
