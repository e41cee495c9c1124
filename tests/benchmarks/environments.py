#!/usr/bin/env python
"""Measure environments of a real torch on this machine: built, a second one of the same lock, and going back.

    tests/benchmarks/environments.py [DIRECTORY]     default: .cache/benchmark; needs 15 GB there, and the package index

The wheels are taken from .cache/uv where they are there. Prints a line for each measurement, with the disk that it took.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.gpufleet.stack.plugins.module_utils import environment_back, receipts  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure  # noqa: E402
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks  # noqa: E402

REQUIREMENTS = ["torch==2.0.1", "torchvision==0.15.2", "torchaudio==2.0.2", "numpy<2", "pip", "setuptools<80"]
PYTHON = "3.11"


def interpreter() -> str:
    """A Python for which torch 2.0.1 is published."""
    found = subprocess.run([locks.uv_path(), "python", "find", PYTHON], capture_output=True, text=True, check=True)
    return os.path.realpath(found.stdout.strip())


def used(path: Path) -> int:
    """Bytes below a directory, each file once however many names it has."""
    return int(
        subprocess.run(
            ["du", "-s", "--block-size=1", str(path)], capture_output=True, text=True, check=True
        ).stdout.split()[0]
    )


def want(folder: Path, name: str, requirements: list[str], directory: str) -> Wanted:
    """An environment of these requirements, as a plan has it."""
    lock = locks.ensure_lock(
        requirements, python=PYTHON, architecture=platform.machine(), glibc=platform.libc_ver()[1],
        lock_directory=str(folder / "locks"), name=directory,
    )  # fmt: skip
    uv = folder / f"tools/uv-{locks.uv_version()}/uv"
    if not uv.exists():
        uv.parent.mkdir(parents=True)
        uv.symlink_to(locks.uv_path())
    return Wanted(
        name=name, path=str(folder / "envs" / name / directory), link=str(folder / "envs" / name / "current"),
        interpreter=interpreter(), lock_text=lock.text, lock_sha256=lock.sha256, torch_version="2.0.1+cu117", cuda="11.7",
        companions={"torchvision": "0.15.2", "torchaudio": "2.0.2"},
        uv={"version": locks.uv_version(), "url": "", "sha256": "", "size": None},
        prefix=str(folder), cache_dir=str(ROOT / ".cache/uv"), keep=9,
    )  # fmt: skip


def measure(what: str, folder: Path, wanted: Wanted) -> None:
    """Bring one environment, and say what it took."""
    before = used(folder / "envs") if (folder / "envs").exists() else 0
    began = sum(os.times()[:4])
    result = ensure(wanted)
    busy = sum(os.times()[:4]) - began
    after = used(folder / "envs")
    share = f", {100 * (after - before) / before:.2f} % of what was there" if before else ""
    print(
        f"{what}: {result['action']} in {result['seconds']} s ({busy:.1f} s of a processor), {(after - before) / 1e6:.0f} MB more{share}",
        flush=True,
    )


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".cache/benchmark").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    one = want(folder, "default", REQUIREMENTS, "one")
    measure("the first, without or with its wheels cached", folder, one)
    twin = dataclasses.replace(
        one, name="course", path=str(folder / "envs/course/one"), link=str(folder / "envs/course/current")
    )
    measure("a second one of the same lock", folder, twin)
    measure("the same again, all files compared", folder, one)
    other = want(folder, "default", [*REQUIREMENTS, "colorama"], "two")
    measure("another lock, wheels cached", folder, other)
    began = time.monotonic()
    known = receipts.tree_state(one.path)
    environment_back.switch_all([environment_back.Step(one.path, one.link)])
    print(f"back to the first: {time.monotonic() - began:.2f} s, {known['entries'] if known else 0} entries compared")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
