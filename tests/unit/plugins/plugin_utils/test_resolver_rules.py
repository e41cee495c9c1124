"""The rules that every answer keeps, over every release, GPU, distribution and a seeded sample of everything at once."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fixes import BEYOND_WISHES

from .factory import GPUS, facts
from .oracle import faults

NODES = Path(__file__).parents[3] / "fixtures/nodes"
CATALOG = catalog.load()
RELEASES = [row["version"] for row in CATALOG["torch"]["releases"]]
DISTRIBUTIONS = [
    (row["name"], row["version"]) for row in CATALOG["distro"]["distributions"] if row["family"] != "macos"
]
VARIANTS = sorted({row["variant"] for rows in CATALOG["torch"]["builds"].values() for row in rows})
BRANCHES = [row["branch"] for row in CATALOG["driver"]["branches"]]
SETS = [
    (),
    *((gpu,) for gpu in GPUS),
    ("v100", "a100"),
    ("v100", "b200"),
    ("a100", "h100"),
    ("k80", "a100"),
    ("t4", "b200"),
]
SITUATIONS: list[dict[str, Any]] = [
    {},
    {"driver": "470.256.02", "driver_source": "runfile"},
    {"driver": "535.309.01", "driver_source": "distro"},
    {"driver": "550.54.15", "driver_source": "nvidia", "flavour": "open"},
    {"driver": "580.95.05", "driver_source": "nvidia"},
    {"driver": "595.45.04", "driver_source": "runfile", "flavour": "open"},
    {"competitor": "nouveau"},
    {"nvswitches": 4},
]
CASES = int(os.environ.get("GPUFLEET_RULE_CASES", "2500"))


def check(node: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The answer breaks no rule, and each fix that it offers makes the node resolve."""
    answer = resolve(node, wanted, CATALOG)
    assert list(faults(node, wanted, answer, CATALOG)) == [], (wanted, answer)
    for conflict in answer["conflicts"]:
        for fix in conflict["fixes"]:
            mended = resolve(node, {**wanted, **fix}, CATALOG)
            left = {each["code"] for each in mended["conflicts"]} - BEYOND_WISHES
            assert not left, (wanted, conflict["code"], fix, left)
            assert not mended["ok"] or list(faults(node, {**wanted, **fix}, mended, CATALOG)) == []


@pytest.mark.parametrize("version", [*RELEASES, "auto"])
def test_every_release_on_every_gpu(version: str) -> None:
    for gpus, (distribution, number) in itertools.product(
        SETS, (("Debian", "12"), ("Ubuntu", "22.04"), ("Rocky", "9.4"))
    ):
        check(facts(*gpus, distribution=distribution, version=number), {"pytorch_version": version})


@pytest.mark.parametrize(("distribution", "number"), DISTRIBUTIONS, ids=str)
def test_every_distribution_with_every_gpu(distribution: str, number: str) -> None:
    for gpus, architecture, version in itertools.product(SETS, ("x86_64", "aarch64"), ("2.0.1", "auto")):
        node = facts(*gpus, distribution=distribution, version=number, architecture=architecture)
        check(node, {"pytorch_version": version})


@pytest.mark.parametrize("version", ["2.0.1", "auto"])
@pytest.mark.parametrize("recorded", sorted(NODES.glob("*/expected.json")), ids=lambda path: path.parent.name)
def test_every_recorded_node(recorded: Path, version: str) -> None:
    check(json.loads(recorded.read_text(encoding="utf-8")), {"pytorch_version": version})


def sample(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Nodes and wishes drawn from everything that can be set; the same ones every time."""
    dice = random.Random(20261123)  # noqa: S311 (the same sample every time is what is wanted)
    wishes: dict[str, list[Any]] = {
        "pytorch_version": [*RELEASES, "auto", "2.1", "2.5", "2"],
        "pytorch_cuda": ["auto", "auto", *VARIANTS],
        "python_version": ["auto", "auto", "3.9", "3.10", "3.11", "3.12", "3.13"],
        "nvidia_driver_version": ["auto", "auto", "none", *BRANCHES, "550.54.15"],
        "nvidia_driver_source": ["auto", "auto", "distro", "nvidia", "runfile"],
        "nvidia_driver_flavour": ["auto", "auto", "open", "proprietary"],
        "cuda_toolkit_version": ["auto", "none", "11.8", "12.4", "13.0", ["12.4", "12.6"]],
        "cudnn_version": ["auto", "none", "8.9", "9", "9.10"],
    }
    for _number in range(count):
        distribution, number = dice.choice(DISTRIBUTIONS)
        gpus = dice.choice(SETS)
        situation = dice.choice(SITUATIONS) if gpus else {}
        node = facts(
            *gpus,
            distribution=distribution,
            version=number,
            architecture=dice.choice(("x86_64", "x86_64", "aarch64")),
            extra_pythons=dice.choice(((), ("3.11",), ("3.8", "3.12"))),
            root=dice.random() > 0.05,
            glibc=dice.choice((None, None, None, "2.17", "2.28")),
            **situation,
        )
        names = dice.sample(sorted(wishes), dice.randint(0, 4))
        wanted = {name: dice.choice(wishes[name]) for name in names}
        if wanted.get("nvidia_driver_source") == "runfile" and dice.random() > 0.2:
            version, architecture = dice.choice(("470.256.02", "550.54.15", "595.91.07")), node["node"]["architecture"]
            wanted["nvidia_driver_runfile"] = f"/srv/NVIDIA-Linux-{architecture}-{version}.run"
            wanted["nvidia_driver_runfile_sha256"] = "0" * 64
        yield node, wanted


def test_a_sample_of_everything_at_once() -> None:
    for node, wanted in sample(CASES):
        check(node, wanted)


def test_the_same_question_has_the_same_answer() -> None:
    for node, wanted in sample(50):
        assert resolve(node, wanted, CATALOG) == resolve(node, wanted, CATALOG)
