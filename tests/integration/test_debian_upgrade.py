"""Debian 12: the real driver of one suite gives way to the newer one of another, and a hold is lifted and renewed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from .conftest import Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

RECORDED = {"node_recording": "debian12-a100", "gpufleet_gpu_sysroot": "/opt/recorded/a100"}
# The release itself has this one; the security archive a newer one of the same branch.
OLDER = "535.261.03"
ROW = {
    "distribution": "Debian",
    "version": "12",
    "branch": "535",
    "flavour": "proprietary",
    "driver_version": OLDER,
    "suite": "bookworm",
    "source": "the release's own suite, for a site that does not follow security's",
}
SUITE_FILES = "ls /etc/apt/preferences.d /etc/apt/sources.list.d | grep suite || true"


class Node(NamedTuple):
    world: World
    overlay: Path

    def play(self, *, older: bool) -> Run:
        """The driver's stage, held; of the release's suite, or as the catalog has it."""
        overlay = str(self.overlay) if older else ""
        run = self.world.play(
            cmdline="--tags nvidia_driver",
            pytorch_version="2.6.0",
            cuda_toolkit_version="none",
            nvidia_driver_version="535",
            gpufleet_hold=True,
            gpufleet_catalog_overlay=overlay,
        )
        assert run.rc == 0, run.stdout
        return run

    def sh(self, command: str) -> str:
        return self.world.sh("node", command)

    def modules(self) -> set[str]:
        return set(self.sh("find /lib/modules -name 'nvidia*.ko*' | xargs -n1 modinfo -F version").split())

    def packages(self) -> set[str]:
        """The upstream versions of what has to match: modules' source, libcuda, libnvidia-ml."""
        found = self.sh("dpkg-query -W -f '${Version}\\n' nvidia-kernel-dkms libcuda1 libnvidia-ml1").split()
        return {version.partition("-")[0] for version in found}

    def held(self) -> set[str]:
        return set(self.sh("apt-mark showhold").split())


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    work = tmp_path_factory.mktemp("upgrade")
    overlay = work / "overlay.yml"
    overlay.write_text(yaml.safe_dump({"driver": {"archive": [ROW]}}), encoding="utf-8")
    with fresh("upgrade", work, **RECORDED) as world:
        yield Node(world, overlay)


def test_the_older_driver_of_the_releases_suite_is_installed_and_held(node: Node) -> None:
    node.play(older=True)
    assert (node.modules(), node.packages()) == ({OLDER}, {OLDER})
    assert node.sh(SUITE_FILES) != ""
    assert {"libcuda1", "nvidia-kernel-dkms"} <= node.held()
    assert node.play(older=True).changed("node") == 0


def test_everybodys_upgrade_leaves_it(node: Node) -> None:
    node.sh("apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get -y -q dist-upgrade")
    assert (node.modules(), node.packages()) == ({OLDER}, {OLDER})
    assert node.play(older=True).changed("node") == 0


def test_ours_brings_the_newer_one_and_renews_the_hold(node: Node) -> None:
    node.play(older=False)
    newer = node.packages()
    assert len(newer) == 1
    assert [int(part) for part in newer.copy().pop().split(".")] > [int(part) for part in OLDER.split(".")]
    assert node.modules() == newer
    assert node.sh(SUITE_FILES) == ""
    assert {"libcuda1", "nvidia-kernel-dkms"} <= node.held()
    assert node.play(older=False).changed("node") == 0
