"""Toolkits of NVIDIA's real component wheels: made, side by side, the default switched, all on a node without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

RELEASE = "sh -lc 'nvcc --version' | sed -n 's/.*release \\([0-9.]*\\),.*/\\1/p'"
# Compiles a kernel into code for an architecture that Debian's own toolkit does not know, and loads CUDA's libraries.
COMPILE = (
    "cd /var/tmp && printf '#include <cstdio>\\n__global__ void k(float *x) { x[0] = 1; }\\n"
    'int main() { int v; cudaRuntimeGetVersion(&v); std::printf("%%d", v); }\\n\' > t.cu && '
    "bash -lc 'nvcc -gencode=arch=compute_120,code=sm_120 -o t t.cu && ./t'"
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("toolkits", tmp_path_factory.mktemp("toolkits")) as world:
        yield world


def provision(world: World, *versions: str) -> Run:
    run = world.play(cmdline="--tags cuda_toolkit", cuda_toolkit_source="wheels", cuda_toolkit_version=list(versions))
    assert run.rc == 0, run.stdout
    return run


def test_a_toolkit_of_wheels_compiles_in_a_login_shell(node: World) -> None:
    assert provision(node, "13.0").changed("node") > 0
    assert node.sh("node", RELEASE) == "13.0"
    assert node.sh("node", COMPILE) == "13000"
    assert provision(node, "13.0").changed("node") == 0


def test_a_second_toolkit_stands_beside_and_the_default_is_a_small_change(node: World) -> None:
    provision(node, "13.0", "13.1")
    assert node.sh("node", RELEASE) == "13.0"
    trees = "find /opt/gpufleet/cuda -type f -printf '%p %T@ %s\\n' | sort | sha256sum"
    before = node.sh("node", trees)

    run = provision(node, "13.1", "13.0")

    assert node.sh("node", RELEASE) == "13.1"
    assert node.sh("node", COMPILE) == "13010"
    assert node.sh("node", trees) == before
    assert run.changed("node") == 3, run.stdout  # the note before the work, the link, the receipt


def test_the_former_default_comes_back(node: World) -> None:
    for version in ("13.0", "13.1"):
        run = node.play(playbook="playbooks/rollback.yml", gpufleet_rollback="cuda_toolkit")
        assert run.rc == 0, run.stdout
        assert node.sh("node", RELEASE) == version
    assert provision(node, "13.1", "13.0").changed("node") == 0
