# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check script as one file for the node: a zip archive that Python runs. Private to the collection.

Ansible sends the modules of ``torch_verify`` along, since they are imported here; the environment's Python, which runs
them, knows neither Ansible nor this collection.
"""

from __future__ import annotations

import io
import os
import pkgutil
import tempfile
import zipfile

from ansible_collections.gpufleet.stack.plugins.module_utils import torch_verify
from ansible_collections.gpufleet.stack.plugins.module_utils.torch_verify import main

PACKAGE = "gpufleet_verify"
START = f"""import sys

from {PACKAGE}.main import main

sys.exit(main())
"""
# The same content gives the same bytes: the receipt knows the file by its digest.
STAMP = (1980, 1, 1, 0, 0, 0)


def sources() -> dict[str, bytes]:
    """The files of the package by their names."""
    # Ansible sends what is imported: main brings all the others.
    found = {"__init__.py": b"", "main.py": pkgutil.get_data(main.__name__.rpartition(".")[0], "main.py") or b""}
    for module in pkgutil.iter_modules(torch_verify.__path__):
        name = f"{module.name}.py"
        found[name] = pkgutil.get_data(torch_verify.__name__, name) or b""
    return found


def archive() -> bytes:
    """The whole script."""
    files = {"__main__.py": START.encode(), **{f"{PACKAGE}/{name}": data for name, data in sources().items()}}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, data)
    return buffer.getvalue()


def write(path: str) -> bool:
    """Put the script there, whole or not at all; whether it was another one before."""
    data = archive()
    try:
        with open(path, "rb") as stream:
            if stream.read() == data:
                return False
    except FileNotFoundError:
        pass  # the first time
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".gpufleet_verify-", dir=folder)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        os.fchmod(stream.fileno(), 0o755)
    os.replace(partial, path)
    return True
