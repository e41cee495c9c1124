# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of dnf's modules: which one is enabled, and enabling another in its place. Private to the collection.

dnf refuses to change a stream in one step, so it is reset and enabled; where that fails, the former one is enabled again.
"""

from __future__ import annotations

import configparser
import os

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

FOLDER = "etc/dnf/modules.d"
_DNF = ["dnf", "-q", "-y", "--setopt=exit_on_lock=True", "module"]


def path(module: str) -> str:
    """The file that has a module's state, as the node names it."""
    return f"/{FOLDER}/{module}.module"


def enabled(module: str, root: str = "/") -> str | None:
    """The enabled stream of a module; None where none is."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(os.path.join(root, path(module).lstrip("/")), encoding="utf-8", errors="replace") as stream:
            parser.read_string(stream.read())
        section = parser[module]
    except (OSError, configparser.Error, KeyError):
        return None
    return section.get("stream") or None if section.get("state") == "enabled" else None


def switch(run: Run, module: str, stream: str, root: str = "/", cached: bool = False) -> bool:
    """Enable a stream in place of the one that is; whether that changed something.

    :param cached: take the lists of packages that dnf has, as long as they know the stream. Where no repository has the module, as
        its entry is gone, the packages come from dnf's cache, and there is nothing to choose among.
    :raises GpufleetError: GF-STREAM-UNKNOWN
    """
    former = enabled(module, root)
    if former == stream or (cached and not _offered(run, module)):
        return False
    if former is not None:
        _do(run, ["reset", module], module, stream, cached)
    try:
        _do(run, ["enable", f"{module}:{stream}"], module, stream, cached)
    except GpufleetError:
        if former is not None:
            run([*_DNF, "enable", f"{module}:{former}"])
        raise
    return True


def _offered(run: Run, module: str) -> bool:
    """Whether some repository has the module, or cannot say so now."""
    for options in (["--cacheonly"], []):
        code, out, err = run([*_DNF, "list", *options, module])
        if code == 0 or "No matching Modules" in out + err:
            return code == 0
    return True


def reset(run: Run, module: str, root: str = "/", cached: bool = False) -> None:
    """Let no stream of the module be enabled.

    :param cached: take the lists of packages that dnf has, as long as they know the module.
    :raises GpufleetError: GF-STREAM-UNKNOWN
    """
    if enabled(module, root) is not None:
        _do(run, ["reset", module], module, "none", cached)


def _do(run: Run, words: list[str], module: str, stream: str, cached: bool = False) -> None:
    if cached and run([*_DNF, words[0], "--cacheonly", *words[1:]])[0] == 0:
        return
    code, out, err = run([*_DNF, *words])
    if code != 0:
        raise GpufleetError(
            "GF-STREAM-UNKNOWN",
            f"dnf cannot enable the stream {stream} of the module {module}: {err.strip() or out.strip()}",
            "the repository or its mirror has no such stream, or lacks its metadata of modules",
            f"dnf module list {module} on the node shows the streams that can be had",
        )
