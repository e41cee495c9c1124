#!/usr/bin/env python
"""How long resolving one node takes, over the seeded sample of the rule tests: mean, 99th percentile and worst, in ms.

.venv/bin/python tests/benchmarks/resolver.py [--cases 2000] [--max-ms 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT)]


def main() -> int:
    """Measure, print, and fail where the 99th percentile is over the limit."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--max-ms", type=float, default=None)
    arguments = options.parse_args()

    from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
    from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import resolve

    from tests.unit.plugins.plugin_utils.test_resolver_rules import sample

    rows = catalog.load()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for node, wanted in sample(arguments.cases):
        start = time.perf_counter()
        answer = resolve(node, wanted, rows)
        seconds[answer["ok"]].append(time.perf_counter() - start)
    worst = 0.0
    for ok, name in ((True, "resolved"), (False, "conflicts, with their proven fixes")):
        times = sorted(seconds[ok])
        mean, high = sum(times) / len(times), times[int(len(times) * 0.99)]
        worst = max(worst, high)
        print(
            f"{name}: {len(times)} nodes, mean {mean * 1e3:.2f} ms, 99% {high * 1e3:.2f} ms, worst {times[-1] * 1e3:.2f} ms"
        )
    return int(arguments.max_ms is not None and worst * 1e3 > arguments.max_ms)


if __name__ == "__main__":
    sys.exit(main())
