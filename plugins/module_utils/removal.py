# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what the roles brought to a node, as their receipts have it. Private to the collection.

First everything is looked up and written into a ``Plan``, which changes nothing; then every reason to refuse is asked
for; only then things go. The receipts go last, so that a removal that was cut off goes on with the next run.
"""

from __future__ import annotations

import contextlib
import glob
import os
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    alternatives,
    bom,
    driver_remains,
    driver_runfile,
    environment_files,
    login_environment,
    receipts,
    removal_baseline,
    rollback,
    runfile,
    trees,
    vendor_repository,
    verdict_store,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import BUILDING, COMPLETE, HISTORY
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.mounts import SHARED, file_system
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import KINDS, within
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import Manager, Run, check_taken, do

# In the order in which they go.
STAGES = ("verify", "pytorch", "python", "cudnn", "cuda_toolkit", "nvidia_driver", "wheelhouse")
PROFILE_DIRECTORY = "/etc/profile.d/"
ZPROFILES = ("/etc/zsh/zprofile", "/etc/zprofile")
MODULE_SETTINGS = "/etc/modprobe.d/"
UNITS = "/etc/systemd/system/"
SERVED = "/etc/nginx/"
RUNNING = "/run/systemd/system"
OUR_HEADER = "# Written by gpufleet.stack"
# dnf writes it when a stream is enabled; without it none is.
STREAM_FILE = "/etc/dnf/modules.d/nvidia-driver.module"
ALTERNATIVES = ("/var/lib/dpkg/alternatives", "/var/lib/alternatives")  # Debian's, and the RHEL family's
OLD_SUFFIX = ".gpufleet-old"
ON_DEMAND = "; gpufleet_remove_edited: true removes it"
WITH_ITS_TREE = "what it leads to stays"
THERE_BEFORE = "it was there before this collection"
NO_ENVIRONMENT = "it is no environment of this collection"
ASKED_SINCE = "somebody asked for it since"


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


def known_receipts(wish: Wish) -> dict[str, dict[str, Any]]:
    """``{role: receipt}`` of the node; of a role that was cut off, what its receipt would say."""
    found: dict[str, dict[str, Any]] = {}
    for role in STAGES:
        receipt = receipts.read_json(receipts.receipt_path(within(wish.root, wish.state_dir), role))
        if receipt is not None:
            found[role] = receipt
    for role, baseline in removal_baseline.unfinished(wish.state_dir, wish.root).items():
        if role in STAGES:
            found[role] = removal_baseline.as_receipt(baseline, found.get(role, {}), wish.root)
    return found


def make_plan(wish: Wish, manager: Manager, kernel: str) -> Plan:
    """Look up all that goes and all that stays. Changes nothing.

    :param kernel: the running kernel's release: its package stays whoever brought it.
    :raises GpufleetError: GF-REMOVE-NEEDED where a stage rests on one that is to go.
    """
    known = known_receipts(wish)
    going = {role: known[role] for role in STAGES if role in known and role in wish.stages}
    plan = Plan(wish, stages=list(going), staying={role: known[role] for role in known if role not in going})
    if "python" in going and "pytorch" in plan.staying:
        raise GpufleetError(
            "GF-REMOVE-NEEDED",
            "python cannot go before pytorch: the environments use its interpreter",
            "gpufleet_remove names python and not pytorch",
            "gpufleet_remove: [verify, pytorch, python]",
        )
    _spare_shared(plan)
    if "nvidia_driver" in going:
        plan.installer = _of_installer(going["nvidia_driver"], wish.root)
    for receipt in going.values():
        _plan_trees(plan, receipt)
        _plan_files(plan, receipt)
        _plan_links(plan, receipt)
    _plan_leftovers(plan)
    _plan_cache(plan, going.get("pytorch"))
    _plan_served(plan, going.get("wheelhouse"))
    _plan_directories(plan, going)
    _plan_packages(plan, going, manager, kernel)
    _plan_receipts(plan, going)
    return plan


def _spare_shared(plan: Plan) -> None:
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


def _is_spared(plan: Plan, path: str) -> bool:
    return bool(plan.spared) and path.startswith(plan.spared)


def _known(receipt: dict[str, Any], kind: str) -> dict[str, Any]:
    return {**receipt.get("earlier", {}).get(kind, {}), **receipt.get(kind, {})}


def _before(receipt: dict[str, Any], kind: str) -> dict[str, Any]:
    found = receipt.get("before", {}).get(kind, {})
    return found if isinstance(found, dict) else {}


def _others_have(plan: Plan, kind: str, path: str) -> bool:
    """Whether a stage that stays has it too: the sources of the archive's components belong to two."""
    return any(path in receipt.get(kind, {}) for receipt in plan.staying.values())


