# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files, links, trees and directories go from a node, and why the others stay. Private to the collection."""

from __future__ import annotations

import contextlib
import glob
import os
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    alternatives,
    driver_remains,
    driver_runfile,
    environment_files,
    receipts,
    runfile,
    trees,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import BUILDING, COMPLETE, HISTORY
from ansible_collections.gpufleet.stack.plugins.module_utils.mounts import SHARED, file_system
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import bears_our_words, within
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_wish import (
    OLD_SUFFIX,
    ON_DEMAND,
    WITH_ITS_TREE,
    Plan,
    Wish,
    before,
    is_spared,
    known,
    others_have,
)

ZPROFILES = ("/etc/zsh/zprofile", "/etc/zprofile")
# dnf writes it when a stream is enabled; without it none is.
STREAM_FILE = "/etc/dnf/modules.d/nvidia-driver.module"
ALTERNATIVES = ("/var/lib/dpkg/alternatives", "/var/lib/alternatives")  # Debian's, and the RHEL family's
THERE_BEFORE = "it was there before this collection"
NO_ENVIRONMENT = "it is no environment of this collection"


def look_up(plan: Plan, going: dict[str, dict[str, Any]]) -> None:
    """Put into the plan what goes of the receipts' paths, and what no receipt has."""
    if "nvidia_driver" in going:
        plan.installer = _of_installer(going["nvidia_driver"], plan.wish.root)
    for receipt in going.values():
        _plan_trees(plan, receipt)
        _plan_files(plan, receipt)
        _plan_links(plan, receipt)
    _plan_leftovers(plan)
    _plan_cache(plan, going.get("pytorch"))
    _plan_served(plan, going.get("wheelhouse"))
    _plan_directories(plan, going)


def _plan_trees(plan: Plan, receipt: dict[str, Any]) -> None:
    for path, state in known(receipt, "trees").items():
        inside = within(plan.wish.root, path)
        # A toolkit of NVIDIA's packages outside the prefix goes with its packages.
        if not path.startswith(plan.wish.prefix.rstrip("/") + "/") or not os.path.isdir(inside):
            continue
        if path == plan.wish.cache_dir or others_have(plan, "trees", path) or is_spared(plan, path):
            continue
        # The marks inside an environment say more than a receipt that was never written.
        if state is None and path.startswith(plan.wish.prefix.rstrip("/") + "/envs/"):
            continue
        if path in before(receipt, "trees"):
            plan.kept[path] = THERE_BEFORE
        elif state is not None and receipts.tree_state(inside) != state and not plan.wish.edited:
            plan.kept[path] = "it was changed since" + ON_DEMAND
        elif path not in plan.trees:
            plan.trees.append(path)


def _of_installer(receipt: dict[str, Any], root: str) -> list[str]:
    """The paths that NVIDIA's installer brought, where our role ran it: its own uninstaller takes them."""
    ours = (receipt.get("stage") or {}).get("source") == "runfile" or driver_runfile.UNINSTALLER in receipt.get(
        "links", {}
    )
    listed = driver_remains.read_list(root)
    if not ours or driver_remains.facts(root, [], None, None) is None:
        return []
    paths = [*listed.files, *listed.links] if listed else []
    return [*paths, driver_runfile.INSTALLER, driver_runfile.UNINSTALLER, "/" + driver_remains.LIST]


def _plan_files(plan: Plan, receipt: dict[str, Any]) -> None:
    for path, digest in known(receipt, "files").items():
        # Of zsh's own file only our block is ours: it goes with the last of our files that it reads.
        if path in ZPROFILES or not os.path.lexists(within(plan.wish.root, path)):
            continue
        if others_have(plan, "files", path) or path.startswith(plan.wish.state_dir + "/") or is_spared(plan, path):
            continue
        if path in plan.installer:
            continue
        if path in before(receipt, "files"):
            plan.kept[path] = THERE_BEFORE
        elif not _unedited(plan.wish, path, digest) and not plan.wish.edited:
            plan.kept[path] = "it was edited since" + ON_DEMAND
        elif path not in plan.files:
            plan.files.append(path)
            # Two receipts may know it, and only the later one its newest state.
            plan.kept.pop(path, None)
    plan.kept = {path: why for path, why in plan.kept.items() if path not in plan.files}


