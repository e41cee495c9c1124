# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Environment variables of login shells: one POSIX file for each part, and zsh's way to them. Private to the collection."""

from __future__ import annotations

import errno
import glob
import os
import re
import shlex
import tempfile
from dataclasses import dataclass, field

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

BEGIN = "# BEGIN gpufleet.stack: zsh reads no /etc/profile.d by itself"
END = "# END gpufleet.stack"
# Only zsh reads zprofile, so its own pattern (N: no error where nothing matches) may stand here. The files are POSIX.
ZSH_BLOCK = f"""{BEGIN}
for gpufleet_file in /etc/profile.d/gpufleet-*.sh(N); do
  emulate sh -c '. "$gpufleet_file"'
done
unset gpufleet_file
{END}
"""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PART = re.compile(r"[a-z][a-z0-9_]*")


@dataclass
class Changes:
    """What was written, or would be: ``files`` that are there afterwards, and each change as it goes into a diff."""

    files: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


def render(name: str, variables: dict[str, str], prepend: dict[str, list[str]], functions: str) -> str:
    """The file of one part.

    Read twice it does nothing new. A variable that is set already is left alone, so that a shell inside a shell keeps
    what its user chose. A variable that was empty gets no stray colon, which would mean the working directory.
    """
    _check(name, variables, prepend)
    lines = [f"# Written by gpufleet.stack for its part {name}; the next run of the playbook writes it again."]
    for variable, value in variables.items():
        lines.append(f'[ -n "${{{variable}-}}" ] || {variable}={shlex.quote(value)}')
        lines.append(f"export {variable}")
    for variable, directories in prepend.items():
        for directory in reversed(directories):
            joined = re.sub(r'([\\"$`])', r"\\\1", directory) + f"${{{variable}:+:${{{variable}}}}}"
            search = f'case ":${{{variable}-}}:" in *:{shlex.quote(directory)}:*) ;;'
            lines.append(f'{search} *) {variable}="{joined}" ;; esac')
        lines.append(f"export {variable}")
    text = "\n".join(lines) + "\n"
    return text + (functions.strip("\n") + "\n" if functions.strip() else "")


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


def apply(name: str, text: str | None, root: str = "/", check_mode: bool = False) -> Changes:
    """Write the file of one part, or remove it where ``text`` is None, and keep zsh's block as it has to be."""
    changes = Changes()
    try:
        path = os.path.join(root, "etc/profile.d", f"gpufleet-{name}.sh")
        _put(path, text, changes, check_mode)
        others = [other for other in glob.glob(_pattern(root)) if other != path]
        zprofile = _zprofile(root)
        if zprofile is not None:
            _put(zprofile, _with_block(_read(zprofile), text is not None or bool(others)), changes, check_mode)
            if text is None and zprofile in changes.files:
                # Without the part nothing of it is left to watch over.
                changes.files.remove(zprofile)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise GpufleetError(
            "GF-RIGHTS",
            f"{error.filename} cannot be written: {error.strerror}",
            "the play runs without root, or /etc is read-only on this node",
            "run with become (-K)",
        ) from error
    return changes


def _pattern(root: str) -> str:
    return os.path.join(glob.escape(root), "etc/profile.d/gpufleet-*.sh")


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
    ours = {line for line in ZSH_BLOCK.splitlines() if line}
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
    except FileNotFoundError:
        return None


def _put(path: str, text: str | None, changes: Changes, check_mode: bool) -> None:
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