def _plan_trees(plan: Plan, receipt: dict[str, Any]) -> None:
    for path, state in _known(receipt, "trees").items():
        inside = within(plan.wish.root, path)
        # A toolkit of NVIDIA's packages outside the prefix goes with its packages.
        if not path.startswith(plan.wish.prefix.rstrip("/") + "/") or not os.path.isdir(inside):
            continue
        if path == plan.wish.cache_dir or _others_have(plan, "trees", path) or _is_spared(plan, path):
            continue
        # The marks inside an environment say more than a receipt that was never written.
        if state is None and path.startswith(plan.wish.prefix.rstrip("/") + "/envs/"):
            continue
        if path in _before(receipt, "trees"):
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
    for path, digest in _known(receipt, "files").items():
        # Of zsh's own file only our block is ours: it goes with the last of our files that it reads.
        if path in ZPROFILES or not os.path.lexists(within(plan.wish.root, path)):
            continue
        if _others_have(plan, "files", path) or path.startswith(plan.wish.state_dir + "/") or _is_spared(plan, path):
            continue
        if path in plan.installer:
            continue
        if path in _before(receipt, "files"):
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
    try:
        with open(inside, encoding="utf-8", errors="replace") as stream:
            return stream.readline().startswith(OUR_HEADER)
    except OSError:
        return False


def _plan_links(plan: Plan, receipt: dict[str, Any]) -> None:
    for path, target in _known(receipt, "links").items():
        now = receipts.link_target(within(plan.wish.root, path))
        if now is None or _others_have(plan, "links", path) or _is_spared(plan, path) or path in plan.installer:
            continue
        leads_to = os.path.normpath(os.path.join(os.path.dirname(path), now))
        former = _before(receipt, "links").get(path)
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
        plan.files += _found(root, prefix + "/libexec/gpufleet_fleet.py")
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
    if _is_spared(plan, cache):
        return
    kind = file_system(cache, plan.wish.root)
    if kind in SHARED and not plan.wish.shared:
        plan.kept[cache] = f"other nodes may use it ({kind}); gpufleet_remove_shared: true removes it"
    elif os.path.ismount(inside):
        plan.kept[cache] = "it is a file system of its own"
    elif cache in _before(receipt, "trees"):
        plan.kept[cache] = THERE_BEFORE
    elif cache.startswith(plan.wish.prefix.rstrip("/") + "/") or "before" in receipt:
        plan.trees.append(cache)
    else:
        plan.kept[cache] = "whether this collection made it is not known"


def _plan_served(plan: Plan, receipt: dict[str, Any] | None) -> None:
    """What a cache host serves: published wheels, which change with every run, and so are in no receipt's trees."""
    for path in (receipt or {}).get("begun", {}).get("trees", []):
        if path in _before(receipt or {}, "trees"):
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
    made |= {
        runfile.CACHE,
        prefix + "/envs",
        prefix + "/libexec",
        prefix + "/bin",
        prefix + "/tools",
        prefix + "/modulefiles",
        prefix,
    }
    plan.directories = sorted(made, key=lambda path: (-path.count("/"), path))