def _unedited(wish: Wish, path: str, digest: str | None) -> bool:
    inside = within(wish.root, path)
    if path == STREAM_FILE:
        return True  # going back changes it too, and nobody else's packages are of that module
    if digest is not None:
        return receipts.file_digest(inside) == digest
    # A role that was cut off left no digest: what bears our name or begins with our words is ours.
    if os.path.basename(path).startswith("gpufleet-") or path in vendor_repository.KEY_FILES.values():
        return True
    return bears_our_words(inside)


def _plan_links(plan: Plan, receipt: dict[str, Any]) -> None:
    for path, target in known(receipt, "links").items():
        now = receipts.link_target(within(plan.wish.root, path))
        if now is None or others_have(plan, "links", path) or is_spared(plan, path) or path in plan.installer:
            continue
        leads_to = os.path.normpath(os.path.join(os.path.dirname(path), now))
        former = before(receipt, "links").get(path)
        if os.path.dirname(now) == alternatives.DIRECTORY:
            _plan_alternatives(plan, path, os.path.basename(now))
        elif leads_to in plan.kept:
            plan.kept[path] = WITH_ITS_TREE
        elif now == former:
            plan.kept[path] = THERE_BEFORE
        elif now == target or leads_to.startswith(plan.wish.prefix.rstrip("/") + "/"):
            plan.links[path] = former
        else:
            plan.kept[path] = f"it leads to {now} by now"


def _plan_alternatives(plan: Plan, link: str, name: str) -> None:
    """A link that the alternatives system keeps is its own; what goes is that our toolkits are among the choices."""
    root = plan.wish.root
    lines: set[str] = set()
    for folder in ALTERNATIVES:
        with contextlib.suppress(OSError), open(within(root, f"{folder}/{name}"), encoding="utf-8") as stream:
            lines |= set(stream.read().splitlines())
    plan.alternatives += [(name, path) for path in plan.trees if path in lines]
    if not plan.alternatives:
        plan.kept[link] = "the alternatives system keeps it"


def _plan_leftovers(plan: Plan) -> None:
    """What no receipt has: environments before the last switch, what cut-off runs left, the node's uv."""
    prefix, root = plan.wish.prefix, plan.wish.root
    if plan.spared:
        return
    patterns = []
    if "verify" in plan.wish.stages:
        # A node that never passed has them without a receipt.
        for pattern in ("bin/gpufleet-verify", "libexec/gpufleet_verify*"):
            found = _found(root, f"{prefix}/{pattern}")
            plan.files += [path for path in found if path not in plan.files and path not in plan.kept]
    if "pytorch" in plan.stages:
        patterns += ["tools/uv-*", f"cache{OLD_SUFFIX}"]
        for path in _found(root, prefix + "/envs/*/*") + _found(root, prefix + "/envs/*/.building-*"):
            _plan_environment(plan, path)
        for name in (".lock", HISTORY):
            plan.files += [path for path in _found(root, f"{prefix}/envs/*/{name}") if _only_ours_beside(plan, path)]
    if "python" in plan.stages:
        patterns += ["tools/uv-*", f"python/*{OLD_SUFFIX}"]
        plan.files += _found(root, prefix + "/python/.lock")
    if "verify" in plan.stages or "pytorch" in plan.stages:
        # A check of the fleet leaves no receipt.
        plan.files += _found(root, prefix + "/libexec/gpufleet_fleet.py*")
        plan.files += _found(root, plan.wish.state_dir + "/fleet-verdict.json")
    for role in runfile.PROGRAMS:
        if role in plan.stages:
            plan.trees += _found(root, f"{runfile.CACHE}/{role}")
    for stage, folder in (("cudnn", "cudnn"), ("cuda_toolkit", "cuda")):
        if stage in plan.stages:
            patterns += [f"{folder}/*{trees.NEW_SUFFIX}", f"{folder}/*{OLD_SUFFIX}"]
    for pattern in patterns:
        plan.trees += [path for path in _found(root, f"{prefix}/{pattern}") if path not in plan.trees]


