# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching one file of known size and SHA-256. Private to the collection."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
from urllib.parse import urlsplit, urlunsplit

from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest

BLOCK = 1 << 20
TRIES = 3


def fetch(url: str, path: str, sha256: str, size: int | None = None, timeout: float = 30.0, pause: float = 1.0) -> bool:
    """Put the file at ``path``; it is there whole and checked, or not at all.

    What arrived before a connection broke lies beside it as ``.part`` and is continued, by the next run too.

    :param size: expected bytes; None where the index does not tell.
    :param timeout: seconds without a byte after which a try is given up.
    :param pause: seconds before the second try, doubled for each further one.
    :returns: False where the file was there already.
    :raises GpufleetError: GF-DOWNLOAD-UNREACHABLE, GF-DOWNLOAD-SHORT, GF-DOWNLOAD-HASH.
    """
    if os.path.isfile(path) and file_digest(path) == sha256:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = path + ".part"
    reason = ""
    answered = False
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        continued = _length(part) > 0
        try:
            _receive(url, part, size, timeout)
            answered = True
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == 416:
                # The part is as long as the file or longer: what follows decides whether it is the file.
                answered = True
            elif error.code < 500:
                break
            else:
                continue
        except http.client.IncompleteRead:
            answered = True
            reason = "the connection ended before the file did"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error))
            continue
        if _length(part) >= (size or 1) and file_digest(part) == sha256:
            _finish(part, path)
            return True
        if size is None or _length(part) >= size:
            # Whole, but not the file that was promised: nothing of it is worth keeping. Where its beginning is from
            # an earlier try, or its length unknown, another try from the start may bring the right one.
            found = file_digest(part)
            _forget(part)
            if attempt == TRIES - 1 or (size is not None and not continued):
                raise _wrong_hash(url, sha256, found)
    if answered:
        raise _short(url, _length(part), size)
    raise _unreachable(url, reason)


def size_of(fetched: bool, url: str, path: str) -> int:
    """The bytes that ``fetch`` brought over a network, for results; its file is at ``path``."""
    return os.path.getsize(path) if fetched and not url.startswith("file:") else 0


def _receive(url: str, part: str, size: int | None, timeout: float) -> None:
    """Receive the file into ``part``, from where the part ends."""
    have = _length(part)
    if size is not None and have > size:
        _forget(part)
        have = 0
    if size is not None and have == size:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "gpufleet"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with open_url(url, headers=headers, timeout=timeout) as answer:
        # A server that knows no ranges answers 200 and starts over.
        mode = "ab" if answer.status == 206 else "wb"
        with open(part, mode) as handle:
            shutil.copyfileobj(answer, handle, BLOCK)


def _finish(part: str, path: str) -> None:
    with open(part, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(part, path)


def _length(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _forget(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _unreachable(url: str, reason: str) -> GpufleetError:
    return GpufleetError(
        "GF-DOWNLOAD-UNREACHABLE",
        f"{shown(url)} could not be fetched: {reason}",
        "the node has no way to the package index: no network, a proxy that is not set, or the file was taken down",
        "try the address with curl on the node; set https_proxy in the play's environment, or use a mirror",
    )


def _short(url: str, found: int, size: int | None) -> GpufleetError:
    return GpufleetError(
        "GF-DOWNLOAD-SHORT",
        f"{shown(url)} arrived short: {found} of {size or 'unknown'} bytes after {TRIES} tries",
        "the connection breaks, or a proxy between node and index cuts large files off",
        "run the playbook again: what has arrived is kept and continued",
    )


def _wrong_hash(url: str, sha256: str, found: str | None) -> GpufleetError:
    return GpufleetError(
        "GF-DOWNLOAD-HASH",
        f"{shown(url)} is not the file of the lock: SHA-256 {found}, expected {sha256}",
        "a mirror or proxy serves another file, or the file was changed at the source after the lock was made",
        "fetch the file by hand and compare; where the new file is right, remove the lock so that a new one is made",
    )