def _plan_packages(plan: Plan, going: dict[str, dict[str, Any]], manager: Manager, kernel: str) -> None:
    added: set[str] = set()
    asked: set[str] = set()
    for role, receipt in going.items():
        if "added_packages" not in receipt and receipt.get("packages"):
            for name in receipt["packages"]:
                plan.kept[f"package {name}"] = f"the receipt of {role} does not say whether this collection added it"
        added |= set(receipt.get("added_packages", []))
        asked |= set(receipt.get("asked_packages", []))
    present = manager.present(added)
    why = _reasons_to_stay(plan, set(present), asked, kernel)
    why.update(manager.needed(sorted(set(present) - set(why))))
    plan.packages = {name: version for name, version in sorted(present.items()) if name not in why}
    plan.kept.update({f"package {name}": reason for name, reason in sorted(why.items())})
    auto = {name for receipt in going.values() for name in receipt.get("auto_packages", [])}
    auto |= {name for name, reason in why.items() if reason.endswith(" needs it")}
    users = removal_baseline.automatic_packages(plan.wish.root)
    staying = {name for receipt in plan.staying.values() for name in receipt.get("asked_packages", [])}
    plan.automatic = sorted((auto & set(installed_versions(root=plan.wish.root))) - users - staying)


def _reasons_to_stay(plan: Plan, present: set[str], asked: set[str], kernel: str) -> dict[str, str]:
    why = {}
    automatic = removal_baseline.automatic_packages(plan.wish.root)
    needed = {name: role for role, receipt in plan.staying.items() for name in receipt.get("packages", {})}
    for name in sorted(present):
        if name in needed:
            why[name] = f"the stage {needed[name]} stays and has it"
        elif kernel and name.startswith(("linux-image-", "kernel-core", "kernel-modules")) and name.endswith(kernel):
            why[name] = "it is the kernel that runs"
        elif automatic and name not in automatic and name not in asked:
            why[name] = ASKED_SINCE
    return why


def _plan_receipts(plan: Plan, going: dict[str, dict[str, Any]]) -> None:
    """A receipt goes; where something of it is kept, what it knows of that stays, so that it can be removed later."""
    for stage, receipt in going.items():
        remainder = _remainder(plan, stage, receipt)
        if remainder is not None:
            plan.remainders[stage] = remainder
        if remainder != receipt:
            plan.forgotten.append(stage)
    everything = set(STAGES) <= set(plan.wish.stages) and not plan.remainders
    plan.state = everything and os.path.isdir(within(plan.wish.root, plan.wish.state_dir))


def _remainder(plan: Plan, stage: str, receipt: dict[str, Any]) -> dict[str, Any] | None:
    kept = {path for path, why in plan.kept.items() if why.endswith(ON_DEMAND) or why == WITH_ITS_TREE}
    rest = {kind: {path: state for path, state in _known(receipt, kind).items() if path in kept} for kind in KINDS}
    wanted = [name for name in receipt.get("added_packages", []) if _may_go_later(plan, name)]
    environments = stage == "pytorch" and any(path.startswith(plan.wish.prefix + "/envs/") for path in kept)
    if not wanted and not environments and not any(rest.values()):
        return None
    return {
        "schema": receipts.SCHEMA,
        "role": stage,
        "digest": "removed",
        "packages": {},
        **rest,
        "added_packages": wanted,
        "asked_packages": [name for name in receipt.get("asked_packages", []) if name in wanted],
        "auto_packages": [],
        "before": receipt.get("before", {}),
        "directories": receipt.get("directories", []),
    }


def _may_go_later(plan: Plan, name: str) -> bool:
    return plan.kept.get(f"package {name}", ASKED_SINCE) != ASKED_SINCE


def refuse(plan: Plan, manager: Manager) -> None:
    """What the package manager would take besides our list stops the removal.

    :raises GpufleetError: GF-REMOVE-WOULD-TAKE.
    """
    if plan.packages:
        check_taken(manager, sorted(plan.packages))


