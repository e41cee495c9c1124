# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says of one environment, and the names of what lies in it. Private to the collection.

A virtual environment carries its own path in every script, in ``pyvenv.cfg`` and in ``activate``; scripts that a later
``pip install`` makes do so even where uv's ``--relocatable`` was used. So an environment is built at the path where it
will stay and is merely not visible until it is done: ``.gpufleet-building`` marks it from the first moment,
``.complete`` is written last, and only then the link ``current`` is switched by one rename. A directory that has the
first mark and not the second is what a killed run left; the next run removes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

BUILDING = ".gpufleet-building"
COMPLETE = ".complete"
LOCK_FILE = "pylock.toml"
BOM_FILE = "gpufleet-bom.cdx.json"
# The names of the environments beside it in the order in which they were active.
HISTORY = ".history"
# Holds what is on its way out or was never finished: any run may remove it.
DOOMED = ".building-"
# What makes the directory an environment, apart from what wheels bring.
SKELETON = ("pyvenv.cfg", "bin/activate", "bin/activate.csh", "bin/activate.fish", BOM_FILE)


class Place(Protocol):
    """As much of an environment as its switch has to know."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def path(self) -> str:
        """Its directory."""

    @property
    def link(self) -> str:
        """The link that leads to the active one."""

    @property
    def lock_wait(self) -> float:
        """Seconds to wait for another run."""


@dataclass(frozen=True)
class Wanted:
    """One environment as the plan has it, and where things lie on the node.

    :param uv: ``{version, url, sha256, size}`` of uv's wheel.
    :param companions: further packages that are imported, with the version each must have (torchvision, torchaudio).
    :param wheelhouse: directory or address that the wheels come from in place of the lock's addresses; empty for these.
    :param shared: whether it lies in a directory that many nodes share, and of which the one that builds it reads every file.
    :param lock_wait: seconds to wait for another run that works on the same environment.
    :param keep: environments of this name that stay, the active one among them.
    :param interpreters: those of the whole plan; None where the plan is not known, and no interpreter goes.
    """

    name: str
    path: str
    link: str
    interpreter: str
    lock_text: str
    lock_sha256: str
    torch_version: str
    cuda: str | None
    companions: dict[str, str]
    uv: dict[str, Any]
    prefix: str
    cache_dir: str
    wheelhouse: str = ""
    shared: bool = False
    lock_wait: float = 60.0
    keep: int = 2
    interpreters: tuple[str, ...] | None = None
