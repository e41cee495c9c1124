"""Debian 13 with its real drivers: installed, another branch in its place, never two at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

RECORDED = {"node_recording": "debian12-a100", "gpufleet_gpu_sysroot": "/opt/recorded/a100"}
# A release of the package index that needs none of the PyTorch project's own index.
TORCH = "2.6.0"


@pytest.fixture(scope="module")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("trixie", tmp_path_factory.mktemp("trixie"), suite="trixie", **RECORDED) as world:
        yield world


def provision(world: World, **wanted: str) -> Run:
    run = world.play(cmdline="--tags nvidia_driver", pytorch_version=TORCH, **wanted)
    assert run.rc == 0, run.stdout
    return run


def modules(world: World) -> set[str]:
    """The versions of the drivers whose modules the node has, asked of modinfo: each driver has one module for DRM."""
    return set(world.sh("node", "find /lib/modules -name 'nvidia*-drm.ko*' | xargs -n1 modinfo -F version").split())


def loader_takes(world: World) -> set[str]:
    """The files that programs get for the driver's two main libraries."""
    found = world.sh(
        "node", "ldconfig -p | sed -n 's/.*\\(libcuda\\|libnvidia-ml\\).so.1 .*=> //p' | xargs -n1 readlink -f"
    )
    return {path.rpartition(".so.")[2] for path in found.split()}


def test_debian_13_changes_its_branch_and_comes_back(trixie: World) -> None:
    for branch, version in (("550", "550.163.01"), ("535", "535.274.02"), ("550", "550.163.01")):
        provision(trixie, nvidia_driver_version=branch)
        assert modules(trixie) == {version}
        assert loader_takes(trixie) == {version}
    assert provision(trixie, nvidia_driver_version="550").changed("node") == 0


def test_the_former_driver_comes_back_without_a_network(trixie: World) -> None:
    """The change before left 535 as the former driver, and apt's cache has its packages."""
    offline = "/etc/apt/apt.conf.d/99offline"
    trixie.sh(
        "node",
        f'echo \'Acquire::http::Proxy "http://127.0.0.1:9"; Acquire::https::Proxy "http://127.0.0.1:9";\' > {offline}',
    )
    try:
        for version in ("535.274.02", "550.163.01"):
            run = trixie.play(playbook="playbooks/rollback.yml", gpufleet_rollback="nvidia_driver")
            assert run.rc == 0, run.stdout
            assert "back to driver " + version in run.stdout
            assert modules(trixie) == {version}
            assert loader_takes(trixie) == {version}
            assert trixie.sh("node", "find / -xdev -name '*rollback*' -path '*gpufleet*' 2>/dev/null || true") == ""
    finally:
        trixie.sh("node", f"rm {offline}")
    assert provision(trixie, nvidia_driver_version="550").changed("node") == 0