def carry_out(plan: Plan, manager: Manager, run: Run) -> None:
    """Let everything go that the plan has, but for the receipts (``forget``)."""
    root = plan.wish.root
    # Before the packages: it removes its module with DKMS.
    if plan.installer:
        driver_runfile.uninstall(run, root)
    for name, path in plan.alternatives:
        do(run, [alternatives.PROGRAM, "--remove", name, path], f"{alternatives.PROGRAM} --remove")
    for path, former in plan.links.items():
        if former:
            trees.switch_link(within(root, path), former)
        else:
            trees.remove(within(root, path))
    for path in plan.trees:
        _remove_tree(within(root, path))
    keys = vendor_repository.imported_keys(root)
    for path in plan.files:
        trees.remove(within(root, path))
    if set(plan.files) & set(vendor_repository.SOURCE_FILES.values()):
        vendor_repository.restore(root)
        manager.distrust(keys)
    if any(path.startswith(UNITS) for path in [*plan.files, *plan.links]) and os.path.isdir(within(root, RUNNING)):
        do(run, ["systemctl", "daemon-reload"], "systemctl daemon-reload")
    if any(path.startswith(PROFILE_DIRECTORY) for path in plan.files):
        login_environment.tidy(root)
    if plan.packages:
        manager.purge(sorted(plan.packages))
    serves_on = any(path.startswith(SERVED) for path in plan.files) and "nginx" not in plan.packages
    if serves_on and os.path.isdir(within(root, RUNNING)):
        do(run, ["systemctl", "try-reload-or-restart", "nginx"], "systemctl try-reload-or-restart nginx")
    if plan.automatic:
        manager.mark_automatic(plan.automatic)
    for path in plan.directories:
        _remove_empty(within(root, path))


def _remove_tree(path: str) -> None:
    """Remove a directory; renamed first, so that the next run knows half of one for what it is."""
    folder, name = os.path.split(path)
    if os.path.basename(os.path.dirname(folder)) == "envs" and not name.startswith(".building-"):
        doomed = os.path.join(folder, ".building-" + name)
    else:
        doomed = path if name.endswith((trees.NEW_SUFFIX, OLD_SUFFIX)) or name[0] == "." else path + OLD_SUFFIX
    if doomed != path:
        trees.remove(doomed)
        os.rename(path, doomed)
    trees.remove(doomed)


def _remove_empty(path: str) -> None:
    # Something may be left in it, it may be a mount, or it went already.
    with contextlib.suppress(OSError):
        os.rmdir(path)


def forget(plan: Plan) -> None:
    """Remove the receipts of what is gone; with the last one the whole directory of the collection's state."""
    state = within(plan.wish.root, plan.wish.state_dir)
    for stage in plan.forgotten:
        if stage in plan.remainders:
            receipts.write_json(receipts.receipt_path(state, stage), plan.remainders[stage])
        else:
            trees.remove(receipts.receipt_path(state, stage))
        trees.remove(removal_baseline.baseline_path(state, stage))
        trees.remove(rollback.former_path(state, stage))
    if set(plan.forgotten) & set(bom.NVIDIA_ROLES):
        bom.refresh(state, plan.wish.root)
    if "verify" in plan.wish.stages:
        trees.remove(os.path.join(state, verdict_store.FILE_NAME))
        trees.remove(os.path.join(state, verdict_store.FORMER))
        trees.remove(os.path.join(state, verdict_store.SETTINGS))
    if plan.state:
        trees.remove(state)
    for folder in ("receipts", "baselines", "former", ""):
        _remove_empty(os.path.join(state, folder))


def changes_module_settings(plan: Plan) -> bool:
    """Whether the images that the kernel starts from hold something that goes."""
    return any(path.startswith(MODULE_SETTINGS) for path in plan.files)
