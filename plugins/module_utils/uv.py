# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's uv: brought from its wheel, run with nothing but what we say. Private to the collection."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from contextlib import contextmanager
from typing import Any, Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils.download import fetch
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

PASSED_ON = (
    "HOME",
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "NETRC",
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
# The option of modules that bring uv (the documentation fragment uv_wheel).
ARGUMENT = {
    "type": "dict",
    "required": True,
    "options": {
        "version": {"type": "str", "required": True},
        "url": {"type": "str", "required": True},
        "sha256": {"type": "str", "required": True},
        "size": {"type": "int"},
    },
}
NETWORK_TIMEOUT = 30
NETWORK_RETRIES = 5


def uv_path(prefix: str, version: str) -> str:
    """Where uv of this version lies."""
    return os.path.join(prefix, "tools", "uv-" + version, "uv")


def ensure_uv(prefix: str, uv: dict[str, Any]) -> tuple[str, bool]:
    """Bring uv of ``{version, url, sha256, size}`` to the node.

    :returns: path of the binary, and whether it was brought just now.
    :raises GpufleetError: GF-UV-DAMAGED, and those of ``fetch``.
    """
    path = uv_path(prefix, uv["version"])
    if os.access(path, os.X_OK):
        return path, False
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open(os.path.join(directory, ".lock"), "w", encoding="ascii") as lock:
        # Two runs may work on different environments at once; both need uv.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.access(path, os.X_OK):
            return path, False
        wheel = os.path.join(directory, "uv.whl")
        fetch(uv["url"], wheel, uv["sha256"], uv["size"])
        _unpack(wheel, path)
        os.unlink(wheel)
    return path, True


def _unpack(wheel: str, path: str) -> None:
    """Take the binary out of the wheel; renamed into place, so that there is never half of it."""
    handle, temporary = tempfile.mkstemp(prefix=".uv-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as target, zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if re.search(r"\.data/scripts/uv$", name))
            with archive.open(name) as source:
                shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        os.chmod(temporary, 0o755)
        os.replace(temporary, path)
    except (StopIteration, zipfile.BadZipFile) as error:
        os.unlink(temporary)
        raise GpufleetError(
            "GF-UV-DAMAGED",
            f"the uv wheel holds no uv: {wheel}",
            "the lock names a wheel that is not uv's",
            "remove the lock of uv on the controller so that a new one is made",
        ) from error
    except BaseException:
        os.unlink(temporary)
        raise


def environment(cache_dir: str) -> dict[str, str]:
    """What uv gets to see: no setting of a user, no index, no Python of its own; proxies and certificates stay."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        **kept,
        "LANGUAGE": "C",
        "LC_ALL": "C",
        "NO_COLOR": "1",
        "UV_CACHE_DIR": cache_dir,
        "UV_HTTP_RETRIES": str(NETWORK_RETRIES),
        "UV_HTTP_TIMEOUT": str(NETWORK_TIMEOUT),
        "UV_NO_CONFIG": "1",
        "UV_NO_ENV_FILE": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        # The node's own certificates, as for every other program: sites add their own authority there.
        "UV_SYSTEM_CERTS": "1",
    }


@contextmanager
def alone_with_cache(cache_dir: str) -> Iterator[bool]:
    """Whether no uv works with the cache now; none begins to meanwhile, as every uv holds that lock while it works."""
    try:
        handle = os.open(os.path.join(cache_dir, ".lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False  # no uv was here yet, or another user's cache
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def tidy_cache(cache_dir: str) -> None:
    """Remove what a killed uv was unpacking, gigabytes at times, and close uv's locks to other users.

    Where a uv works, everything is left as it is.
    """
    with alone_with_cache(cache_dir) as alone:
        if alone:
            _close_locks(cache_dir)
            for entry in list(os.scandir(cache_dir)):
                if entry.name.startswith(".tmp") and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _close_locks(cache_dir: str) -> None:
    """uv makes its lock files writable for everybody; they lie beside the unpacked wheels, which are many."""
    for folder, folders, names in os.walk(cache_dir):
        folders[:] = [name for name in folders if not name.startswith(("archive-", ".tmp"))]
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".lock") and os.lstat(path).st_uid == os.geteuid():
                os.chmod(path, 0o644)


def run(command: list[str], environ: dict[str, str], keep_open: tuple[int, ...] = ()) -> tuple[int, str, str]:
    """Run a command.

    :param keep_open: descriptors the child inherits: a lock stays held while a child of a killed run still writes.
    """
    answer = subprocess.run(  # pylint: disable=ansible-bad-function
        command, check=False, capture_output=True, text=True, errors="replace", env=environ, cwd="/", pass_fds=keep_open
    )
    return answer.returncode, answer.stdout, answer.stderr


def explain(text: str, doing: str, what: str = "wheel", source: str = "lock") -> GpufleetError:
    """The error behind uv's message.

    :param what: what was fetched.
    :param source: what told its SHA-256.
    """
    reason = trim(text)
    if "Hash mismatch" in text:
        return GpufleetError(
            "GF-DOWNLOAD-HASH",
            f"{doing}: the {what} is not the one of the {source}: {reason}",
            "a mirror or proxy serves another file, or the file was changed at the source after its SHA-256 was written down",
            f"fetch the {what} and compare; {_NEW_ONE[source]}",
        )
    if "No space left on device" in text or "os error 28" in text:
        return GpufleetError(
            "GF-DISK-SPACE",
            f"{doing}: the disk is full: {reason}",
            "something else filled the file system in the meantime",
            "free some space, or set gpufleet_prefix and gpufleet_cache_dir to a larger file system",
        )
    if re.search(
        r"end of file before message length|unexpected BufError|Failed to extract|I/O operation failed"
        r"|unexpected end of file|error decoding response body|unexpected EOF",
        text,
    ):
        return GpufleetError(
            "GF-DOWNLOAD-SHORT",
            f"{doing}: the {what} arrived short or damaged: {reason}",
            "the connection breaks, or a proxy between node and index cuts large files off",
            "run the playbook again: what arrived whole is kept",
        )
    if re.search(r"error sending request|Failed to fetch|Failed to download|HTTP status|timed? ?out", text):
        return GpufleetError(
            "GF-DOWNLOAD-UNREACHABLE",
            f"{doing}: the {what} could not be fetched: {reason}",
            f"the node has no way to where it lies: no network, a missing proxy, or the {what} was taken down",
            "try the address with curl on the node; set https_proxy in the play's environment, or use a mirror",
        )
    return GpufleetError(
        "GF-UV-FAILED",
        f"{doing}: {reason}",
        "uv's own message above says it",
        "mend what uv names and run the playbook again",
    )


_NEW_ONE = {
    "lock": "where the new one is right, remove the lock so that a new one is made",
    "plan": "where the new one is right, put its SHA-256 into gpufleet_catalog_overlay",
}


def trim(text: str, limit: int = 600) -> str:
    """uv's message on one line, without warnings, decoration and passwords."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [re.sub(r"^(error|cause)\s*:\s*", "", line) for line in lines if line and not line.startswith("warning:")]
    told = ("Using Python", "Downloading ", "Downloaded ")
    reason = re.sub(r"//[^/@\s]+@", "//", " - ".join(line for line in kept if not line.startswith(told)))
    return reason if len(reason) <= limit else reason[: limit - 3] + "..."
