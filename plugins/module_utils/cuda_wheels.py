# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CUDA toolkit put together from NVIDIA's component wheels, in a directory of its own. Private to the collection.

From CUDA 13 on the wheels hold everything of a toolkit, nvcc included, below ``nvidia/cu<major>``. No package manager
takes part, so this works on every distribution and beside every other toolkit.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import zipfile

from ansible_collections.gpufleet.stack.plugins.module_utils import trees, wheel_files
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

RECORD = "RECORD"
VERSION_FILE = "version.json"


def is_installed(path: str, version: str, digests: list[str]) -> bool:
    """Whether the directory holds every file of these wheels, to the letter.

    :param version: the toolkit's full version, such as ``13.0.2``.
    :param digests: SHA-256 of each wheel.
    """
    try:
        with open(os.path.join(path, VERSION_FILE), encoding="utf-8") as stream:
            made = json.load(stream)
        with open(os.path.join(path, RECORD), encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, ValueError):
        return False
    same = made.get("wheels") == sorted(digests) and made.get("cuda", {}).get("version") == version
    return same and bool(rows) and all(wheel_files.is_recorded(os.path.join(path, row[0]), *row[1:]) for row in rows)


def unpack(wheels: list[str], path: str, version: str, digests: list[str]) -> None:
    """Unpack the wheels beside ``path`` into NVIDIA's layout of a toolkit, and switch to it.

    :raises GpufleetError: GF-CUDA-WHEELS when they are no whole toolkit of this version's major.
    """
    new = trees.beside(path)
    rows: dict[str, list[str]] = {}
    try:
        for wheel in wheels:
            # A few headers come in two wheels and differ (CUPTI's and the sanitizer's): as with pip, the last one stays.
            rows.update(_unpack_one(wheel, new, version.partition(".")[0]))
        _complete(new, version, digests, rows)
    except (zipfile.BadZipFile, GpufleetError) as error:
        trees.remove(new)
        if isinstance(error, GpufleetError):
            raise
        raise _wrong(f"a wheel is damaged: {error}", path) from error
    if not is_installed(new, version, digests):
        trees.remove(new)
        raise _wrong("the wheels' files are not what their own records say", path)
    trees.switch_directory(new, path)


def _unpack_one(wheel: str, folder: str, major: str) -> dict[str, list[str]]:
    """Unpack the toolkit's part of one wheel; what its record says of these files, by their places here."""
    inside = re.compile(rf"^nvidia/cu{major}/((?:[^/.][^/]*/)*[^/.][^/]*)$")
    rows: dict[str, list[str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        record = next((name for name in archive.namelist() if name.endswith(".dist-info/" + RECORD)), None)
        text = archive.read(record).decode("utf-8") if record else ""
        said = {row[0]: row[1:] for row in csv.reader(io.StringIO(text)) if len(row) == 3}
        for member in archive.infolist():
            match = inside.match(member.filename)
            if match is None or os.path.basename(member.filename) == "__init__.py":
                continue
            place = os.path.join(folder, match[1])
            os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
            with archive.open(member) as source, open(place, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            os.chmod(place, 0o755 if _is_program(match[1]) else 0o644)
            rows[match[1]] = said.get(member.filename, ["", ""])
    return rows


def _is_program(place: str) -> bool:
    """pip gives no execute bit to what it finds in a wheel's package directory, so a wheel's modes tell nothing."""
    return ".so" in os.path.basename(place) or bool(re.search(r"(^|/)bin/[^/.]+$", place))


def _complete(folder: str, version: str, digests: list[str], rows: dict[str, list[str]]) -> None:
    """What a toolkit has and the wheels do not: lib64, names for linkers, the file that says the version."""
    libraries = os.path.join(folder, "lib")
    if not os.path.exists(os.path.join(folder, "bin/nvcc")) or not os.path.isdir(libraries):
        raise _wrong("the wheels hold no nvcc or no libraries", folder)
    wheel_files.link_names(libraries)
    os.symlink("lib", os.path.join(folder, "lib64"))
    about = {"cuda": {"name": "CUDA SDK", "version": version}, "wheels": sorted(digests)}
    for name, text in ((VERSION_FILE, json.dumps(about, indent=2, sort_keys=True) + "\n"), (RECORD, _table(rows))):
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        os.chmod(os.path.join(folder, name), 0o644)


def _table(rows: dict[str, list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([place, *said] for place, said in sorted(rows.items()))
    return text.getvalue()


def _wrong(message: str, path: str) -> GpufleetError:
    return GpufleetError(
        "GF-CUDA-WHEELS",
        f"no CUDA toolkit can be made in {path}: {message}",
        "the package index or a mirror of it serves other wheels than NVIDIA's",
        "remove the toolkit's lock from gpufleet_lock_directory, then run this play again",
    )
