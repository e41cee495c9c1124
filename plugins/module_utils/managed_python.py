# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv's managed builds of CPython: fetched and unpacked by uv, pinned by the plan. Private to the collection.

uv writes the path of an interpreter into the settings that extensions are compiled with, so it is unpacked where it
will stay: a directory of its own below the prefix, which is an interpreter only once ``.complete`` stands in it. That is
written last, and says how the directory looked then; what a killed run left has none, and the next run begins again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator
from urllib.parse import quote

from ansible_collections.gpufleet.stack.plugins.module_utils import environment_shared, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils import uv as uv_tool
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import COMPLETE
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.file_rights import rights
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json, tree_state, write_json

# Where the project publishes its builds. uv knows mirrors by this beginning, which its mirror variable takes the place of.
PUBLISHED = "https://github.com/astral-sh/python-build-standalone/releases/download"
OLD = ".gpufleet-old"
ARCHIVE = "cpython-{full_version}+{release}-{architecture}-unknown-linux-gnu-install_only_stripped.tar.gz"
WRITABLE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Wanted:
    """One interpreter as the plan has it.

    :param path: its directory, which holds this one build for ever.
    :param interpreter: the program in it.
    :param mirror: address that stands for the one where the builds are published; may hold a password.
    :param wheelhouse: where the archive and uv come from where there is no mirror; empty for where they are published.
    :param uv: ``{version, url, sha256, size}`` of uv's wheel.
    :param wait: seconds that a node which may only read the prefix waits for another one to bring the interpreter.
    """

    path: str
    interpreter: str
    full_version: str
    release: str
    architecture: str
    sha256: str
    mirror: str
    uv: dict[str, Any]
    prefix: str
    cache_dir: str
    wheelhouse: str = ""
    wait: float = 0.0

    @property
    def name(self) -> str:
        """The build, as uv names it and its directory."""
        return f"cpython-{self.full_version}-linux-{self.architecture}-gnu"

    @property
    def url(self) -> str:
        """Where its archive is published."""
        return published(self.full_version, self.release, self.architecture)


def published(full_version: str, release: str, architecture: str) -> str:
    """Where the archive of a build is published; its name is the same at every mirror."""
    name = ARCHIVE.format(full_version=full_version, release=release, architecture=architecture)
    return f"{PUBLISHED}/{release}/{quote(name)}"


def ensure(wanted: Wanted, check_mode: bool = False) -> dict[str, Any]:
    """Bring the interpreter to where the plan has it.

    :returns: the result of the module, without ``path``.
    :raises GpufleetError: where it cannot be had; what was there before is there again then.
    """
    reason = _survey_of_shared(wanted) if wanted.wait and not check_mode else survey(wanted)
    before = read_json(os.path.join(wanted.path, COMPLETE))
    action = "none" if reason is None else "repaired" if before else "installed"
    if reason is not None and not check_mode:
        former = os.umask(0o022)
        try:
            with rights(wanted.path), _alone(wanted):
                if survey(wanted) is not None:  # another run may have brought it while this one waited
                    _install(wanted)
        finally:
            os.umask(former)
    after = {"version": wanted.full_version, "release": wanted.release}
    return {
        "changed": action != "none",
        "action": action,
        "because": reason,
        "diff": {"before": after if action == "none" else {}, "after": after},
    }


def _survey_of_shared(wanted: Wanted) -> str | None:
    """The same of a prefix that nodes share, once a node that may write there had the time to bring it."""
    deadline = time.monotonic() + wanted.wait
    while True:
        reason = survey(wanted)
        if reason is None or environment_shared.may_write(wanted.path) or time.monotonic() >= deadline:
            return reason
        time.sleep(environment_shared.PAUSE)


def survey(wanted: Wanted) -> str | None:
    """Why there is something to do; None where the interpreter is as it was when it was brought. Changes nothing."""
    complete = read_json(os.path.join(wanted.path, COMPLETE))
    if complete is None:
        return f"{wanted.path} is not there" if not os.path.isdir(wanted.path) else f"{wanted.path} is not complete"
    if complete.get("sha256") != wanted.sha256:
        return f"{wanted.path} holds another build"
    if complete.get("tree") != tree_state(os.path.join(wanted.path, wanted.name)):
        return f"{wanted.path} was changed"
    return None


