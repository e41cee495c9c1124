"""Environments for the tests, built for real by uv from the tiny wheels of ``wheelhouse``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import environment_files
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import HISTORY, Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environments import ensure
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import locks
from ansible_collections.gpufleet.stack.tests.unit.plugins.wheelhouse import TORCH, Index, build_wheel

COLLECTIONS = Path(__file__).parents[3] / "collections"
OTHER = ("torch==2.0.1", "leaf==1.0", "torchvision==0.15.2")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def want(
    index: Index,
    tmp_path: Path,
    *requirements: str,
    directory: str = "2.0.1-cu117-one",
    name: str = "default",
    **more: Any,
) -> Wanted:
    """An environment below ``tmp_path``, with the lock of these requirements."""
    lock = locks.ensure_lock(
        list(requirements) or ["torch==2.0.1", "leaf==1.0"],
        python=PYTHON,
        architecture=platform.machine(),
        glibc=platform.libc_ver()[1],
        lock_directory=str(index.folder / "locks"),
        name=directory + "".join(requirements),
        index_url=index.simple,
    )
    prefix = tmp_path / "opt"
    version = locks.uv_version()
    uv = prefix / f"tools/uv-{version}/uv"
    if not uv.exists():
        uv.parent.mkdir(parents=True)
        uv.symlink_to(locks.uv_path())
    named = {
        "torch_version": "2.0.1+cu117",
        "cuda": "11.7",
        "companions": {"torchvision": "0.15.2"},
        "lock_wait": 0.3,
        **more,
    }
    return Wanted(
        name=name,
        path=str(prefix / "envs" / name / directory),
        link=str(prefix / "envs" / name / "current"),
        interpreter=os.path.realpath(sys.executable),
        lock_text=lock.text,
        lock_sha256=lock.sha256,
        uv={"version": version, "url": "", "sha256": "", "size": None},
        prefix=str(prefix),
        cache_dir=str(prefix / "cache"),
        **named,
    )


def failure(wanted: Wanted) -> GpufleetError:
    with pytest.raises(GpufleetError) as caught:
        ensure(wanted)
    return caught.value


def siblings(wanted: Wanted) -> list[str]:
    return sorted(name for name in os.listdir(os.path.dirname(wanted.link)) if name != HISTORY)


def site(wanted: Wanted) -> Path:
    found = environment_files.site_packages(wanted.path)
    assert found is not None
    return Path(found)


def edit(path: Path) -> None:
    """Change bytes in place, size and link as they were: the file of the cache is the same file."""
    with path.open("r+b") as handle:
        handle.write(b"y")


def run_in(wanted: Wanted, code: str) -> str:
    command = [f"{wanted.link}/bin/python", "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def stock(folder: Path) -> None:
    """The wheels that the tests install: a torch that needs two others, and one with a program."""
    build_wheel(folder, "torch", "2.0.1", TORCH, ("leaf", "torchvision"))
    build_wheel(folder, "torchvision", "0.15.2", {"torchvision/__init__.py": "__version__ = '0.15.2+cu117'\n"})
    main = "def main():\n    import sys\n\n    print(sys.prefix)\n"
    programs = {"leaf-1.0.dist-info/entry_points.txt": "[console_scripts]\nleaf = leaf:main\n"}
    # As NumPy's wheel does: a compiled file that does not fit its source.
    programs[f"__pycache__/leaf.{sys.implementation.cache_tag}.pyc"] = "stale"
    build_wheel(folder, "leaf", "1.0", {"leaf.py": "x = 1\n" * 2000 + main, **programs})
