# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A script as one file for the node: a zip archive that Python runs. Private to the collection.

The script is a package of its own, ``torch_verify`` or ``torch_fleet``: the environment's Python, which runs it, knows
neither Ansible nor this collection. A module hands over the package's ``main``, since Ansible sends what is imported, and
main imports all the others.
"""

from __future__ import annotations

import io
import os
import pkgutil
import sys
import tempfile
import zipfile
from types import ModuleType

START = """import sys

from {name}.main import main

sys.exit(main())
"""
# The same content gives the same bytes: the receipt knows the file by its digest.
STAMP = (1980, 1, 1, 0, 0, 0)


def sources(main: ModuleType) -> dict[str, bytes]:
    """The files of main's package by their names."""
    package = sys.modules[main.__name__.rpartition(".")[0]]
    names = [f"{module.name}.py" for module in pkgutil.iter_modules(package.__path__)]
    return {"__init__.py": b"", **{name: pkgutil.get_data(package.__name__, name) or b"" for name in names}}


def archive(main: ModuleType) -> bytes:
    """The whole script; main has the name that its package bears there."""
    files = {"__main__.py": START.format(name=main.NAME).encode()}
    files.update({f"{main.NAME}/{name}": data for name, data in sources(main).items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, data)
    return buffer.getvalue()


def write(path: str, main: ModuleType) -> bool:
    """Put the script there, whole or not at all; whether it was another one before."""
    data = archive(main)
    try:
        with open(path, "rb") as stream:
            if stream.read() == data:
                return False
    except FileNotFoundError:
        pass  # the first time
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{main.NAME}-", dir=folder)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), 0o755)
    os.replace(partial, path)
    return True
