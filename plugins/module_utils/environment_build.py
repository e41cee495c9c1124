# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment built from its lock, or repaired, and proved. Private to the collection."""

from __future__ import annotations

import os
import shutil

from ansible_collections.gpufleet.stack.plugins.module_utils import bom, environment_clone, environment_hook, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import (
    check_packages,
    installed_packages,
    locked_packages,
    site_packages,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import (
    BOM_FILE,
    BUILDING,
    COMPLETE,
    LOCK_FILE,
    SKELETON,
    Wanted,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_proof import prove, prove_start
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_survey import Survey
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_switch import remove
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest, tree_state, write_json

# How each package begins in a lock.
PACKAGE = "[[packages]]"


def build(wanted: Wanted, uv: str, lock: int) -> Survey:
    """A new environment at its final path; gone again where anything fails."""
    os.makedirs(wanted.path, mode=0o755, exist_ok=True)
    state = Survey(present=True)
    try:
        with open(os.path.join(wanted.path, BUILDING), "w", encoding="ascii"):
            pass
        make_skeleton(wanted, uv, lock)
        if not _link_to_twin(wanted, uv, lock):
            fetched = install(wanted, uv, lock, [])
            state = heal(wanted, uv, lock)
            state.fetched_bytes += fetched
            add_hooks(wanted)
            prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
        complete(wanted)
    except BaseException:
        remove(wanted.path)
        raise
    return state


def _link_to_twin(wanted: Wanted, uv: str, lock: int) -> bool:
    """Take everything from an environment of the same lock, where one is here; whether that was done."""
    twin = environment_clone.source(wanted)
    if twin is None:
        return False
    if environment_clone.link(twin, wanted):
        add_hooks(wanted)
        prove_start(wanted.name, wanted.path)
        return True
    for folder in ("lib", "bin"):
        shutil.rmtree(os.path.join(wanted.path, folder))
    make_skeleton(wanted, uv, lock)
    return False


def repair(wanted: Wanted, uv: str, lock: int, state: Survey) -> Survey:
    """Mend only what is damaged, in place: jobs of users may be running from this environment."""
    if state.skeleton:
        make_skeleton(wanted, uv, lock)
    fetched = _reinstall(wanted, uv, lock, sorted(state.damaged)) if state.damaged else 0
    state = heal(wanted, uv, lock)
    state.fetched_bytes += fetched
    add_hooks(wanted)
    prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
    complete(wanted)
    return state


def make_skeleton(wanted: Wanted, uv: str, lock: int) -> None:
    command = [uv, "venv", "--allow-existing", "--no-project", "--python", wanted.interpreter, "--prompt", wanted.name]
    _uv(wanted, lock, [*command, wanted.path], f"environment {wanted.name}")
    with open(os.path.join(wanted.path, LOCK_FILE), "w", encoding="utf-8") as handle:
        handle.write(wanted.lock_text)


def install(wanted: Wanted, uv: str, lock: int, reinstall: list[str]) -> int:
    """Install what is missing from the lock, and the named packages anew. What users added themselves stays.

    :returns: the bytes of the wheels that had to be fetched, as the lock has them.
    """
    python = os.path.join(wanted.path, "bin", "python")
    command = [uv, "pip", "install", "--no-index", "--only-binary", ":all:", "--python", python]
    for name in reinstall:
        command += ["--reinstall-package", name]
    # Users cannot write the compiled files, and would compile anew each time.
    whole = [*command, "--compile-bytecode", "--requirements"]
    with wheelhouse.lock_file(os.path.join(wanted.path, LOCK_FILE), wanted.lock_text, wanted.wheelhouse) as lock_file:
        # From the cache alone where it has everything: uv would ask for each wheel again, and fetch it again from a mirror
        # that forbids keeping answers. The lock's SHA-256 decides either way.
        if _from_cache(wanted, lock, [*whole, lock_file]):
            return 0
        part = os.path.join(wanted.path, "pylock.part.toml")
        try:
            size = _write_lacking(wanted, lock, [*command, "--requirements"], lock_file, part, reinstall)
            _uv(wanted, lock, [*whole, part], f"environment {wanted.name}")
            return size
        finally:
            if os.path.lexists(part):
                os.unlink(part)


def _from_cache(wanted: Wanted, lock: int, command: list[str]) -> bool:
    code, _out, _err = uv_tool.run([*command, "--offline"], uv_tool.environment(wanted.cache_dir), keep_open=(lock,))
    return code == 0


def _write_lacking(
    wanted: Wanted, lock: int, command: list[str], lock_file: str, part: str, reinstall: list[str]
) -> int:
    """Install what the cache has, package by package, and write a lock of the others: one wheel must not cost all of them.

    :returns: how large the others are; from a directory of the node nothing is fetched.
    """
    with open(lock_file, encoding="utf-8") as handle:
        head, *packages = handle.read().split(PACKAGE)
    lacking = []
    for each in packages:
        if reinstall:
            if set(locked_packages(PACKAGE + each)) & set(reinstall):
                lacking.append(each)
            continue
        with open(part, "w", encoding="utf-8") as handle:
            handle.write(head + PACKAGE + each)
        if not _from_cache(wanted, lock, [*command, part]):
            lacking.append(each)
    with open(part, "w", encoding="utf-8") as handle:
        handle.write(head + "".join(PACKAGE + each for each in lacking))
    if wanted.wheelhouse and not wheelhouse.is_served(wanted.wheelhouse):
        return 0
    return sum(each["size"] or 0 for each in wheelhouse.locked_files("".join(lacking)))


def _reinstall(wanted: Wanted, uv: str, lock: int, names: list[str]) -> int:
    """Install packages anew from the index; answers the bytes that were fetched.

    uv makes hard links from its cache: a file edited in an environment is edited in the cache too, so what the cache
    has of these packages goes first.
    """
    _uv(wanted, lock, [uv, "cache", "clean", *names], "wheel cache")
    fetched = install(wanted, uv, lock, names)
    site = site_packages(wanted.path)
    locked = locked_packages(wanted.lock_text)
    for name, found in (installed_packages(site) if site else {}).items():
        for version, directory in found:
            # uv removes another version by its RECORD; one without a usable RECORD stays behind.
            if name in names and version != locked.get(name):
                shutil.rmtree(directory)
    return fetched


def add_hooks(wanted: Wanted) -> None:
    """What every Python of the environment does when it starts."""
    site = site_packages(wanted.path)
    if site:
        environment_hook.write(wanted.path, site)


def heal(wanted: Wanted, uv: str, lock: int) -> Survey:
    """Check all files; what is damaged is installed once more and checked again."""
    state = Survey(present=True)
    state.damaged, state.checked_bytes = check_packages(wanted.path, wanted.lock_text, None)
    if state.damaged:
        state.fetched_bytes = _reinstall(wanted, uv, lock, sorted(state.damaged))
        state.damaged, state.checked_bytes = check_packages(wanted.path, wanted.lock_text, None)
    if state.damaged:
        raise GpufleetError(
            "GF-WHEEL-DAMAGED",
            f"environment {wanted.name}: "
            + "; ".join(f"{name} {what}" for name, what in sorted(state.damaged.items())),
            "the disk or memory of the node returns wrong data, or the wheel does not hold what its own RECORD states",
            "look for disk errors (dmesg); then run the playbook again",
        )
    return state


def _uv(wanted: Wanted, lock: int, command: list[str], doing: str) -> None:
    code, out, err = uv_tool.run(command, uv_tool.environment(wanted.cache_dir), keep_open=(lock,))
    if code != 0:
        raise uv_tool.explain(err or out, doing)


def complete(wanted: Wanted) -> None:
    """Write down that the environment is done, and what it looks like."""
    # uv leaves its own lock file writable for everybody.
    if os.path.exists(os.path.join(wanted.path, ".lock")):
        os.chmod(os.path.join(wanted.path, ".lock"), 0o644)
    site = site_packages(wanted.path)
    installed = installed_packages(site) if site else {}
    records = {
        name: file_digest(os.path.join(installed[name][0][1], "RECORD")) for name in locked_packages(wanted.lock_text)
    }
    python = bom.python_version(wanted.path)
    bill = bom.environment(wanted.name, os.path.basename(wanted.path), wanted.lock_text, wanted.lock_sha256, python)
    bom.write(os.path.join(wanted.path, BOM_FILE), bill)
    skeleton = {name: file_digest(os.path.join(wanted.path, name)) for name in (*SKELETON, environment_hook.LIBRARIES)}
    document = {
        "schema": 1,
        "lock_sha256": wanted.lock_sha256,
        "torch_version": wanted.torch_version,
        "cuda": wanted.cuda,
        "companions": wanted.companions,
        "interpreter": wanted.interpreter,
        "records": records,
        "site": tree_state(site) if site else None,
        "skeleton": {name: digest for name, digest in skeleton.items() if digest is not None},
    }
    write_json(os.path.join(wanted.path, COMPLETE), document)
    building = os.path.join(wanted.path, BUILDING)
    if os.path.exists(building):
        os.unlink(building)