@contextmanager
def _alone(wanted: Wanted) -> Iterator[None]:
    """One run at a time brings interpreters below this prefix."""
    directory = os.path.dirname(wanted.path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open(os.path.join(directory, ".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(wanted: Wanted) -> None:
    """Unpack it; what was there before makes way, and comes back where that fails."""
    uv, _brought = uv_tool.ensure_uv(wanted.prefix, wheelhouse.tool(wanted.uv, wanted.wheelhouse))
    former = wanted.path + OLD
    if os.path.isdir(former):
        _tidy_up(wanted.path, former)
    if os.path.exists(os.path.join(wanted.path, COMPLETE)):
        os.rename(wanted.path, former)
    elif os.path.isdir(wanted.path):
        shutil.rmtree(wanted.path)
    try:
        os.makedirs(wanted.path, mode=0o755)
        _unpack(wanted, uv)
        _need_interpreter(wanted)
        _tidy(wanted)
        document = {"sha256": wanted.sha256, "tree": tree_state(os.path.join(wanted.path, wanted.name))}
        write_json(os.path.join(wanted.path, COMPLETE), document)
    except BaseException:
        shutil.rmtree(wanted.path, ignore_errors=True)
        if os.path.isdir(former):
            os.rename(former, wanted.path)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _tidy_up(path: str, former: str) -> None:
    """What a run left that was killed while it brought the interpreter again: a damaged one is better than half of one."""
    if os.path.exists(os.path.join(path, COMPLETE)):
        shutil.rmtree(former)
    else:
        shutil.rmtree(path, ignore_errors=True)
        os.rename(former, path)


def _need_interpreter(wanted: Wanted) -> None:
    if not os.access(wanted.interpreter, os.X_OK):
        raise GpufleetError(
            "GF-PYTHON-INCOMPLETE",
            f"{wheelhouse.file_name(wanted.url)} holds no {os.path.relpath(wanted.interpreter, wanted.path)}",
            "the archive is not one of python-build-standalone's, though it has the SHA-256 of the plan",
            "look at the row of this Python in gpufleet_catalog_overlay",
        )


def _unpack(wanted: Wanted, uv: str) -> None:
    """Have uv fetch the archive, compare it with the plan's SHA-256, unpack it and compile the standard library."""
    with tempfile.TemporaryDirectory(prefix="gpufleet-python-") as scratch:
        listed = os.path.join(scratch, "downloads.json")
        with open(listed, "w", encoding="utf-8") as handle:
            json.dump({wanted.name: _listed(wanted)}, handle)
        environ = {
            **uv_tool.environment(wanted.cache_dir),
            "UV_PYTHON_DOWNLOADS": "manual",
            "UV_PYTHON_DOWNLOADS_JSON_URL": f"file://{listed}",
        }
        if wanted.mirror:
            # The environment, not an argument: a mirror may carry a password, and every user sees arguments.
            environ["UV_PYTHON_INSTALL_MIRROR"] = wanted.mirror.rstrip("/")
        command = [uv, "python", "install", "--no-bin", "--compile-bytecode", "--install-dir", wanted.path, wanted.name]
        code, out, err = uv_tool.run(command, environ)
    if code != 0:
        raise uv_tool.explain(err or out, f"Python {wanted.full_version}", "archive", "plan")


def _listed(wanted: Wanted) -> dict[str, Any]:
    """The one build that uv may install, in the form of its own list; without this it would take its newest one."""
    major, minor, patch = (int(part) for part in wanted.full_version.split("."))
    return {
        "name": "cpython",
        "arch": {"family": wanted.architecture, "variant": None},
        "os": "linux",
        "libc": "gnu",
        "major": major,
        "minor": minor,
        "patch": patch,
        "prerelease": "",
        "url": wheelhouse.address("" if wanted.mirror else wanted.wheelhouse, wanted.url, wanted.sha256),
        "sha256": wanted.sha256,
        "variant": None,
        "build": wanted.release,
    }


def _tidy(wanted: Wanted) -> None:
    """Keep the build alone, and nothing of it writable for users: uv's own lock file is, for everybody."""
    for entry in list(os.scandir(wanted.path)):
        if entry.name == wanted.name:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    for folder, directories, files in os.walk(wanted.path):
        for path in (os.path.join(folder, name) for name in [*directories, *files]):
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode) and mode & WRITABLE:
                os.chmod(path, mode & ~WRITABLE)
