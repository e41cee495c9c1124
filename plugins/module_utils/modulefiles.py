# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modulefiles in Tcl, which Lmod and Environment Modules both read. Private to the collection."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import login_environment
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.login_environment import Changes

MARK = "#%Module1.0"
HEADER = "# Written by gpufleet.stack; the next run of the playbook writes it again."
# Read after the files with which the module systems begin (modules.sh, lmod.sh): Environment Modules leaves its own
# directories out where MODULEPATH is set before. Where no module system has begun there is nothing to add to.
STEM = "zz-gpufleet-modules"
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Wish(NamedTuple):
    """The modulefiles of one program: in its ``variables`` and ``prepend`` stands ``{path}`` for a version's directory."""

    name: str
    title: str
    versions: dict[str, str]
    default: str
    variables: dict[str, str]
    prepend: dict[str, list[str]]


def render(wish: Wish, version: str) -> str:
    """The modulefile of one version."""
    path = wish.versions[version]
    title = f"{wish.title} {version}"
    lines = [
        MARK,
        HEADER,
        f"proc ModulesHelp {{ }} {{ puts stderr {_word(f'{title}, in {path}')} }}",
        f"module-whatis {_word(title)}",
        f"conflict {wish.name}",
    ]
    lines += [f"setenv {name} {_word(value.replace('{path}', path))}" for name, value in wish.variables.items()]
    for name, directories in wish.prepend.items():
        lines += [f"prepend-path {name} {_word(each.replace('{path}', path))}" for each in reversed(directories)]
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    """One word of Tcl, whatever is in it."""
    return re.sub(r"([^\w/.,:+@%=-])", r"\\\1", text)


def _default(wish: Wish) -> str:
    return f"{MARK}\n{HEADER}\nset ModulesVersion {_word(wish.default)}\n"


def search_path(directory: str) -> dict[str, str]:
    """What makes each shell find the modulefiles, by shell."""
    texts = login_environment.render("modules", {}, {"MODULEPATH": [directory]}, {})
    guards = {
        "sh": ('if [ -n "${MODULESHOME-}" ]; then', "fi"),
        "csh": ("if ( $?MODULESHOME ) then", "endif"),
        "fish": ("if set -q MODULESHOME", "end"),
    }
    found = {}
    for shell, text in texts.items():
        head, *lines = text.splitlines()
        first, last = guards[shell]
        found[shell] = "\n".join([head, first, *lines, last]) + "\n"
    return found


def check(wish: Wish) -> None:
    """Refuse what can be no modulefile.

    :raises GpufleetError: GF-WISH-INVALID
    """
    wrong = [name for name in [wish.name, *wish.versions] if not VERSION.fullmatch(name)]
    wrong += [path for path in wish.versions.values() if not path.startswith("/") or "\n" in path or ":" in path]
    wrong += [] if wish.default in wish.versions else [wish.default]
    if wrong:
        raise GpufleetError(
            "GF-WISH-INVALID",
            f"modulefiles of {wish.name}: {', '.join(map(repr, wrong))}",
            "it is no name, no version, no directory, or not among the versions",
            "correct the name or value in the play's variables",
        )


def apply(directory: str, name: str, wish: Wish | None, root: str = "/", check_mode: bool = False) -> Changes:
    """Write a program's modulefiles, or remove all that are ours where there is no wish.

    A version that is no longer wished for keeps its file as long as its directory stays.

    :raises GpufleetError: GF-WISH-INVALID, GF-RIGHTS
    """
    changes = Changes()
    folder = os.path.join(root, directory.lstrip("/"), name)
    with login_environment.rights():
        if wish is not None:
            check(wish)
            for version in wish.versions:
                login_environment.put(os.path.join(folder, version), render(wish, version), changes, check_mode)
            login_environment.put(os.path.join(folder, ".version"), _default(wish), changes, check_mode)
            for path in _stale(folder, wish, root):
                login_environment.put(path, None, changes, check_mode)
        else:
            for path in _ours(folder):
                login_environment.put(path, None, changes, check_mode)
            if not check_mode:
                _remove_empty([folder, os.path.dirname(folder)])
    others = [each for each in _programs(os.path.dirname(folder)) if each != name]
    found = login_environment.apply(STEM, search_path(directory) if wish or others else None, root, check_mode)
    return Changes(changes.files + (found.files if wish else []), changes.diff + found.diff)


def _stale(folder: str, wish: Wish, root: str) -> list[str]:
    """Our modulefiles of other versions whose directory is gone."""
    stale = []
    for path in _ours(folder):
        with open(path, encoding="utf-8", errors="replace") as stream:
            found = re.search(r"^proc ModulesHelp .*,\\ in\\ (/.*) }$", stream.read(), re.MULTILINE)
        directory = re.sub(r"\\(.)", r"\1", found[1]) if found else None
        other = os.path.basename(path) not in wish.versions
        if other and directory and not os.path.isdir(os.path.join(root, directory.lstrip("/"))):
            stale.append(path)
    return stale


def _ours(folder: str) -> list[str]:
    found = []
    for path in sorted(os.path.join(folder, name) for name in _names(folder)):
        if not os.path.isdir(path):
            with open(path, encoding="utf-8", errors="replace") as stream:
                if stream.read(len(MARK) + 1 + len(HEADER)) == f"{MARK}\n{HEADER}":
                    found.append(path)
    return found


def _programs(directory: str) -> list[str]:
    return [name for name in _names(directory) if _ours(os.path.join(directory, name))]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_empty(folders: list[str]) -> None:
    for folder in folders:
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
