# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How packages that go are kept at hand, and how they come back: with apt and with dnf. Private to the collection.

``Debs`` and ``Rpms`` answer the same questions, so the one who takes a driver away and brings it back need not know which it is.
"""

from __future__ import annotations

import os
from typing import Protocol

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    dnf_streams,
    dnf_transaction,
    removal_baseline,
    removal_packages,
    rollback,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import of_rpm

MODULE = "nvidia-driver"


class Family(Protocol):
    """What is asked of a package manager; ``entry`` is the file with our entry of NVIDIA's repository."""

    entry: str

    def automatic(self, names: set[str]) -> list[str]:
        """Those of the installed packages that nobody asked for: they came for others' sake."""

    def keep(self, packages: dict[str, str]) -> None:
        """Have the files of installed packages on the node, as far as their source still answers."""

    def install(self, packages: dict[str, str], automatic: list[str]) -> None:
        """Install these versions, from the cache as far as it has them."""

    def stream(self) -> str | None:
        """The enabled stream of the driver's module."""

    def choose(self, stream: str | None) -> None:
        """Enable that stream, or none."""


class Debs:
    """apt's."""

    entry = vendor_repository.SOURCE_FILES["apt"]

    def __init__(self, run: Run, root: str = "/") -> None:
        self.run = run
        self.root = root

    def automatic(self, names: set[str]) -> list[str]:
        """Those of the installed packages that nobody asked for: they came for others' sake."""
        return sorted(removal_baseline.automatic_packages(self.root) & names)

    def keep(self, packages: dict[str, str]) -> None:
        """Have the files of installed packages on the node, as far as their source still answers."""
        there = rollback.cached(packages, self.root)
        lacking = [f"{name}={version}" for name, version in sorted(packages.items()) if name not in there]
        if lacking and os.path.isdir(os.path.join(self.root, rollback.CACHE)):
            self.run(["apt-get", "install", "--download-only", "--reinstall", "--assume-yes", "-q", "--", *lacking])

    def install(self, packages: dict[str, str], automatic: list[str]) -> None:
        """Install these versions, from the cache as far as it has them.

        :raises GpufleetError: GF-REMOVE-FAILED, GF-ROLLBACK-UNAVAILABLE
        """
        names = [f"{name}={version}" for name, version in sorted(packages.items())]
        rollback.offer(list(rollback.cached(packages, self.root).values()), self.run, self.root)
        options = ["--assume-yes", "--no-install-recommends", "--allow-downgrades", "-q"]
        try:
            command = ["apt-get", "install", *options, "-o", "DPkg::Lock::Timeout=600", "--", *names]
            removal_packages.do(self.run, command, "apt-get install")
            if automatic:
                removal_packages.do(self.run, ["apt-mark", "auto", *automatic], "apt-mark auto")
        finally:
            rollback.withdraw(self.root)

    def stream(self) -> None:
        """apt has no streams."""

    def choose(self, stream: str | None) -> None:
        """apt has no streams."""


class Rpms:
    """dnf's."""

    entry = vendor_repository.SOURCE_FILES["dnf"]

    def __init__(self, run: Run, root: str = "/") -> None:
        self.run = run
        self.root = root

    def automatic(self, names: set[str]) -> list[str]:
        """Those of the installed packages that nobody asked for: they came for others' sake."""
        if not names:
            return []
        asked = ["dnf", "-q", "--cacheonly", "repoquery", "--userinstalled", "--qf", "%{name}\\n"]
        code, out, _err = self.run(asked)
        # Where dnf does not say, somebody asked for each: so none of them is ever cleaned up unasked.
        return sorted(names - set(out.split())) if code == 0 else []

    def keep(self, packages: dict[str, str]) -> None:
        """Have the files of installed packages on the node, as far as their source still answers."""
        there = dnf_transaction.cached(packages, self.root)
        lacking = {f"{name}={version}" for name, version in packages.items() if name not in there}
        if lacking:
            options = ["--assumeyes", "--setopt=keepcache=True", "--setopt=exit_on_lock=True", "--downloadonly"]
            self.run(["dnf", *options, "reinstall", "--", *dnf_transaction.specs(sorted(lacking))])

    def install(self, packages: dict[str, str], automatic: list[str]) -> None:
        """Install these versions, from the cache as far as it has them.

        :raises GpufleetError: GF-DNF-FAILED, GF-REPOSITORY-UNTRUSTED
        """
        names = [f"{name}={version}" for name, version in sorted(packages.items())]
        dnf_transaction.install(self.run, names, driver=True, back=True, root=self.root)
        if automatic:
            # The driver is back, whether or not dnf takes this down.
            self.run(["dnf", "-q", "-y", "--cacheonly", "mark", "remove", *automatic])

    def stream(self) -> str | None:
        """The enabled stream of the driver's module."""
        return dnf_streams.enabled(MODULE, self.root)

    def choose(self, stream: str | None) -> None:
        """Enable that stream, or none.

        :raises GpufleetError: GF-STREAM-UNKNOWN
        """
        if stream is None:
            dnf_streams.reset(self.run, MODULE, self.root, cached=True)
        else:
            dnf_streams.switch(self.run, MODULE, stream, self.root, cached=True)


def family_of(run: Run, root: str = "/") -> Family:
    """The package manager that this node has."""
    return Rpms(run, root) if of_rpm(root) else Debs(run, root)
