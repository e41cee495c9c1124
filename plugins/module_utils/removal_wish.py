# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to go from a node, and what a removal has found out of it. Private to the collection."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import receipts
from ansible_collections.gpufleet.stack.plugins.module_utils.mounts import SHARED, file_system
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import within

# In the order in which they go.
STAGES = ("verify", "pytorch", "python", "cudnn", "cuda_toolkit", "nvidia_driver", "wheelhouse")
ON_DEMAND = "; gpufleet_remove_edited: true removes it"
WITH_ITS_TREE = "what it leads to stays"
OLD_SUFFIX = ".gpufleet-old"


@dataclass(frozen=True)
class Wish:
    """What is to go, and where things lie.

    :param edited: whether files and directories that were changed since go too.
    :param shared: whether a prefix goes that other nodes may use.
    """

    stages: tuple[str, ...]
    prefix: str
    cache_dir: str
    state_dir: str = receipts.STATE_DIR
    root: str = "/"
    edited: bool = False
    shared: bool = False


@dataclass
class Plan:
    """What goes. Paths are the node's own; ``kept`` says of each thing that stays why it does."""

    wish: Wish
    stages: list[str] = field(default_factory=list)
    staying: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    links: dict[str, str | None] = field(default_factory=dict)
    alternatives: list[tuple[str, str]] = field(default_factory=list)
    trees: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    automatic: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    remainders: dict[str, dict[str, Any]] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    state: bool = False
    spared: str = ""
    installer: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """All that goes, one line each, for the diff."""
        return [
            *(f"package {name} {version}" for name, version in sorted(self.packages.items())),
            *(f"file {path}" for path in sorted(self.files)),
            *(f"link {path}" + (f" (again to {to})" if to else "") for path, to in sorted(self.links.items())),
            *(f"alternative {name} to {path}" for name, path in self.alternatives),
            *(f"directory {path}" for path in sorted(self.trees)),
            *(["the driver of NVIDIA's installer"] if self.installer else []),
            *(f"package {name} (again automatic)" for name in self.automatic),
            *(f"receipt {stage}" for stage in self.forgotten),
            *([f"directory {self.wish.state_dir}"] if self.state else []),
        ]

    def in_words(self) -> dict[str, list[str]]:
        """What goes, as the module returns it."""
        return {
            "packages": sorted(self.packages),
            "files": sorted(self.files),
            "links": sorted(self.links),
            "trees": sorted(self.trees),
        }


def spare_shared(plan: Plan) -> None:
    """Other nodes may run from a prefix on a shared file system: of that only the node's own part goes."""
    kind = file_system(plan.wish.prefix, plan.wish.root)
    if (
        plan.stages
        and kind in SHARED
        and not plan.wish.shared
        and os.path.isdir(within(plan.wish.root, plan.wish.prefix))
    ):
        plan.spared = plan.wish.prefix.rstrip("/") + "/"
        plan.kept[plan.wish.prefix] = f"other nodes may use it ({kind}); gpufleet_remove_shared: true removes it"


def is_spared(plan: Plan, path: str) -> bool:
    """Whether it is of a prefix that other nodes may run from."""
    return bool(plan.spared) and path.startswith(plan.spared)


def known(receipt: dict[str, Any], kind: str) -> dict[str, Any]:
    """What a receipt has of a kind, and what former ones left."""
    return {**receipt.get("earlier", {}).get(kind, {}), **receipt.get(kind, {})}


def before(receipt: dict[str, Any], kind: str) -> dict[str, Any]:
    """What of a kind was there before the collection."""
    found = receipt.get("before", {}).get(kind, {})
    return found if isinstance(found, dict) else {}


def others_have(plan: Plan, kind: str, path: str) -> bool:
    """Whether a stage that stays has it too: the sources of the archive's components belong to two."""
    return any(path in receipt.get(kind, {}) for receipt in plan.staying.values())
