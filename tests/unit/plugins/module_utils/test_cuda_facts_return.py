# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation of cuda_facts and stack_probe names every key of their answers, and no other."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda, node, packages, record_elf

ROOT = Path(__file__).resolve().parents[4]
NODES = ROOT / "tests/fixtures/nodes"


def returned(module: str) -> dict[str, Any]:
    for statement in ast.parse((ROOT / f"plugins/modules/{module}.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "RETURN":
            assert isinstance(statement.value, ast.Constant)
            found: dict[str, Any] = yaml.safe_load(str(statement.value.value))
            return found
    raise AssertionError("it has no RETURN")


def documented(contains: dict[str, Any]) -> dict[str, Any]:
    return {key: documented(entry.get("contains", {})) for key, entry in contains.items()}


def answered(values: list[Any]) -> dict[str, Any]:
    """The keys of all these values together, all the way down: a list of one node may be empty on another."""
    values = [each for value in values for each in (value if isinstance(value, list) else [value])]
    keys = {key for value in values if isinstance(value, dict) for key in value}
    return {key: answered([value[key] for value in values if isinstance(value, dict) and key in value]) for key in keys}


def full_node(root: Path) -> str:
    """A node that has some of everything."""
    site = root / "opt/gpufleet/envs/default/one/lib/python3.11/site-packages"
    for path, content in {
        "usr/local/cuda-12.4/version.txt": b"CUDA Version 12.4.1\n",
        "usr/lib64/libcudnn.so.9": b"",
        "srv/libcublas.so.12": b"",
        "etc/environment": b"LD_LIBRARY_PATH=/srv\n",
        "usr/bin/python3.11": b"",
        "lib/modules/6.1.0-9/vmlinuz": b"",
        packages.RECORDED_RPM: b'{"python3.11": "3.11.9-1"}',
        str(site.relative_to(root) / "nvidia/cublas/lib/libcublas.so.12"): b"",
        str(site.relative_to(root) / "torch/version.py"): b"cuda = '12.4'\n",
        str(site.relative_to(root) / "torch/lib/libtorch_python.so"): record_elf.build(".rodata", b"sm_80\0"),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return str(root)


def test_every_key_of_cuda_facts_is_documented(tmp_path: Path) -> None:
    contains = returned("cuda_facts")["ansible_facts"]["contains"]["gpufleet_cuda"]["contains"]
    assert documented(contains) == answered([cuda.collect(full_node(tmp_path))])


def test_every_key_of_the_node_is_documented(tmp_path: Path) -> None:
    contains = returned("stack_probe")["node"]["contains"]
    # No os-release, so that there is an error among them.
    assert documented(contains) == answered([node.collect(sysroot=full_node(tmp_path))])


def probe(state: Path, *, sysroot: str = "/") -> dict[str, Any]:
    """The module itself, run as Ansible would run it."""
    arguments = {"prefix": "/nowhere/gpufleet", "state_dir": str(state), "gpu_sysroot": sysroot}
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins/modules/stack_probe.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={"PYTHONPATH": str(ROOT / "collections"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_every_part_of_the_probe_is_documented(tmp_path: Path) -> None:
    found = probe(tmp_path, sysroot=str(NODES / "debian12-a100"))
    assert set(found) - {"changed", "invocation"} == set(returned("stack_probe"))
    assert found["changed"] is False
    assert found["schema"] == node.SCHEMA == 2
    assert found["gpu"]["count"] == 1
    assert (found["receipts"], found["verdict"]) == ({}, None)
