#!/usr/bin/env python
"""What the callback gpufleet.stack.progress costs: many hosts, many tasks that do nothing.

    tests/benchmarks/progress_cost.py --hosts 1000 --tasks 60 --max-percent 5

The tasks are ansible.builtin.debug: a task costs no less than the process that Ansible forks for it, so the share is the largest there
is. Measured is the processor time that is spent in the callback's methods and its thread, by a copy of it that counts, against
that of the whole run with its processes: the clock on the wall tells of other work too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METER = """

import functools as _functools

_SPENT = [0.0]


def _metered(function):
    @_functools.wraps(function)
    def run(*arguments, **more):
        began = time.thread_time()
        try:
            return function(*arguments, **more)
        finally:
            _SPENT[0] += time.thread_time() - began
    return run


for _name in [each for each in vars(CallbackModule) if each.startswith("v2_") or each == "_tick"]:
    setattr(CallbackModule, _name, _metered(getattr(CallbackModule, _name)))

# Before the callback's own, which atexit then calls first.
atexit.register(lambda: print(f"spent {_SPENT[0]}", file=sys.stderr))
"""


def prepare(work: Path, hosts: int, tasks: int) -> list[str]:
    """The counting copy, an inventory and a playbook; the command that plays it."""
    (work / "callback_plugins").mkdir()
    source = (ROOT / "plugins/callback/progress.py").read_text(encoding="utf-8")
    source = source.replace('"gpufleet.stack.progress"', '"metered"').replace("\nname: progress", "\nname: metered")
    (work / "callback_plugins/metered.py").write_text(source + METER, encoding="utf-8")
    inventory = work / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {f"n{each:04d}": None for each in range(hosts)}}}))
    lines = ["- hosts: all", "  gather_facts: false", "  tasks:"]
    for each in range(tasks):
        lines += [f"    - name: Task {each}", "      ansible.builtin.debug:", "        msg: done"]
    playbook = work / "play.yml"
    playbook.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(playbook)]


def measure(work: Path, hosts: int, tasks: int, style: str) -> tuple[float, float, list[str]]:
    """Processor time of the run and of the callback, and the callback's lines."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(work / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "metered",
        "ANSIBLE_DISPLAY_OK_HOSTS": "false",
        "ANSIBLE_LOCAL_TEMP": str(work / "local"),
        "GPUFLEET_PROGRESS_STYLE": style,
        "TERM": "xterm",
    }
    command = prepare(work, hosts, tasks)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    *lines, last = done.stderr.splitlines()
    return used.ru_utime + used.ru_stime, float(last.split()[1]), lines


def main() -> int:
    """Measure, print, and compare with the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--style", choices=["line", "lines"], default="lines")
    parser.add_argument("--max-percent", type=float)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpufleet-benchmark-") as directory:
        whole, spent, lines = measure(Path(directory), arguments.hosts, arguments.tasks, arguments.style)
    percent = 100 * spent / whole
    print(f"{arguments.hosts} hosts, {arguments.tasks} tasks: {whole:.1f} s of processor time")
    print(f"in the callback: {spent:.2f} s, {percent:.2f} %")
    if arguments.style == "lines":
        print(f"lines of its own: {len(lines)}; the last: {lines[-1] if lines else ''}")
    return int(arguments.max_percent is not None and percent > arguments.max_percent)


if __name__ == "__main__":
    raise SystemExit(main())
