# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where wheels come from, when not from the addresses in their lock. Private to the collection.

A wheelhouse is a directory, or an address that serves one, in which every file lies as ``<SHA-256>/<name of the file>``. A lock
never changes: on the node its addresses are exchanged in the one file that uv reads, and what arrives is still compared with
the lock's SHA-256.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, Iterator, Match
from urllib.parse import quote, unquote, urlsplit

from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest

# {name, url, sha256, size}
File = Dict[str, Any]
HASH_THREADS = 4
# As the collection writes its locks: one line for the one wheel of a package.
WHEEL = re.compile(r'^wheels = \[\{ url = ("(?:[^"\\]|\\.)*"), ((?:size = (\d+), )?.*sha256 = "([0-9a-f]{64})".*)$')


def file_name(url: str) -> str:
    """The file's own name at the end of an address."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def is_served(base: str) -> bool:
    """Whether it is an address, not a directory."""
    return re.match(r"https?://", base) is not None


def place(directory: str, name: str, sha256: str) -> str:
    """Where a file lies in a directory."""
    return os.path.join(directory, sha256, name)


def address(base: str, url: str, sha256: str) -> str:
    """The address of a file in the wheelhouse; its own where there is none.

    :param base: directory or address of the wheelhouse, or empty.
    """
    if not base:
        return url
    if is_served(base):
        return f"{base.rstrip('/')}/{sha256}/{quote(file_name(url))}"
    return "file://" + quote(place(os.path.abspath(base), file_name(url), sha256))


def rewritten(lock_text: str, base: str) -> str:
    """The lock with the addresses of the wheelhouse; only what uv is given for one installation, never kept."""
    if not base:
        return lock_text
    return "\n".join(_line(line, base) for line in lock_text.split("\n"))


@contextlib.contextmanager
def lock_file(path: str, lock_text: str, base: str) -> Iterator[str]:
    """The file for uv to install from: the lock itself, or a copy beside it that names the wheelhouse and goes again."""
    if not base:
        yield path
        return
    # uv takes a file for a lock by its name.
    copy = os.path.join(os.path.dirname(path), "pylock.wheelhouse.toml")
    with open(copy, "w", encoding="utf-8") as handle:
        handle.write(rewritten(lock_text, base))
    try:
        yield copy
    finally:
        os.unlink(copy)


def tool(wheel: dict[str, Any], base: str) -> dict[str, Any]:
    """The wheel of a tool (``{url, sha256, …}``) with its address in the wheelhouse."""
    return {**wheel, "url": address(base, wheel["url"], wheel["sha256"])} if wheel.get("url") else wheel


def _line(line: str, base: str) -> str:
    match = WHEEL.match(line)
    if match is None:
        return line
    url = address(base, json.loads(match.group(1)), match.group(4))
    return f"wheels = [{{ url = {json.dumps(url)}, {match.group(2)}"


def locked_files(lock_text: str) -> list[File]:
    """The files of a lock."""
    found = (WHEEL.match(line) for line in lock_text.split("\n"))
    return [_locked(match) for match in found if match]


def _locked(match: Match[str]) -> File:
    url, size = json.loads(match.group(1)), match.group(3)
    return {"name": file_name(url), "url": url, "sha256": match.group(4), "size": int(size) if size else None}


def keep_off_proxies(base: str) -> None:
    """Have this process and its children ask the wheelhouse directly: it is on the site's own network."""
    if is_served(base):
        kept = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [kept, urlsplit(base).hostname]))


# --- a directory ---------------------------------------------------------------------------------------------------------


def lacking(directory: str, files: Iterable[File]) -> list[File]:
    """Those of the files that are not there, to the letter."""
    wanted = list(files)
    with ThreadPoolExecutor(max_workers=HASH_THREADS) as pool:
        found = pool.map(file_digest, [place(directory, each["name"], each["sha256"]) for each in wanted])
        return [each for each, digest in zip(wanted, found) if digest != each["sha256"]]


def take_in(directory: str, files: Iterable[File], incoming: str) -> list[File]:
    """Bring files that were copied to the node, named by their SHA-256, to where they belong.

    :returns: those that are not what their SHA-256 says; they are removed.
    """
    spoiled = []
    for each in files:
        arrived = os.path.join(incoming, each["sha256"])
        target = place(directory, each["name"], each["sha256"])
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        # A copy, since the file belongs to the user who connects, who could still write to it; beside its place, so that what lies
        # there is whole at any moment.
        part = target + ".part"
        shutil.copyfile(arrived, part)
        os.unlink(arrived)
        if file_digest(part) != each["sha256"]:
            os.unlink(part)
            spoiled.append(each)
            continue
        os.chmod(part, 0o644)
        os.replace(part, target)
    return spoiled


def write_index(directory: str) -> None:
    """A static package index (PEP 503) below ``simple``, for pip and uv of the site's users."""
    packages: dict[str, list[str]] = {}
    for sha256 in sorted(os.listdir(directory)):
        folder = os.path.join(directory, sha256)
        if not re.match(r"[0-9a-f]{64}$", sha256) or not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            if name.endswith(".whl"):
                package = re.sub(r"[-_.]+", "-", name.split("-")[0]).lower()
                packages.setdefault(package, []).append(
                    f'<a href="../../{sha256}/{quote(name)}#sha256={sha256}">{name}</a><br>'
                )
    _write_page(os.path.join(directory, "simple"), [f'<a href="{each}/">{each}</a><br>' for each in sorted(packages)])
    for package, links in packages.items():
        _write_page(os.path.join(directory, "simple", package), links)


def _write_page(folder: str, links: list[str]) -> None:
    os.makedirs(folder, mode=0o755, exist_ok=True)
    part = os.path.join(folder, ".index.part")
    with open(part, "w", encoding="utf-8") as handle:
        handle.write("<!DOCTYPE html>\n<html><body>\n" + "\n".join(links) + "\n</body></html>\n")
    os.chmod(part, 0o644)
    os.replace(part, os.path.join(folder, "index.html"))


def tell(files: Iterable[File]) -> dict[str, Any]:
    """Number and bytes of files, for results and messages."""
    wanted = list(files)
    return {"files": len(wanted), "bytes": sum(each["size"] or 0 for each in wanted)}


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Make what is written readable for the server and for users, whatever umask the connection came with."""
    former = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(former)
