"""Adds up the steps and the pytest reports of a test run and prints one line: N passed, N failed, N skipped."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> None:
    steps = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    failed = sum(line.startswith("FAILED") for line in steps)
    passed = len(steps) - failed
    skipped = 0
    for name in sys.argv[2:]:
        if not Path(name).is_file():
            continue
        for suite in ET.parse(name).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            failed += bad
            skipped += left_out
            passed += int(suite.get("tests", 0)) - bad - left_out
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


if __name__ == "__main__":
    main()
