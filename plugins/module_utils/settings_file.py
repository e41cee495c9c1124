# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files of the system that hold settings, read and replaced as a whole. Private to the collection."""

from __future__ import annotations

import os
from typing import Any


def read(path: str) -> str:
    """Text of a file, empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def replace(module: Any, path: str, text: str) -> None:
    """Put this text there in one step; empty text removes the file.

    :param module: the AnsibleModule, which keeps owner and context of a file that is there.
    """
    if not text:
        os.unlink(path)
        return
    write(module, path, text)


def write(module: Any, path: str, text: str) -> None:
    """The same for a file that stays where it is empty."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = os.path.join(module.tmpdir, os.path.basename(path))
    with open(partial, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(partial, 0o644)
    module.atomic_move(partial, path)
