"""Bad input ends with a clear error, and the node stays as it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .conftest import fresh

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run, World

LEFT_BY_US = (
    "ls -d /opt/gpufleet/envs /opt/gpufleet/tools /opt/gpufleet/cuda /var/lib/gpufleet /etc/profile.d/gpufleet-* "
    "2>/dev/null || true"
)


def codes(run: Run) -> set[str]:
    return set(re.findall(r"\bGF-[A-Z]+(?:-[A-Z]+)*", run.stdout))


def assert_stopped(run: Run, world: World, *expected: str) -> None:
    """The run failed with the code, said a cause and a remedy, and changed nothing."""
    assert run.rc != 0
    assert set(expected) <= codes(run), run.stdout
    assert run.changed("node") == 0
    assert world.sh("node", LEFT_BY_US) == ""


def test_dry_run_without_package_lists(bare: World) -> None:
    """An image of a container or a cloud brings no package lists; a dry run may fetch none, and passes."""
    bare.sh("node", "rm -rf /var/lib/apt/lists/*")

    run = bare.play(cmdline="--check")

    assert run.rc == 0, run.stdout
    assert bare.sh("node", LEFT_BY_US) == ""


def test_torch_version_that_does_not_exist(bare: World) -> None:
    run = bare.play(pytorch_version="2.9.9")

    assert_stopped(run, bare)
    assert codes(run), run.stdout
    assert "2.9.9" in run.stdout


def test_python_that_torch_was_not_built_for(bare: World) -> None:
    run = bare.play(python_version="3.13")

    assert_stopped(run, bare)
    assert codes(run), run.stdout


@pytest.mark.parametrize(
    "variables",
    [{"gpufleet_environment": "sometimes"}, {"pytorch_environments": "one"}, {"verify_seed": "many"}],
    ids=["choice", "list", "integer"],
)
def test_variable_of_the_wrong_type(bare: World, variables: dict[str, str]) -> None:
    run = bare.play(**variables)

    assert run.rc != 0
    assert next(iter(variables)) in run.stdout
    assert "argument" in run.stdout.lower(), run.stdout
    assert run.changed("node") == 0
    assert bare.sh("node", LEFT_BY_US) == ""


def test_no_rights(bare: World) -> None:
    bare.sh("node", "id student || useradd --create-home student")
    bare.sh(
        "node",
        "install -d -o student -m 700 ~student/.ssh && "
        "install -o student -m 600 /root/.ssh/authorized_keys ~student/.ssh && "
        "touch /var/log/module-executions && chmod 666 /var/log/module-executions",
    )

    run = bare.play(ansible_user="student", ansible_become=False)

    assert_stopped(run, bare)
    assert codes(run), run.stdout


def test_index_that_does_not_answer(bare: World) -> None:
    run = bare.play(pytorch_index_url="http://127.0.0.1:1/simple")

    assert_stopped(run, bare)
    assert codes(run), run.stdout


def test_too_little_disk(tmp_path: Path) -> None:
    with fresh("small", tmp_path, "--tmpfs", "/opt/gpufleet:size=200m") as world:
        run = world.play()

        assert_stopped(run, world, "GF-DISK-SPACE")
