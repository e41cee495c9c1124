"""Packages on hold: nobody else upgrades them, a hold that is gone is drift, and letting go leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Run, World

HELD = {"libcuda1", "nvidia-kernel-dkms", "nvidia-cuda-toolkit"}
TRACES = "ls /etc/apt/preferences.d/gpufleet-* /etc/apt/apt.conf.d/52gpufleet-* /var/lib/gpufleet/holds/* 2>/dev/null || true"


def provision(world: World, **wanted: bool) -> Run:
    run = world.play(cmdline="--limit a100 --tags nvidia_driver,cuda_toolkit", **wanted)
    assert run.rc == 0, run.stdout
    return run


def held(world: World) -> set[str]:
    return set(world.sh("a100", "apt-mark showhold").split())


def test_a_hold_is_put_on_kept_and_taken_away(converged: World) -> None:
    converged.sh("a100", "apt-mark hold tzdata")
    provision(converged, gpufleet_hold=True)
    assert held(converged) >= HELD | {"tzdata"}
    assert "linux-headers-amd64" not in held(converged)
    policy = converged.sh("a100", "apt-cache policy libcuda1")
    assert " 999" in policy, policy
    assert "^libcuda1$" in converged.sh("a100", "apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert provision(converged, gpufleet_hold=True).changed("a100") == 0

    converged.sh("a100", "apt-mark unhold libcuda1")
    run = provision(converged, gpufleet_hold=True)
    assert "package libcuda1 was held, is not" in run.stdout
    assert held(converged) >= HELD

    provision(converged)
    assert held(converged) == {"tzdata"}
    assert converged.sh("a100", TRACES) == ""
    converged.sh("a100", "apt-mark unhold tzdata")
    assert provision(converged).changed("a100") == 0
