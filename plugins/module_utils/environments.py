# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python environments: built from a lock, proved file by file, then switched to. Private to the collection.

``environment_layout`` says what one is, ``environment_survey`` how it stands, ``environment_build`` makes and mends it,
``environment_switch`` activates it and keeps two runs apart.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    environment_build,
    environment_cache,
    environment_history,
    environment_shared,
    environment_switch,
    managed_python_prune,
    wheelhouse,
)
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_history import Pruned
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import BOM_FILE, COMPLETE, Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_proof import prove
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_survey import Survey, standing, survey
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.file_rights import rights
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json


def ensure(wanted: Wanted, check_mode: bool = False) -> dict[str, Any]:
    """Bring the environment to where the plan has it.

    :returns: the result of the module, without ``path`` and ``link``.
    :raises GpufleetError: with a code for each thing that can go wrong; ``current`` then leads where it led before.
    """
    if hashlib.sha256(wanted.lock_text.encode()).hexdigest() != wanted.lock_sha256:
        raise GpufleetError(
            "GF-LOCK-INVALID",
            f"the lock of environment {wanted.name} is not the one of the plan",
            "the lock was changed between planning and installing",
            "run the playbook again",
        )
    began = time.monotonic()
    before = standing(wanted.link)
    if check_mode:
        state = survey(wanted)
        pruned = _prune(wanted, check_mode=True)
    else:
        # Users other than root have to read what is built here, whatever umask the connection came with.
        former_umask = os.umask(0o022)
        try:
            with rights(wanted.path):
                state, pruned = _used(wanted) or _alone(wanted)
        finally:
            os.umask(former_umask)
    action = state.action()
    return {
        "changed": action != "none" or bool(pruned.gone),
        "action": action,
        "because": state.reasons(),
        "bytes": state.checked_bytes,
        "fetched_bytes": state.fetched_bytes,
        "seconds": round(time.monotonic() - began, 2),
        "pruned": pruned.gone,
        "kept": pruned.kept,
        "diff": {"before": before, "after": {"current": os.path.basename(wanted.path), "torch": wanted.torch_version}},
    }


def _used(wanted: Wanted) -> tuple[Survey, Pruned] | None:
    """The environment as another node has built it, in a directory that they share."""
    state = environment_shared.used(wanted)
    return None if state is None else (state, Pruned([], {}))


def _alone(wanted: Wanted) -> tuple[Survey, Pruned]:
    """Do what is to be done while no other run works on this environment."""
    os.makedirs(os.path.dirname(wanted.link), mode=0o755, exist_ok=True)
    with environment_switch.alone(wanted) as lock:
        if not (wanted.shared and environment_shared.is_there(wanted)):
            return _converge(wanted, lock), _prune(wanted)
    # Another node has built it while this one waited. A thousand of them do not wait for each other's proofs.
    return environment_shared.proved(wanted), Pruned([], {})


def _prune(wanted: Wanted, check_mode: bool = False) -> Pruned:
    """Environments beyond those that stay, with what only they used: interpreters of ours, and wheels in the cache.

    Of a directory that nodes share nothing goes: no node sees the processes of the others.
    """
    if wanted.shared:
        return Pruned([], {})
    locks = {path: environment_cache.locks([path]) for path in environment_history.surplus(wanted)}
    pruned = environment_history.prune(wanted, check_mode=check_mode)
    if pruned.gone and not check_mode:
        environment_cache.forget(wanted, [text for path in pruned.gone for text in locks.get(path, [])])
    if wanted.interpreters is not None:
        named = (*wanted.interpreters, wanted.interpreter)
        gone, kept = managed_python_prune.prune(wanted.prefix, named, pruned.gone, check_mode=check_mode)
        pruned = Pruned([*pruned.gone, *gone], {**pruned.kept, **kept})
    return pruned


def _converge(wanted: Wanted, lock: int) -> Survey:
    """Do what is to be done; answers how it stood before, with the bytes checked last."""
    environment_switch.clean_up(wanted)
    uv_tool.tidy_cache(wanted.cache_dir)
    state = survey(wanted)
    former = state
    if not state.healthy():
        _need_interpreter(wanted)
        uv, _brought = uv_tool.ensure_uv(wanted.prefix, wheelhouse.tool(wanted.uv, wanted.wheelhouse))
        state = (
            environment_build.repair(wanted, uv, lock, state)
            if state.present
            else environment_build.build(wanted, uv, lock)
        )
        former.checked_bytes, former.fetched_bytes = state.checked_bytes, state.fetched_bytes
        uv_tool.tidy_cache(wanted.cache_dir)
    else:
        prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
        if any(read_json(os.path.join(wanted.path, name)) is None for name in (COMPLETE, BOM_FILE)):
            environment_build.complete(wanted)
    environment_switch.switch(wanted)
    return former


def _need_interpreter(wanted: Wanted) -> None:
    if not os.access(wanted.interpreter, os.X_OK):
        raise GpufleetError(
            "GF-PYTHON-MISSING",
            f"{wanted.interpreter} is not there",
            "the role python did not run before, or the interpreter was removed",
            "run the whole playbook, or the role gpufleet.stack.python first",
        )
