# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filling a plan's stages with the wheels of their locks. Private to the collection.

Where the index of a special build does not answer and the package index has a build that serves the node as well, that
one is taken, with a warning.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import KeptLocks, RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.lock_resolve import BUILDS
from ansible_collections.gpufleet.stack.plugins.plugin_utils.locks import Lock, Wish

Row = dict[str, Any]
UNREACHABLE = "GF-INDEX-UNREACHABLE"
UNKNOWN = "the package index does not answer, so what is there cannot be compared with it"
NO_LOCK: Row = {"text": "", "sha256": "", "download_bytes": None}
NO_WHEEL: Row = {"name": None, "version": None, "url": None, "sha256": None, "size": None}
# What another build changes of an environment, and of what verify expects of it.
BUILD_KEYS = ("variant", "cuda", "cudnn", "torch_version", "requirements", "torch_index_url", "disk_mib")
PROOF_KEYS = ("torch_version", "cuda", "cudnn")


def lock_stages(
    plan: Row, node: Row, run: RunLocks, only_look: bool = False, left_out: frozenset[str] = frozenset()
) -> list[str]:
    """Fill in what only the index knows: each wheel's address, size and SHA-256; from the lock where there is one.

    :param only_look: an index that does not answer is a warning; the answer names the roles whose wheels stay unknown.
    :param left_out: stages that are not carried out: of these only locks count that are kept.
    """
    stages, platform = plan["stages"], {"architecture": node["architecture"], "glibc": node["glibc"]}
    unknown = []
    for role, fill in (
        ("python", _fill_python),
        ("pytorch", _fill_pytorch),
        ("cuda_toolkit", _fill_toolkits),
        ("cudnn", _fill_cudnn),
    ):
        out = role in left_out
        try:
            fill(plan, platform, KeptLocks(run.directory, run.write, run.scratch) if out else run)
        except GpufleetError as error:
            if not (only_look or out) or error.code != UNREACHABLE:
                raise
            _leave_unknown(stages[role])
            unknown.append(role)
            if out:
                continue
            # Without what uv says about it, which ends the same message in a run.
            what = error.message.partition("): ")[0] + (")" if "): " in error.message else "")
            warning = {"code": error.code, "message": f"{what}: sizes are unknown, and a run would stop here"}
            if warning not in plan["warnings"]:
                plan["warnings"].append(warning)
    return unknown


def _fill_python(plan: Row, platform: Row, run: RunLocks) -> None:
    """uv is what brings a managed interpreter."""
    stage, environments = plan["stages"]["python"], plan["stages"]["pytorch"].get("environments", [])
    if stage.get("managed"):
        stage["uv"] = run.uv(index_url=environments[0]["index_url"] or None, **platform)


def _fill_pytorch(plan: Row, platform: Row, run: RunLocks) -> None:
    stage = plan["stages"]["pytorch"]
    environments = stage.get("environments", [])
    for environment in environments:
        lock = _environment_lock(plan, environment, platform, run)
        environment["lock"] = {"text": lock.text, "sha256": lock.sha256, "download_bytes": lock.download_bytes}
        environment["path"] = _environment_path(environment)
        environment["module"] = _module(environment)
    if environments:
        stage["uv"] = run.uv(index_url=environments[0]["index_url"] or None, **platform)


def _fill_toolkits(plan: Row, platform: Row, run: RunLocks) -> None:
    """The toolkits that are made of wheels."""
    for toolkit in plan["stages"]["cuda_toolkit"]["toolkits"]:
        requirement = toolkit["requirement"]
        if requirement is None:
            continue
        lock = _lock(plan, run, _plain_wish(plan, requirement, toolkit["index_url"], platform))
        # The one that is asked for holds nothing but the list of the others.
        toolkit["wheels"] = [wheel for wheel in lock.wheels if wheel["name"] != requirement.partition("[")[0]]


def _fill_cudnn(plan: Row, platform: Row, run: RunLocks) -> None:
    for cudnn in plan["stages"]["cudnn"]["cudnns"]:
        requirement = cudnn["requirement"]
        if requirement is None:
            cudnn["wheel"] = dict(NO_WHEEL)
            continue
        lock = _lock(plan, run, _plain_wish(plan, requirement, cudnn["index_url"], platform))
        cudnn["wheel"] = next(wheel for wheel in lock.wheels if wheel["name"] == requirement.split("==")[0])


