#!/usr/bin/env python
"""How long a node's facts take beyond starting a module that does nothing, in ms.

    .venv/bin/python tests/benchmarks/gathering.py [--rounds 20] [--max-ms 50] [--prefix /opt/gpufleet]

The same process is started twice a round, as Ansible starts a module: once to do nothing, once to gather what stack_probe
gathers. GPUs and NVML are stand-ins (a recorded node with eight GPUs and tests/fixtures/nvml); where a real NVML answers, it is
asked as well, and nvidia-smi is timed beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests/fixtures/nodes/h100-x8-nvswitch"
UTILS = "ansible_collections.gpufleet.stack.plugins.module_utils"
START = f"""
import json, os, sys, time
sys.path.insert(0, {str(ROOT / "collections")!r})
sys.stdin.read()
from ansible.module_utils.basic import AnsibleModule
"""
NOTHING = START + "print('{}')"
GATHER = (
    START
    + f"""
spent, begin = {{}}, time.perf_counter()
from {UTILS} import cuda, gpu, node, receipts
spent["imports"] = time.perf_counter() - begin
calls = {{
    "gpu": lambda: gpu.collect(sysroot=os.environ["NODE"], nvml_library=os.environ.get("NVML")),
    "cuda": lambda: cuda.collect(prefix=os.environ["PREFIX"]),
    "node": lambda: node.collect(os.environ["PREFIX"]),
    "receipts": lambda: receipts.read_all(os.environ["STATE"]),
}}
for name in calls:
    begin = time.perf_counter()
    calls[name]()
    spent[name] = time.perf_counter() - begin
print(json.dumps(spent))
"""
)


def fake_nvml(folder: Path) -> dict[str, str]:
    """The stand-in for NVML with the eight GPUs of the recorded node, and the variables that point to it."""
    library, config = folder / "libnvidia-ml.so.1", folder / "config"
    source = ROOT / "tests/fixtures/nvml/fake_nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", library, source], check=True)
    buses = [path.name[5:7] for path in sorted((NODE / "sys/bus/pci/devices").iterdir())]
    lines = ["driver=535.183.01", "cuda=12020", "count=8"]
    for index, bus in enumerate(buses[:8]):
        lines += [f"{index}.bus={bus}", f"{index}.id=2330", f"{index}.name=NVIDIA H100 80GB HBM3", f"{index}.cc=9.0"]
        lines += [f"{index}.memory_mib=81559", f"{index}.uuid=GPU-{index}", f"{index}.ecc=1", f"{index}.pcie=5,5,16,16"]
    config.write_text("\n".join(lines) + "\n")
    return {"NVML": str(library), "FAKE_NVML_CONFIG": str(config), "NODE": str(NODE)}


def run(script: str, environment: dict[str, str]) -> tuple[float, dict[str, float]]:
    """Seconds of the whole process, and what it says of its parts."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], input="{}", text=True, capture_output=True, check=True, env=environment
    )
    return time.perf_counter() - begin, json.loads(done.stdout)


def measure(rounds: int, environment: dict[str, str]) -> tuple[float, dict[str, float]]:
    """The median of what gathering costs beyond doing nothing, and of its parts, in ms."""
    beyond, parts = [], []
    run(GATHER, environment)  # writes the byte code, as an installed module has it
    for _round in range(rounds):
        nothing, _said = run(NOTHING, environment)
        gathered, spent = run(GATHER, environment)
        beyond.append(gathered - nothing)
        parts.append(spent)
    names = parts[0]
    return statistics.median(beyond) * 1e3, {
        name: statistics.median(each[name] for each in parts) * 1e3 for name in names
    }


def main() -> int:
    """Measure and print; fail where it is over the limit."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--max-ms", type=float, default=None)
    options.add_argument("--prefix", default="/opt/gpufleet")
    options.add_argument("--state-dir", default="/nonexistent", help="re-check the receipts of this directory as well")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            **fake_nvml(Path(folder)),
            "PREFIX": arguments.prefix,
            "STATE": arguments.state_dir,
        }
        beyond, parts = measure(arguments.rounds, environment)
    shown = ", ".join(f"{name} {spent:.1f}" for name, spent in parts.items())
    print(f"8 GPUs (fake NVML): {beyond:.1f} ms beyond a module that does nothing ({shown})")
    if shutil.which("nvidia-smi"):
        real, own = measure(
            arguments.rounds, {**os.environ, "NODE": "/", "PREFIX": arguments.prefix, "STATE": arguments.state_dir}
        )
        begin = time.perf_counter()
        subprocess.run(["nvidia-smi", "-q", "-x"], stdout=subprocess.DEVNULL, check=True)
        smi = time.perf_counter() - begin
        print(f"this machine's NVML: {real:.1f} ms (gpu {own['gpu']:.1f}); nvidia-smi -q -x alone: {smi * 1e3:.1f} ms")
    return int(arguments.max_ms is not None and beyond > arguments.max_ms)


if __name__ == "__main__":
    sys.exit(main())
