# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment variables of login shells: the files of each part, and where each shell reads them. Private to the collection."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import tempfile
from dataclasses import dataclass, field
from typing import Iterator, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.shell_syntax import SYNTAXES

BEGIN = "# BEGIN gpufleet.stack: zsh reads no /etc/profile.d by itself"
END = "# END gpufleet.stack"
# Only zsh reads zprofile, so its own pattern (N: no error where nothing matches) may stand here. The files are POSIX.
ZSH_BLOCK = f"""{BEGIN}
for gpufleet_file in /etc/profile.d/(zz-|)gpufleet-*.sh(N); do
  emulate sh -c '. "$gpufleet_file"'
done
unset gpufleet_file
{END}
"""
# The lines of ZSH_BLOCK in 0.1.0's first form, by which a block that lost its END is still known.
FORMER_LINES = ("for gpufleet_file in /etc/profile.d/gpufleet-*.sh(N); do",)
PATTERNS = ("gpufleet-*.sh", "zz-gpufleet-*.sh")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PART = re.compile(r"[a-z][a-z0-9_]*")
CSH = ("bin/tcsh", "usr/bin/tcsh", "bin/csh", "usr/bin/csh")


@dataclass
class Changes:
    """What was written, or would be: ``files`` that are there afterwards, and each change as it goes into a diff."""

    files: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


class Place(NamedTuple):
    """A file that a shell reads; ``read`` tells whether this node has that shell."""

    shell: str
    path: str
    read: bool


def render(
    name: str, variables: dict[str, str], prepend: dict[str, list[str]], functions: dict[str, str]
) -> dict[str, str]:
    """The file of one part in each shell's words.

    :param functions: what is put at its end, by shell.
    """
    _check(name, variables, prepend)
    head = f"# Written by gpufleet.stack for its part {name}; the next run of the playbook writes it again."
    return {
        shell: "\n".join([head, *syntax(variables, prepend), *functions.get(shell, "").strip("\n").splitlines()]) + "\n"
        for shell, syntax in SYNTAXES.items()
    }


def _check(name: str, variables: dict[str, str], prepend: dict[str, list[str]]) -> None:
    wrong = [] if PART.fullmatch(name) else [f"{name} is no name of a part"]
    wrong += [
        f"{variable} is no name of a variable" for variable in [*variables, *prepend] if not NAME.fullmatch(variable)
    ]
    values = [*variables.values(), *(directory for directories in prepend.values() for directory in directories)]
    wrong += [f"{value!r} has a line break" for value in values if "\n" in value]
    wrong += [
        f"{directory!r} is no absolute directory that a search path can hold"
        for directories in prepend.values()
        for directory in directories
        if not directory.startswith("/") or ":" in directory
    ]
    if wrong:
        raise GpufleetError(
            "GF-WISH-INVALID",
            f"login environment: {'; '.join(wrong)}",
            "a variable of the play has the wrong value",
            "correct the name or value in the play's variables",
        )


def places(stem: str, root: str = "/") -> list[Place]:
    """Where each shell reads a part's settings at login; Debian's csh has a directory of its own for that."""
    debian = os.path.isdir(os.path.join(root, "etc/csh"))
    csh = any(os.path.exists(os.path.join(root, binary)) for binary in CSH)
    return [
        Place("sh", os.path.join(root, "etc/profile.d", stem + ".sh"), True),
        Place("csh", os.path.join(root, "etc/csh/login.d", stem), debian),
        Place("csh", os.path.join(root, "etc/profile.d", stem + ".csh"), csh and not debian),
        Place("fish", os.path.join(root, "etc/fish/conf.d", stem + ".fish"), os.path.isdir(os.path.join(root, "etc/fish"))),
    ]  # fmt: skip


def apply(stem: str, texts: dict[str, str] | None, root: str = "/", check_mode: bool = False) -> Changes:
    """Write the files of one part, or remove them where ``texts`` is None, and keep zsh's block as it has to be.

    :param stem: the files' name without its ending, such as ``gpufleet-cuda``.
    :raises GpufleetError: GF-RIGHTS
    """
    changes = Changes()
    with rights():
        for place in places(stem, root):
            put(place.path, texts[place.shell] if texts and place.read else None, changes, check_mode)
        _keep_zsh_block(root, changes, check_mode, stem + ".sh", texts is not None)
    return changes


def tidy(root: str = "/") -> None:
    """Take zsh's block away where no part is left that it would read."""
    _keep_zsh_block(root, Changes(), check_mode=False)


def _keep_zsh_block(root: str, changes: Changes, check_mode: bool, name: str = "", wanted: bool = False) -> None:
    """``name`` is a file that was just written (``wanted``) or removed: a dry run leaves it as it was."""
    zprofile = _zprofile(root)
    if zprofile is None:
        return
    folder = glob.escape(os.path.join(root, "etc/profile.d"))
    found = {os.path.basename(path) for pattern in PATTERNS for path in glob.glob(os.path.join(folder, pattern))}
    put(zprofile, _with_block(_read(zprofile), wanted or bool(found - {name})), changes, check_mode)
    if not wanted and zprofile in changes.files:
        # Without the part nothing of it is left to watch over.
        changes.files.remove(zprofile)


@contextlib.contextmanager
def rights() -> Iterator[None]:
    """Tells a user who may not write what to do.

    :raises GpufleetError: GF-RIGHTS
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise GpufleetError(
            "GF-RIGHTS",
            f"{error.filename} cannot be written: {error.strerror}",
            "the play runs without root, or /etc is read-only on this node",
            "run with become (-K)",
        ) from error


def _zprofile(root: str) -> str | None:
    """Where zsh of this node reads its login settings; None where there is no zsh."""
    if os.path.isdir(os.path.join(root, "etc/zsh")):
        return os.path.join(root, "etc/zsh/zprofile")
    if any(os.path.exists(os.path.join(root, binary)) for binary in ("bin/zsh", "usr/bin/zsh", "usr/local/bin/zsh")):
        return os.path.join(root, "etc/zprofile")
    return None


def _with_block(text: str | None, wanted: bool) -> str | None:
    """The file with our block once, or without it. What is around it stays; a file that held nothing else goes."""
    had = text is not None and BEGIN in text
    if not wanted and not had:
        return text
    # An END that somebody removed: the block ends where the lines stop being ours.
    ours = {line for line in ZSH_BLOCK.splitlines() if line}.union(FORMER_LINES)
    kept: list[str] = []
    inside = False
    for line in (text or "").splitlines(keepends=True):
        bare = line.rstrip("\n")
        inside = (bare == BEGIN) or (inside and bare in ours)
        if not inside:
            kept.append(line)
        if bare == END:
            inside = False
    rest = "".join(kept)
    if not wanted:
        return rest or None
    if had and text is not None and ZSH_BLOCK in text and text.count(BEGIN) == 1:
        return text
    return rest + ("\n" if rest and not rest.endswith("\n") else "") + ZSH_BLOCK


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as handle:
            return handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def put(path: str, text: str | None, changes: Changes, check_mode: bool) -> None:
    """Bring a file to this content (None: gone), atomically, and keep note of it."""
    before = _read(path)
    if text is not None:
        changes.files.append(path)
    if before == text:
        return
    changes.diff.append(
        {"before_header": path, "after_header": path, "before": before or "", "after": text or ""},
    )
    if check_mode:
        return
    if text is None:
        os.unlink(path)
        return
    directory = os.path.dirname(os.path.realpath(path))
    os.makedirs(directory, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".gpufleet-", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, os.path.realpath(path))
    except BaseException:
        os.unlink(temporary)
        raise