def _plain_wish(plan: Row, requirement: str, index_url: str, platform: Row) -> Wish:
    """One package of the package index, with what it needs."""
    return Wish(
        requirements=[requirement],
        python=plan["stages"]["python"]["version"],
        name=re.sub(r"(\[.*\])?==", "-", requirement),
        index_url=index_url or None,
        **platform,
    )


def _lock(plan: Row, run: RunLocks, wish: Wish) -> Lock:
    """The lock, and a note where this run put it in the place of another one."""
    lock = run.lock(wish)
    changes = run.changed(lock)
    if changes is not None:
        what = ", ".join(changes) if changes else "the same wheels as before"
        warning = {"code": "GF-LOCK-CHANGED", "message": f"new lock {os.path.basename(lock.path)}: {what}"}
        if warning not in plan["warnings"]:
            plan["warnings"].append(warning)
    return lock


def _leave_unknown(stage: Row) -> None:
    for environment in stage.get("environments", []):
        environment.pop("instead", None)
        environment.setdefault("lock", dict(NO_LOCK))
        environment.setdefault("path", "")
        environment.setdefault("module", _module(environment))
    if "environments" in stage:
        stage.setdefault("uv", dict(NO_WHEEL))
    if stage.get("managed"):
        stage["uv"] = dict(NO_WHEEL)
    for cudnn in stage.get("cudnns", []):
        cudnn.setdefault("wheel", dict(NO_WHEEL))


def _environment_lock(plan: Row, environment: Row, platform: Row, run: RunLocks) -> Lock:
    instead = environment.pop("instead", None)
    wish = _wish(environment, platform)
    if not instead or run.kept(wish) is not None:
        return _lock(plan, run, wish)
    # The other build's lock lies there already: an earlier run took it, and the nodes have it.
    if run.kept(_wish({**environment, **_build(instead)}, platform)) is not None:
        _take(plan, environment, instead, "its lock is kept already")
    elif not run.reachable(environment["torch_index_url"]):
        _take(plan, environment, instead, f"{environment['torch_index_url']} does not answer")
    else:
        try:
            return _lock(plan, run, wish)
        except GpufleetError as error:
            if error.code != UNREACHABLE:
                raise
            _take(plan, environment, instead, f"{environment['torch_index_url']} does not answer")
    return _lock(plan, run, _wish(environment, platform))


def _build(instead: Row) -> Row:
    return {key: instead[key] for key in BUILD_KEYS}


def _take(plan: Row, environment: Row, instead: Row, why: str) -> None:
    """Put the package index's build in the place of the first choice, in every stage that speaks of it."""
    name, first, address = environment["name"], environment["torch_version"], environment["torch_index_url"]
    environment.update(_build(instead))
    stages = plan["stages"]
    for proof in stages["verify"]["environments"]:
        if proof["name"] == name:
            proof.update({key: instead[key] for key in PROOF_KEYS})
    taken = f"torch {instead['torch_version']} ({instead['variant']}) of the package index"
    # The resolver says so where the two differ in what they serve.
    why += f", and {instead['why']}" if instead.get("why") else ""
    stages["pytorch"]["why"].append(f"{name}: {taken} instead, as {why}")
    plan["warnings"].append(
        {
            "code": "GF-INDEX-FALLBACK",
            "message": f"environment {name} gets {taken}, not {first}: {why}; to get {first}, make "
            f"{address} reachable from the controller (https_proxy) or name a mirror of the builds' index "
            "(pytorch_builds_index_url), and remove the other lock from gpufleet_lock_directory",
        }
    )


def _wish(environment: Row, platform: Row) -> Wish:
    address: str = environment["torch_index_url"]
    of_torch = dict.fromkeys(BUILDS, address) if address else {}
    return Wish(
        requirements=environment["requirements"],
        python=environment["python"],
        name=f"{environment['name']}-torch{environment['torch']}-{environment['variant']}",
        index_url=environment["index_url"] or None,
        indexes={**environment["indexes"], **of_torch},
        **platform,
    )


def _environment_path(environment: Row) -> str:
    """The versioned directory: another lock or another interpreter is another directory."""
    made_of = f"{environment['lock']['sha256']} {environment['interpreter']}"
    digest = hashlib.sha256(made_of.encode()).hexdigest()[:8]
    python = environment["python"].replace(".", "")
    directory = os.path.dirname(environment["link"])
    return f"{directory}/{environment['torch']}-{environment['variant']}-py{python}-{digest}"


def _module(environment: Row) -> str:
    """What stands after ``pytorch/`` in the name of its modulefile."""
    version = f"{environment['torch']}-{environment['variant']}"
    return version if environment["name"] == "default" else f"{version}-{environment['name']}"
