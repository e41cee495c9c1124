"""Runs the given make targets in turn and stops at the first that fails.

    python3 tests/tools/steps.py lint unit ...

It ends with each step's seconds, one line `N passed, N failed, N skipped` over the steps and pytest's reports, and, where a
step failed, what it said of that: a service that shows no more than the end of a run shows the fault then. Every step's
whole output stays in .cache/reports/STEP.log.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / ".cache" / "reports"
# How Ansible, pytest, make's tools and Python begin a line that tells a fault.
FAULT = re.compile(r"\s*(│ )?\s*(fatal: |\[ERROR\]|FAILED |ERROR |E  |CRITICAL|error: |Error: |Traceback)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
FAULTS_SHOWN = 5
LINES_AFTER = 8


def run(step: str) -> int:
    """Runs one target, shows its output and keeps it; answers the exit status."""
    command = [os.environ.get("MAKE", "make"), "--no-print-directory", step]
    with (REPORTS / f"{step}.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            log.write(line)
        return child.wait()


def faults(text: str) -> list[str]:
    """The first lines that tell of a fault, each with some that follow it."""
    lines = COLOUR.sub("", text).splitlines()
    shown: list[str] = []
    after = found = 0
    for line in lines:
        if after == 0 and found < FAULTS_SHOWN and FAULT.match(line):
            found += 1
            after = LINES_AFTER
        if after:
            after -= 1
            shown.append(line.rstrip())
    return shown


def counts(seconds: dict[str, int], failed_step: str | None) -> str:
    """The steps and the tests of pytest's reports, added up."""
    failed = int(failed_step is not None)
    passed = len(seconds) - failed
    skipped = 0
    for report in REPORTS.glob("*.xml"):
        for suite in ET.parse(report).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            failed += bad
            skipped += left_out
            passed += int(suite.get("tests", 0)) - bad - left_out
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def main() -> int:
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    seconds: dict[str, int] = {}
    rc, failed = 0, None
    for step in sys.argv[1:]:
        print(f"\n==> make {step}", flush=True)
        start = time.monotonic()
        rc = run(step)
        seconds[step] = round(time.monotonic() - start)
        if rc != 0:
            failed = step
            break
    print()
    if failed is not None:
        print(*faults((REPORTS / f"{failed}.log").read_text(encoding="utf-8", errors="replace")), "", sep="\n")
    for step, took in seconds.items():
        print(f"{'FAILED ' if step == failed else 'ok     '} {step:<10} {took:5d} s")
    print(counts(seconds, failed))
    return rc


if __name__ == "__main__":
    sys.exit(main())
