"""Debian's own toolkit beside one of NVIDIA's component wheels, both real; the default through a link and through alternatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Run, World, fresh
from .removal import PLAYBOOK, difference, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

LINK = "/usr/local/cuda"
OWN, WHEELS = "/opt/gpufleet/cuda/11.8", "/opt/gpufleet/cuda/13.0"
PROGRAM = (
    '#include <cstdio>\n__global__ void k(float *x) { x[0] = 1; }\nint main() { std::printf("%d", CUDART_VERSION); }\n'
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("beside", tmp_path_factory.mktemp("beside")) as world:
        provision(world, "11.8", "13.0")
        yield world


def provision(world: World, *versions: str) -> Run:
    wishes = {"cuda_toolkit_version": list(versions), "cuda_toolkit_source": ["distro", "wheels"]}
    run = world.play(cmdline="--tags cuda_toolkit", **wishes)
    assert run.rc == 0, run.stdout
    return run


def compiled(node: World, toolkit: str, architecture: str) -> str:
    """What a program says that this toolkit compiled for an architecture."""
    node.sh("node", f"cat > /var/tmp/t.cu <<'END'\n{PROGRAM}END")
    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    return node.sh("node", f"cd /var/tmp && {toolkit}/bin/nvcc {code} -o t t.cu && ./t")


def test_each_compiles_with_its_own_compiler_and_headers(node: World) -> None:
    assert compiled(node, OWN, "80") == "11080"
    assert compiled(node, WHEELS, "120") == "13000"
    assert compiled(node, LINK, "80") == "11080"
    assert provision(node, "11.8", "13.0").changed("node") == 0


def test_the_default_changes_by_one_link(node: World) -> None:
    run = provision(node, "13.0", "11.8")
    assert node.sh("node", f"readlink {LINK}") == WHEELS
    assert compiled(node, LINK, "120") == "13000"
    assert run.changed("node") == 3, run.stdout  # the note before the work, the link, the receipt


def test_the_default_changes_through_the_alternatives_system_where_that_keeps_the_link(node: World) -> None:
    node.sh("node", f"rm {LINK} && update-alternatives --install {LINK} cuda {WHEELS} 130")
    for versions, path in ((("11.8", "13.0"), OWN), (("13.0", "11.8"), WHEELS)):
        provision(node, *versions)
        assert node.sh("node", f"readlink {LINK}") == "/etc/alternatives/cuda"
        assert node.sh("node", f"readlink -f {LINK}") == path
        # Chosen by hand: another toolkit that is installed later does not take the link.
        assert "Status: manual" in node.sh("node", "update-alternatives --query cuda")
        assert provision(node, *versions).changed("node") == 0
    node.sh("node", f"update-alternatives --remove-all cuda && ln -s {WHEELS} {LINK}")


def test_both_go_without_a_trace(node: World) -> None:
    before = set(node.sh("node", "cat /root/before.txt").splitlines())
    run = node.play(playbook=PLAYBOOK)
    assert run.rc == 0, run.stdout
    assert difference(before, snapshot(node, "node")) == []
