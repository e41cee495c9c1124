"""gpufleet-python and Jupyter's kernels, written below another root and run by sh."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ansible_collections.gpufleet.stack.plugins.module_utils.environment_commands import apply

VERSIONS = {"default": "2.0.1+cu117", "course": "2.0.1+cu117"}
KERNEL = "usr/local/share/jupyter/kernels/gpufleet-{}/kernel.json"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def environment(prefix: Path, name: str, version: str) -> Path:
    """An environment whose Python tells where it was called."""
    python = prefix / "envs" / name / version / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$0" "$@"\n')
    python.chmod(0o755)
    link = prefix / "envs" / name / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    return python


def test_the_program_follows_the_link_once(tmp_path: Path) -> None:
    prefix = tmp_path / "it's here"
    python, course = environment(prefix, "default", "2.0.1"), environment(prefix, "course", "2.6.0")
    apply(str(prefix), {}, str(tmp_path))
    program = tmp_path / "usr/local/bin/gpufleet-python"

    def run(**settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, "-c", "a b"], env=settings, capture_output=True, text=True, check=False)

    assert run(PATH="/usr/bin:/bin").stdout == f"{python} -c a b\n"
    assert run(PATH="/usr/bin:/bin", GPUFLEET_ENVIRONMENT="course").stdout == f"{course} -c a b\n"
    missing = run(PATH="/usr/bin:/bin", GPUFLEET_ENVIRONMENT="nonesuch")
    assert missing.returncode == 127
    assert missing.stderr == f"gpufleet-python: there is no environment {prefix}/envs/nonesuch\n"
    (prefix / "envs/course/current").unlink()
    (prefix / "envs/course/current").symlink_to("gone")
    assert run(PATH="/usr/bin:/bin", GPUFLEET_ENVIRONMENT="course").returncode == 127


def test_kernels_where_they_are_asked_for(tmp_path: Path) -> None:
    assert apply("/opt/gpufleet", VERSIONS, str(tmp_path), check_mode=True).diff
    assert files(tmp_path) == []
    changes = apply("/opt/gpufleet", VERSIONS, str(tmp_path))
    assert files(tmp_path) == sorted(["usr/local/bin/gpufleet-python", *(KERNEL.format(name) for name in VERSIONS)])
    assert sorted(changes.files) == sorted(str(tmp_path / name) for name in files(tmp_path))
    document = json.loads((tmp_path / KERNEL.format("course")).read_text())
    assert document["display_name"] == "PyTorch 2.0.1+cu117 (course)"
    assert document["argv"][0] == "/usr/local/bin/gpufleet-python"
    assert document["env"] == {"GPUFLEET_ENVIRONMENT": "course"}
    assert apply("/opt/gpufleet", VERSIONS, str(tmp_path)).diff == []


def test_only_our_own_kernels_go(tmp_path: Path) -> None:
    apply("/opt/gpufleet", VERSIONS, str(tmp_path))
    for name, text in (("gpufleet-site", '{"argv": []}'), ("gpufleet-odd", "{"), ("gpufleet-list", '{"metadata": 1}')):
        (tmp_path / KERNEL.format(name[9:])).parent.mkdir()
        (tmp_path / KERNEL.format(name[9:])).write_text(text)
    apply("/opt/gpufleet", {"default": "2.0.1+cu117"}, str(tmp_path))
    assert not (tmp_path / KERNEL.format("course")).parent.exists()
    apply("/opt/gpufleet", {}, str(tmp_path))
    kept = [KERNEL.format(name) for name in ("list", "odd", "site")]
    assert files(tmp_path) == sorted(["usr/local/bin/gpufleet-python", *kept])
