"""What a fault must leave as it was, beyond what removal compares: lists, keys, half-done packages, modules, our own state."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .removal import difference, snapshot

if TYPE_CHECKING:
    from .conftest import Run
    from .vendor import Vendor

# DKMS's own key stays where DKMS was: the node's firmware may know it by now.
REST = """
dpkg --audit | sed 's/^/audit /'
apt-get check -q 2>&1 | grep '^E:' | sed 's/^/check /'
find /etc/apt /usr/share/keyrings -name '.*' -o -name '*.gpufleet' -o -name '*.dpkg-*' | sed 's/^/remains /'
find /var/lib/apt/lists -maxdepth 1 -name '*_debian12_x86__64_*' | sed 's/^/list /'
find /lib/modules -name 'nvidia*.ko*' -printf 'module %p\n'
find /var/lib/dkms /usr/src -mindepth 1 -maxdepth 2 ! -name 'mok.*' -printf 'source %p\n' 2>/dev/null
find /var/lib/gpufleet -type f -printf 'state %p\n' 2>/dev/null
ls /var/lib/dpkg/updates | sed 's/^/journal /'
true
"""


def state(vendor: Vendor) -> set[str]:
    """All that a run which stops may not have changed."""
    return snapshot(vendor.world, vendor.node) | set(vendor.sh(REST).splitlines())


def said(run: Run) -> str:
    """What a run said, without colours and line ends: Ansible folds long lines."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", run.stdout).split())


def stopped(run: Run, code: str) -> None:
    """The run failed, and a person reads why."""
    assert run.rc != 0, run.stdout
    for word in (f"{code}", "cause:", "mend:"):
        assert word in said(run), run.stdout


__all__ = ["difference", "said", "state", "stopped"]