def _found(root: str, pattern: str) -> list[str]:
    top = glob.escape(os.path.normpath(root))
    paths = sorted(glob.glob(within(top, pattern)))
    return ["/" + os.path.relpath(path, root) for path in paths]


def _plan_environment(plan: Plan, path: str) -> None:
    inside = within(plan.wish.root, path)
    if path in plan.trees or path in plan.kept or os.path.islink(inside) or not os.path.isdir(inside):
        return
    complete = os.path.exists(os.path.join(inside, COMPLETE))
    if os.path.basename(path).startswith(".building-") or (
        os.path.exists(os.path.join(inside, BUILDING)) and not complete
    ):
        plan.trees.append(path)
    elif not complete:
        plan.kept[path] = NO_ENVIRONMENT
    elif (added := environment_files.added_packages(inside)) and not plan.wish.edited:
        plan.kept[path] = f"{', '.join(added)} added since{ON_DEMAND}"
    else:
        plan.trees.append(path)


def _only_ours_beside(plan: Plan, lock: str) -> bool:
    folder = os.path.dirname(lock)
    return not any(os.path.dirname(path) == folder and why != NO_ENVIRONMENT for path, why in plan.kept.items())


def _plan_cache(plan: Plan, receipt: dict[str, Any] | None) -> None:
    """The wheel cache goes where it is this node's own: other nodes may share one that was there before."""
    cache = plan.wish.cache_dir
    inside = within(plan.wish.root, cache)
    if receipt is None or not os.path.isdir(inside) or cache in plan.trees:
        return
    if is_spared(plan, cache):
        return
    kind = file_system(cache, plan.wish.root)
    if kind in SHARED and not plan.wish.shared:
        plan.kept[cache] = f"other nodes may use it ({kind}); gpufleet_remove_shared: true removes it"
    elif os.path.ismount(inside):
        plan.kept[cache] = "it is a file system of its own"
    elif cache in before(receipt, "trees"):
        plan.kept[cache] = THERE_BEFORE
    elif cache.startswith(plan.wish.prefix.rstrip("/") + "/") or "before" in receipt:
        plan.trees.append(cache)
    else:
        plan.kept[cache] = "whether this collection made it is not known"


def _plan_served(plan: Plan, receipt: dict[str, Any] | None) -> None:
    """What a cache host serves: published wheels, which change with every run, and so are in no receipt's trees."""
    for path in (receipt or {}).get("begun", {}).get("trees", []):
        if path in before(receipt or {}, "trees"):
            plan.kept[path] = THERE_BEFORE
        elif os.path.ismount(within(plan.wish.root, path)):
            plan.kept[path] = "it is a file system of its own"
        elif os.path.isdir(within(plan.wish.root, path)):
            plan.trees.append(path)


def _plan_directories(plan: Plan, going: dict[str, dict[str, Any]]) -> None:
    """Directories that go if they are empty in the end, the deepest first."""
    if not plan.stages:
        return
    prefix = plan.wish.prefix.rstrip("/")
    made = {path for receipt in going.values() for path in receipt.get("directories", [])}
    made |= {os.path.dirname(path) for path in [*plan.trees, *plan.files, *plan.links] if path.startswith(prefix + "/")}
    made |= {prefix + below for below in ("", "/envs", "/libexec", "/bin", "/tools", "/modulefiles")} | {runfile.CACHE}
    plan.directories = sorted(made, key=lambda path: (-path.count("/"), path))
