# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python environments: built from a lock, proved file by file, then switched to. Private to the collection.

A virtual environment carries its own path in every script, in ``pyvenv.cfg`` and in ``activate``; scripts that a later
``pip install`` makes do so even where uv's ``--relocatable`` was used. So an environment is built at the path where it
will stay and is merely not visible until it is done: ``.gpufleet-building`` marks it from the first moment,
``.complete`` is written last, and only then the link ``current`` is switched by one rename. A directory that has the
first mark and not the second is what a killed run left; the next run removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_files import (
    check_packages,
    installed_packages,
    locked_packages,
    part_of,
    site_packages,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_proof import prove
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import (
    file_digest,
    link_target,
    read_json,
    write_json,
)

BUILDING = ".gpufleet-building"
COMPLETE = ".complete"
LOCK_FILE = "pylock.toml"
# What makes the directory an environment, apart from what wheels bring.
SKELETON = ("pyvenv.cfg", "bin/activate", "bin/activate.csh", "bin/activate.fish")
HASH_THREADS = 8
IMPORT_TIMEOUT = 600


@dataclass(frozen=True)
class Wanted:
    """One environment as the plan has it, and where things lie on the node.

    :param uv: ``{version, url, sha256, size}`` of uv's wheel.
    :param companions: further packages that are imported, with the version each must have (torchvision, torchaudio).
    :param lock_wait: seconds to wait for another run that works on the same environment.
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
    lock_wait: float = 60.0


@dataclass
class Survey:
    """How an environment stands: all empty means as it should be."""

    present: bool = False
    skeleton: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    linked: bool = False
    checked_bytes: int = 0

    def healthy(self) -> bool:
        """Whether the environment itself needs no work."""
        return self.present and not self.skeleton and not self.damaged

    def action(self) -> str:
        """What has to be done."""
        if not self.present:
            return "built"
        if not self.healthy():
            return "repaired"
        return "none" if self.linked else "relinked"

    def reasons(self) -> list[str]:
        """Why, in words."""
        if not self.present:
            return ["the environment is not there"]
        reasons = [f"{name}: {problem}" for name, problem in sorted(self.damaged.items())] + self.skeleton
        return reasons + ([] if self.linked else ["the link current does not lead to it"])


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
    before = _standing(wanted.link)
    if check_mode:
        state = survey(wanted)
    else:
        # Users other than root have to read what is built here, whatever umask the connection came with.
        former_umask = os.umask(0o022)
        try:
            with _rights(wanted):
                os.makedirs(os.path.dirname(wanted.link), mode=0o755, exist_ok=True)
                with _alone(wanted) as lock:
                    state = _converge(wanted, lock)
        finally:
            os.umask(former_umask)
    action = state.action()
    return {
        "changed": action != "none",
        "action": action,
        "because": state.reasons(),
        "bytes": state.checked_bytes,
        "diff": {"before": before, "after": {"current": os.path.basename(wanted.path), "torch": wanted.torch_version}},
    }


def _converge(wanted: Wanted, lock: int) -> Survey:
    """Do what is to be done; answers how it stood before, with the bytes checked last."""
    _clean_up(wanted)
    state = survey(wanted)
    former = state
    if not state.healthy():
        _need_interpreter(wanted)
        uv, _brought = uv_tool.ensure_uv(wanted.prefix, wanted.uv)
        state = _repair(wanted, uv, lock, state) if state.present else _build(wanted, uv, lock)
        former.checked_bytes = state.checked_bytes
    else:
        prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
        if read_json(os.path.join(wanted.path, COMPLETE)) is None:
            _complete(wanted)
    _switch(wanted)
    return former


@contextmanager
def _rights(wanted: Wanted) -> Iterator[None]:
    """What the file system refuses, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise GpufleetError(
                "GF-RIGHTS",
                f"{error.filename or wanted.path} cannot be written: {error.strerror}",
                "the play runs without root, or the file system is read-only on this node",
                "run with become (-K), or set gpufleet_prefix to a directory that this user may write",
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GpufleetError(
                "GF-DISK-SPACE",
                f"{error.filename or wanted.path}: {error.strerror}",
                "something else filled the file system while the environment was built",
                "free some space, or set gpufleet_prefix and gpufleet_cache_dir to a larger file system",
            ) from error
        raise


@contextmanager
def _alone(wanted: Wanted) -> Iterator[int]:
    """Hold the lock of the environment's name; answers its descriptor, which children of ours keep open as well."""
    path = os.path.join(os.path.dirname(wanted.link), ".lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wanted.lock_wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= deadline:
                    raise _busy(wanted, path) from error
                time.sleep(0.2)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _busy(wanted: Wanted, path: str) -> GpufleetError:
    try:
        with open(path, encoding="ascii", errors="replace") as handle:
            holder = handle.read().strip() or "unknown"
    except OSError:
        holder = "unknown"
    return GpufleetError(
        "GF-BUSY",
        f"another run works on environment {wanted.name} (process {holder}); waited {wanted.lock_wait:g} s",
        "two runs at once on the same node, or a child of a killed run that still writes",
        "wait until that run has ended and run the playbook again",
    )


def _clean_up(wanted: Wanted) -> None:
    """Remove what killed runs left. Only ever directories with our own mark, never what ``current`` leads to."""
    directory = os.path.dirname(wanted.link)
    current = os.path.realpath(wanted.link)
    for entry in list(os.scandir(directory)):
        if entry.name.startswith(".building-"):
            if entry.is_symlink():
                os.unlink(entry.path)
            else:
                shutil.rmtree(entry.path)
        elif entry.is_dir(follow_symlinks=False) and os.path.exists(os.path.join(entry.path, BUILDING)):
            if os.path.exists(os.path.join(entry.path, COMPLETE)):
                os.unlink(os.path.join(entry.path, BUILDING))
            elif os.path.realpath(entry.path) != current:
                _remove(entry.path)


def _remove(path: str) -> None:
    """Remove a directory; renamed first, so that a removal cut off half-way leaves nothing that looks whole."""
    doomed = os.path.join(os.path.dirname(path), ".building-" + os.path.basename(path))
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def _need_interpreter(wanted: Wanted) -> None:
    if not os.access(wanted.interpreter, os.X_OK):
        raise GpufleetError(
            "GF-PYTHON-MISSING",
            f"{wanted.interpreter} is not there",
            "the role python did not run before, or the interpreter was removed",
            "run the whole playbook, or the role gpufleet.stack.python first",
        )


# --- looking ---------------------------------------------------------------------------------------------------------


def survey(wanted: Wanted) -> Survey:
    """How the environment stands: every file of every locked package is read. Changes nothing."""
    state = Survey(linked=os.path.realpath(wanted.link) == os.path.realpath(wanted.path))
    if not os.path.isdir(wanted.path) or not os.listdir(wanted.path):
        return state
    complete = read_json(os.path.join(wanted.path, COMPLETE))
    unfinished = os.path.exists(os.path.join(wanted.path, BUILDING)) and complete is None and not state.linked
    if unfinished:
        return state
    if complete is None and not os.path.exists(os.path.join(wanted.path, "pyvenv.cfg")):
        raise GpufleetError(
            "GF-PATH-OCCUPIED",
            f"{wanted.path} is there and is not an environment",
            "somebody put other files where the environment belongs",
            f"move it away: mv {wanted.path} {wanted.path}.moved",
        )
    state.present = True
    state.skeleton = _check_skeleton(wanted, complete)
    state.damaged, state.checked_bytes = check_packages(wanted.path, wanted.lock_text, complete)
    return state


def _check_skeleton(wanted: Wanted, complete: dict[str, Any] | None) -> list[str]:
    python = os.path.join(wanted.path, "bin", "python")
    problems = []
    if os.path.realpath(python) != os.path.realpath(wanted.interpreter) or not os.access(python, os.X_OK):
        problems.append(f"{python} does not lead to {wanted.interpreter}")
    for name, digest in part_of(complete, "skeleton").items():
        if file_digest(os.path.join(wanted.path, name)) != digest:
            problems.append(f"{os.path.join(wanted.path, name)} was edited or is gone")
    if complete is not None and file_digest(os.path.join(wanted.path, LOCK_FILE)) != wanted.lock_sha256:
        problems.append(f"{os.path.join(wanted.path, LOCK_FILE)} was edited or is gone")
    return problems


def _standing(link: str) -> dict[str, str | None]:
    """What ``current`` leads to now."""
    complete = read_json(os.path.join(link, COMPLETE))
    return {"current": link_target(link), "torch": complete.get("torch_version") if complete else None}


# --- doing -----------------------------------------------------------------------------------------------------------


def _build(wanted: Wanted, uv: str, lock: int) -> Survey:
    """A new environment at its final path; gone again where anything fails."""
    os.makedirs(wanted.path, mode=0o755, exist_ok=True)
    try:
        with open(os.path.join(wanted.path, BUILDING), "w", encoding="ascii"):
            pass
        _make_skeleton(wanted, uv, lock)
        _install(wanted, uv, lock, [])
        state = _heal(wanted, uv, lock)
        prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
        _complete(wanted)
    except BaseException:
        _remove(wanted.path)
        raise
    return state


def _repair(wanted: Wanted, uv: str, lock: int, state: Survey) -> Survey:
    """Mend only what is damaged, in place: jobs of users may be running from this environment."""
    if state.skeleton:
        _make_skeleton(wanted, uv, lock)
    if state.damaged:
        _reinstall(wanted, uv, lock, sorted(state.damaged))
    state = _heal(wanted, uv, lock)
    prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
    _complete(wanted)
    return state


def _make_skeleton(wanted: Wanted, uv: str, lock: int) -> None:
    command = [uv, "venv", "--allow-existing", "--no-project", "--python", wanted.interpreter, "--prompt", wanted.name]
    _uv(wanted, lock, [*command, wanted.path], f"environment {wanted.name}")
    with open(os.path.join(wanted.path, LOCK_FILE), "w", encoding="utf-8") as handle:
        handle.write(wanted.lock_text)
    # uv leaves its own lock file writable for everybody.
    if os.path.exists(os.path.join(wanted.path, ".lock")):
        os.chmod(os.path.join(wanted.path, ".lock"), 0o644)


def _install(wanted: Wanted, uv: str, lock: int, reinstall: list[str]) -> None:
    """Install what is missing from the lock, and the named packages anew. What users added themselves stays."""
    lock_file = os.path.join(wanted.path, LOCK_FILE)
    python = os.path.join(wanted.path, "bin", "python")
    command = [uv, "pip", "install", "--no-index", "--only-binary", ":all:", "--python", python]
    for name in reinstall:
        command += ["--reinstall-package", name]
    command += ["--requirements", lock_file]
    # From the cache alone where it has everything: uv would ask for each wheel again, and fetch it again from a mirror
    # that forbids keeping answers. The lock's SHA-256 decides either way.
    code, _out, _err = uv_tool.run([*command, "--offline"], uv_tool.environment(wanted.cache_dir), keep_open=(lock,))
    if code != 0:
        _uv(wanted, lock, command, f"environment {wanted.name}")


def _reinstall(wanted: Wanted, uv: str, lock: int, names: list[str]) -> None:
    """Install packages anew from the index.

    uv makes hard links from its cache: a file edited in an environment is edited in the cache too, so what the cache
    has of these packages goes first.
    """
    _uv(wanted, lock, [uv, "cache", "clean", *names], "wheel cache")
    _install(wanted, uv, lock, names)
    site = site_packages(wanted.path)
    locked = locked_packages(wanted.lock_text)
    for name, found in (installed_packages(site) if site else {}).items():
        for version, directory in found:
            # uv removes another version by its RECORD; one without a usable RECORD stays behind.
            if name in names and version != locked.get(name):
                shutil.rmtree(directory)


def _heal(wanted: Wanted, uv: str, lock: int) -> Survey:
    """Check all files; what is damaged is installed once more and checked again."""
    state = Survey(present=True)
    state.damaged, state.checked_bytes = check_packages(wanted.path, wanted.lock_text, None)
    if state.damaged:
        _reinstall(wanted, uv, lock, sorted(state.damaged))
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


def _complete(wanted: Wanted) -> None:
    """Write down that the environment is done, and what it looks like."""
    site = site_packages(wanted.path)
    installed = installed_packages(site) if site else {}
    records = {
        name: file_digest(os.path.join(installed[name][0][1], "RECORD")) for name in locked_packages(wanted.lock_text)
    }
    skeleton = {name: file_digest(os.path.join(wanted.path, name)) for name in SKELETON}
    document = {
        "schema": 1,
        "lock_sha256": wanted.lock_sha256,
        "torch_version": wanted.torch_version,
        "cuda": wanted.cuda,
        "records": records,
        "skeleton": {name: digest for name, digest in skeleton.items() if digest is not None},
    }
    write_json(os.path.join(wanted.path, COMPLETE), document)
    building = os.path.join(wanted.path, BUILDING)
    if os.path.exists(building):
        os.unlink(building)


def _switch(wanted: Wanted) -> None:
    """Let ``current`` lead to the environment, by one rename: there is no moment without it."""
    if os.path.islink(wanted.link) and os.path.realpath(wanted.link) == os.path.realpath(wanted.path):
        return
    if os.path.exists(wanted.link) and not os.path.islink(wanted.link):
        raise GpufleetError(
            "GF-PATH-OCCUPIED",
            f"{wanted.link} is there and is not a link",
            "somebody put a directory or file where the link to the active environment belongs",
            f"move it away: mv {wanted.link} {wanted.link}.moved",
        )
    directory = os.path.dirname(wanted.link)
    temporary = os.path.join(directory, f".building-link-{os.getpid()}")
    os.symlink(os.path.relpath(wanted.path, directory), temporary)
    os.replace(temporary, wanted.link)
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
