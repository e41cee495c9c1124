"""The last test of all: driver, toolkit and cuDNN leave the node with a recorded GPU as prepare.yml found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .removal import PLAYBOOK, difference, snapshot

if TYPE_CHECKING:
    from .conftest import World

# Debian's packages leave the user that they made: its number must not go to somebody else.
LEFT_BY_DEBIAN = ["new: group nvpd", "new: user nvpd"]


def test_the_node_with_the_driver_is_as_it_was(converged: World) -> None:
    before = set(converged.sh("a100", "cat /root/before.txt").splitlines())
    assert "package nvidia-kernel-dkms" in "\n".join(difference(before, snapshot(converged, "a100")))

    run = converged.play(playbook=PLAYBOOK, cmdline="--limit a100")

    assert run.rc == 0, run.stdout
    assert difference(before, snapshot(converged, "a100")) == LEFT_BY_DEBIAN
    assert converged.sh("a100", "ls /var/lib/dkms/nvidia* /usr/src/nvidia* /usr/local/cuda 2>/dev/null || true") == ""
    assert converged.play(playbook=PLAYBOOK, cmdline="--limit a100").changed("a100") == 0
