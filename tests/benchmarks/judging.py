#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often healthy nodes are named, from which difference on slow ones are, and what it costs with a thousand nodes.

    tests/benchmarks/judging.py [--runs 1000]

The figures are made up: normal values of 1 or 2 % spread, eight metrics a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge import judge  # noqa: E402

from tests.unit.plugins.plugin_utils.judging import measured, node, recorded, seeded, with_rules  # noqa: E402
from tests.unit.plugins.plugin_utils.test_judge import SLOW, fleet, named, past  # noqa: E402
from tests.unit.plugins.plugin_utils.test_rules import EXAMPLES  # noqa: E402

Fleet = dict[str, dict[str, Any]]


def healthy(runs: int) -> None:
    wrong = sum(bool(named(fleet(seed))) for seed in range(runs))
    print(f"128 healthy nodes: {wrong} of {runs} runs name one")
    alone = sum(bool(named(eight(seed, 0.0, 0.02))) for seed in range(runs))
    print(f"8 healthy GPUs of a node: {alone} of {runs} runs name one")


def slow(runs: int) -> None:
    for slower in (0.08, 0.10, 0.12, 0.15, 0.20):
        found = [named(fleet(seed, SLOW, slower)) for seed in range(runs)]
        hit, wrong = sum(len(each & set(SLOW)) for each in found), sum(bool(each - set(SLOW)) for each in found)
        print(f"3 of 128 nodes slower by {slower:.0%}: {hit} of {3 * runs} found, {wrong} runs name another")
    for slower in (0.1, 0.2, 0.3):
        hit = sum(bool(named(eight(seed, slower, 0.01))) for seed in range(runs))
        print(f"one of 8 GPUs slower by {slower:.0%}: found in {hit} of {runs}")


def eight(seed: int, slower: float, spread: float) -> Fleet:
    noise = seeded(seed)
    rows = [row for gpu in range(8) for row in measured(noise, gpu, spread, slower if gpu == 3 else 0.0)]
    return {"n1": node(recorded("h100-x8-nvswitch"), *rows)}


def histories(runs: int) -> None:
    facts = recorded("debian12-a100")
    for nodes, earlier in ((16, None), (1, 10), (1, 5)):
        wrong = 0
        for seed in range(runs):
            noise = seeded(seed)
            there = {
                f"n{n}": node(facts, *measured(noise), history=past(noise, earlier or 3 + n % 8)) for n in range(nodes)
            }
            wrong += any(row["against"] == "history" for row in judge(there)["outliers"])
        print(f"{nodes} healthy with {earlier or '3 to 10'} earlier runs: {wrong} of {runs} runs name one")


def thousand() -> None:
    noise, facts = seeded(1), recorded("h100-x8-nvswitch")
    rows = {f"n{n}": [row for gpu in range(8) for row in measured(noise, gpu)] for n in range(1000)}
    for rules in ([], list(EXAMPLES.values())):
        nodes = {name: with_rules(node(facts, *each), *rules) for name, each in rows.items()}
        started = time.monotonic()
        judge(nodes)
        print(f"1,000 nodes with 8 GPUs, {len(rules)} rules: {time.monotonic() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the judgement.")
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    thousand()
    healthy(runs)
    slow(max(1, runs // 10))
    histories(max(1, runs // 2))


if __name__ == "__main__":
    main()
