# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of an environment, compared with the lock and with what each wheel's RECORD states. Private to the collection."""

from __future__ import annotations

import base64
import csv
import glob
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import LOCK_FILE
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest

HASH_THREADS = 8


def part_of(complete: dict[str, Any] | None, key: str) -> dict[str, str]:
    found = (complete or {}).get(key)
    return found if isinstance(found, dict) else {}


def locked_packages(text: str) -> dict[str, str]:
    """``{name: version}`` of a lock.

    Python 3.8 has no TOML reader. The lock was written by this collection, one key a line, so the lines are enough.
    """
    packages: dict[str, str] = {}
    name = None
    for line in text.splitlines():
        match = re.match(r'(name|version) = ("(?:[^"\\]|\\.)*")$', line)
        if line == "[[packages]]":
            name = None
        elif match and match.group(1) == "name":
            name = normalise(json.loads(match.group(2)))
        elif match and name is not None:
            packages[name] = json.loads(match.group(2))
    return packages


def normalise(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def site_packages(path: str) -> str | None:
    """Where the environment keeps its packages."""
    found = sorted(glob.glob(os.path.join(glob.escape(path), "lib", "python3*", "site-packages")))
    return found[0] if found else None


def installed_packages(site: str) -> dict[str, list[tuple[str, str]]]:
    """``{name: [(version, directory)]}`` from the names of the dist-info directories; more than one is damage."""
    found: dict[str, list[tuple[str, str]]] = {}
    for entry in os.scandir(site):
        stem, extension = os.path.splitext(entry.name)
        if extension == ".dist-info" and "-" in stem:
            name, version = stem.rsplit("-", 1)
            found.setdefault(normalise(name), []).append((version, entry.path))
    return found


def added_packages(path: str) -> list[str]:
    """Packages of an environment that its lock does not have."""
    site = site_packages(path)
    try:
        with open(os.path.join(path, LOCK_FILE), encoding="utf-8", errors="replace") as stream:
            locked = locked_packages(stream.read())
    except OSError:
        locked = {}
    return sorted(set(installed_packages(site)) - set(locked)) if site else []


def check_packages(path: str, lock_text: str, complete: dict[str, Any] | None) -> tuple[dict[str, str], int]:
    """Compare every file of every locked package with its RECORD.

    :returns: ``{package: what is wrong}`` and the number of bytes read.
    """
    site = site_packages(path)
    installed = installed_packages(site) if site else {}
    known = part_of(complete, "records")
    damaged: dict[str, str] = {}
    files: list[tuple[str, str, str]] = []
    for name, version in locked_packages(lock_text).items():
        found = installed.get(name, [])
        if not found or site is None:
            damaged[name] = "is not installed"
        elif [each[0] for each in found] != [version]:
            damaged[name] = f"is {' and '.join(each[0] for each in found)}, the lock has {version}"
        else:
            record = os.path.join(found[0][1], "RECORD")
            try:
                files += [(name, file, digest) for file, digest in record_files(site, record)]
            except (OSError, ValueError, csv.Error):
                damaged[name] = "its RECORD is missing or unreadable"
                continue
            if name in known and file_digest(record) != known[name]:
                damaged[name] = "its RECORD was edited"
    total = 0
    with ThreadPoolExecutor(max_workers=HASH_THREADS) as pool:
        for (name, file, digest), (answer, size) in zip(files, pool.map(_hash, [each[1] for each in files])):
            total += size
            if answer != digest and name not in damaged:
                damaged[name] = f"{file} is gone" if answer is None else f"{file} is not the file of the wheel"
    return damaged, total


def record_files(site: str, record: str) -> list[tuple[str, str]]:
    """``(path, SHA-256)`` for every line of a RECORD that states one.

    Some wheels bring compiled files (NumPy's); Python writes these anew wherever they do not fit their source.
    """
    with open(record, encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    if not rows:
        raise ValueError("empty RECORD")
    stated = [(row[0], row[1][len("sha256=") :]) for row in rows if len(row) == 3 and row[1].startswith("sha256=")]
    stated = [(path, digest) for path, digest in stated if "__pycache__" not in path.split("/")]
    return [(os.path.normpath(os.path.join(site, path)), digest) for path, digest in stated]


def _hash(path: str) -> tuple[str | None, int]:
    """SHA-256 as RECORD writes it (URL-safe base64 without padding), and the size; None where it cannot be read."""
    digest = hashlib.sha256()
    size = 0
    try:
        with open(path, "rb") as handle:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
                size += len(block)
    except OSError:
        return None, size
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode(), size
