# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove what the roles brought to a node, as their receipts have it. Private to the collection.

First everything is looked up and written into a ``Plan``, which changes nothing (``removal_plan``); then every reason to refuse
is asked for; only then things go. The receipts go last, so that a removal that was cut off goes on with the next run.
"""

from __future__ import annotations

import contextlib
import os

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    alternatives,
    bom,
    driver_runfile,
    login_environment,
    receipts,
    removal_baseline,
    rollback,
    trees,
    vendor_repository,
    verdict_store,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import within
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import Manager, Run, check_taken, do
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_wish import OLD_SUFFIX, Plan

PROFILE_DIRECTORY = "/etc/profile.d/"
MODULE_SETTINGS = "/etc/modprobe.d/"
UNITS = "/etc/systemd/system/"
SERVED = "/etc/nginx/"
RUNNING = "/run/systemd/system"


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
