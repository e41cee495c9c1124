# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cuDNN from NVIDIA's wheel, in a versioned directory of its own. Private to the collection."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
import zipfile
from typing import Callable, Dict, List, Tuple

from ansible_collections.gpufleet.stack.plugins.module_utils import trees, wheel_files
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Runs a command with variables added to its environment, gives (status, stdout, stderr); typing's names for 3.8.
Run = Callable[[List[str], Dict[str, str]], Tuple[int, str, str]]
MEMBER = re.compile(r"^nvidia/cudnn/(include/[\w.-]+\.h|lib/lib[\w.-]+\.so[\w.]*)$")
INSIDE = "nvidia/cudnn/"
RECORD = "RECORD"
BESIDE = re.compile(r"^[\w.-]+\.dist-info/(?:licenses/)?(License\.txt|RECORD)$", re.IGNORECASE)
# The header's own numbers and what the library says when it is asked; cudnn_version.h includes nothing.
PROGRAM = """\
#include <stddef.h>
#include <stdio.h>
#include "cudnn_version.h"
size_t cudnnGetVersion(void);
int main(void) { printf("%d %d", (int)cudnnGetVersion(), (int)CUDNN_VERSION); return 0; }
"""
ASK_LIBRARY = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).cudnnGetVersion(), end='')"


def number(version: str) -> int:
    """A version as cuDNN itself writes it: 8.9.6.50 is 8906, 9.10.2.21 is 91002."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * (1000 if major < 9 else 10000) + minor * 100 + patch


def header_version(path: str) -> str | None:
    """Major, minor and patch of the headers in ``<path>/include``; None without them."""
    try:
        with open(os.path.join(path, "include/cudnn_version.h"), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return None
    parts = dict(re.findall(r"^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)", text, re.MULTILINE))
    return ".".join(parts[name] for name in ("MAJOR", "MINOR", "PATCHLEVEL")) if len(parts) == 3 else None


def is_installed(path: str, version: str, headers: bool = True) -> bool:
    """Whether the directory holds every library of this version, to the letter, and every header or none.

    The wheel's own list of files (``RECORD``) lies in the directory and says what each must be.
    """
    try:
        with open(os.path.join(path, RECORD), encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if len(row) == 3 and MEMBER.match(row[0])]
    except OSError:
        return False
    if not headers:
        # The list is of one wheel, and names it.
        rows = [row for row in rows if "/include/" not in row[0]]
        return bool(rows) and _of_version(path, version) and _whole(path, rows) and not _has_headers(path)
    return bool(rows) and _whole(path, rows) and header_version(path) == ".".join(version.split(".")[:3])


def _whole(path: str, rows: list[list[str]]) -> bool:
    return all(wheel_files.is_recorded(os.path.join(path, row[0][len(INSIDE) :]), row[1], row[2]) for row in rows)


def _of_version(path: str, version: str) -> bool:
    with open(os.path.join(path, RECORD), encoding="utf-8") as stream:
        return f"-{version}.dist-info/" in stream.read()


def _has_headers(path: str) -> bool:
    return os.path.isdir(os.path.join(path, "include"))


def unpack(wheel: str, path: str, version: str, headers: bool = True) -> None:
    """Unpack the wheel's libraries, and its headers where they are wanted, beside ``path`` and switch to them.

    :raises GpufleetError: GF-CUDNN-WRONG when the wheel does not have them, or those of another version.
    """
    new = trees.beside(path)
    for folder in ("include", "lib") if headers else ("lib",):
        os.mkdir(os.path.join(new, folder), 0o755)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                match = MEMBER.match(name) or BESIDE.match(name)
                if match and (headers or not match[1].startswith("include/")):
                    place = os.path.join(new, match[1])
                    with archive.open(name) as source, open(place, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                    os.chmod(place, 0o755 if ".so" in place else 0o644)
    except zipfile.BadZipFile as error:
        trees.remove(new)
        raise wrong(f"{os.path.basename(wheel)} is not a wheel: {error}", path) from error
    wheel_files.link_names(os.path.join(new, "lib"))
    found = header_version(new)
    if not is_installed(new, version, headers):
        trees.remove(new)
        raise wrong(f"{os.path.basename(wheel)} does not hold a whole cuDNN {version}, but {found or 'none'}", path)
    trees.switch_directory(new, path)


def check(path: str, version: str, folder: str, compiler: str | None, run: Run) -> int:
    """The version that the library itself gives, compiled against the headers where there is a compiler.

    :param folder: an empty directory for the program.
    :raises GpufleetError: GF-CUDNN-WRONG when the library does not load or is another.
    """
    library = os.path.join(path, "lib", f"libcudnn.so.{version.partition('.')[0]}")
    environment = {"LD_LIBRARY_PATH": os.path.join(path, "lib")}
    if compiler is None or not _has_headers(path):
        code, out, err = run([sys.executable, "-c", ASK_LIBRARY, library], environment)
        expected = str(number(version))
    else:
        source, program = os.path.join(folder, "check.c"), os.path.join(folder, "check")
        with open(source, "w", encoding="utf-8") as stream:
            stream.write(PROGRAM)
        # cuDNN leaves cuBLAS and other symbols to libraries that it loads itself.
        command = [compiler, source, f"-I{path}/include", f"-L{path}/lib", "-lcudnn", "-Wl,--allow-shlib-undefined"]
        code, out, err = run([*command, "-o", program], {})
        if code != 0:
            raise wrong(f"a program cannot be linked with {library}: {(err or out).strip()}", path)
        code, out, err = run([program], environment)
        expected = f"{number(version)} {number(version)}"
    if code != 0 or out.strip() != expected:
        raise wrong(f"{library} reports {out.strip() or err.strip() or 'nothing'}, {expected} is expected", path)
    return number(version)


def wrong(message: str, path: str) -> GpufleetError:
    """GF-CUDNN-WRONG."""
    return GpufleetError(
        "GF-CUDNN-WRONG",
        message,
        "the files were changed or damaged after they were installed, or the package index serves another wheel",
        f"rm -r {path}, then run this play again",
    )
