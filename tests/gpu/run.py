"""Facts and verify on a real GPU: needs a Python with torch, and nothing else of this collection's requirements.

    python tests/gpu/run.py                                  # this Python's torch, levels quick, standard and health
    python tests/gpu/run.py --python /env/bin/python --out figures.json

It compares what the facts say of the GPUs with what torch sees, runs every check of level health, and prints the figures
with model, driver and date as rows for docs/measurements.md. Exit status 0: all passed; 1: something failed; 2: no GPU, or no
torch that sees one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpufleet.stack.plugins.module_utils import (  # noqa: E402
    gpu,
    script_archive,
    verify_health,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import (  # noqa: E402
    main as check_script,
)

SECONDS = 3600


def expectations(facts: dict[str, Any], toolkit: str | None) -> dict[str, Any]:
    """What the facts say that torch must see."""
    devices = [device for device in facts["devices"] if not device["mig"].get("enabled")]
    return {
        "gpus": len(devices),
        "gpu_checks": "run",
        "compute_capabilities": [device["compute_capability"] for device in devices],
        "devices": [{"name": device["name"], "memory_mib": device["memory_mib"]} for device in devices],
        "toolkit": toolkit,
        "soak_seconds": 30,
    }


def verify(python: str, level: str, wanted: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """Run the checks: exit status, what went to standard error, and the answer."""
    with tempfile.TemporaryDirectory() as folder:
        script, expect = Path(folder, "gpufleet_verify.pyz"), Path(folder, "expect.json")
        script_archive.write(str(script), check_script)
        expect.write_text(json.dumps(wanted), encoding="utf-8")
        command = [python, str(script), "--json", "--level", level, "--expect", str(expect)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    return ended.returncode, ended.stderr, json.loads(ended.stdout) if ended.stdout else {}


def rows(facts: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """The figures as rows of a table."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    driver = facts["driver"]["loaded_version"]
    names = {device["index"]: device["name"] for device in facts["devices"]}
    return [
        f"| {row['metric']} | {row['value']:g} {row['unit']} | {names.get(row['device'], 'CPU')}, driver {driver}, {today} |"
        for row in answer.get("performance", [])
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the Python whose torch is checked")
    parser.add_argument("--level", default="health", choices=("quick", "standard", "health"))
    parser.add_argument("--toolkit", help="a CUDA toolkit's directory, for the extension that standard builds")
    parser.add_argument("--out", help="a file for facts and answer as JSON")
    options = parser.parse_args()
    facts = gpu.collect()
    if not facts["present"] or facts["driver"]["loaded_version"] is None:
        print("this machine has no NVIDIA GPU with a loaded driver", file=sys.stderr)
        return 2
    rc, said, answer = verify(options.python, options.level, expectations(facts, options.toolkit))
    if not answer:
        print(said, file=sys.stderr)
        return 2
    if options.out:
        Path(options.out).write_text(json.dumps({"facts": facts, "answer": answer}, indent=1), encoding="utf-8")
    checks = [*answer["checks"], *verify_health.checks(facts)]
    for check in checks:
        print(f"{check['status']:<8} {check['name']:<32} {check['message']}")
    print(f"\nfacts errors: {facts['errors']}\n")
    print(*rows(facts, answer), sep="\n")
    return 1 if rc or any(check["status"] == "failed" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
