# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files out of wheels, unpacked without pip, and checked against the wheels' own records. Private to the collection."""

from __future__ import annotations

import base64
import hashlib
import os


def is_recorded(path: str, recorded: str, size: str) -> bool:
    """Whether a file is what a wheel's ``RECORD`` says of it.

    :param recorded: ``sha256=`` and the digest, as such a record has it.
    :param size: bytes, as a decimal number.
    """
    digest = hashlib.sha256()
    try:
        if os.path.getsize(path) != int(size):
            return False
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except (OSError, ValueError):
        return False
    return recorded == "sha256=" + base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")


def link_names(folder: str) -> None:
    """Linkers look for libcudnn.so; wheels have libcudnn.so.8 alone."""
    for name in sorted(os.listdir(folder)):
        plain = name.split(".so")[0] + ".so"
        if ".so." in name and not os.path.lexists(os.path.join(folder, plain)):
            os.symlink(name, os.path.join(folder, plain))
