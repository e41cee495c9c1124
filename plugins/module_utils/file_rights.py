# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file system refuses, in words. Private to the collection."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import Iterator

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


@contextmanager
def rights(path: str) -> Iterator[None]:
    """Around what writes below the prefix.

    :param path: what is to be written, for a refusal that names no file.
    :raises GpufleetError: GF-RIGHTS, GF-DISK-SPACE.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise GpufleetError(
                "GF-RIGHTS",
                f"{error.filename or path} cannot be written: {error.strerror}",
                "the play runs without root, or the file system is read-only on this node",
                "run with become (-K), or set gpufleet_prefix to a directory that this user may write",
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GpufleetError(
                "GF-DISK-SPACE",
                f"{error.filename or path}: {error.strerror}",
                "something else filled the file system meanwhile",
                "free some space, or set gpufleet_prefix and gpufleet_cache_dir to a larger file system",
            ) from error
        raise
