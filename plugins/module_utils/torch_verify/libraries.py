# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA libraries this process has really loaded. Private to the collection."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from .outcomes import outcome

# The libraries that a user's LD_LIBRARY_PATH can push in front of those that torch was built with.
CUDA_LIBRARIES = (
    "libcudnn",
    "libcublas",
    "libcublasLt",
    "libcudart",
    "libnccl",
    "libcufft",
    "libcurand",
    "libcusparse",
    "libcusolver",
    "libnvrtc",
)
# libcudart.so.11.0, libcudnn_ops_infer.so.8, and the renamed copies in wheels: libcudart-9335f6a2.so.11.0,
# libcudart.782fcab0.so.11.0
_LIBRARY = re.compile(
    r"({})(?:_[a-z0-9_]+|-builtins)?(?:[-.][0-9a-f]{{8}})?\.so(?:\.|$)".format("|".join(CUDA_LIBRARIES))
)


def mapped_files(maps: str) -> list[str]:
    """The files named in the text of /proc/self/maps."""
    fields = (line.split(None, 5) for line in maps.splitlines())
    return sorted({parts[5].strip() for parts in fields if len(parts) == 6 and parts[5].startswith("/")})


def cuda_libraries(paths: list[str]) -> list[str]:
    return [path for path in paths if _LIBRARY.match(os.path.basename(path))]


def foreign(paths: list[str], roots: list[str]) -> list[str]:
    """Those that lie in none of the folders."""
    return [path for path in paths if not any(path.startswith(root.rstrip("/") + "/") for root in roots)]


def environment_roots(torch: Any) -> list[str]:
    """The folders that a library of this environment may come from.

    The one that torch is installed in; and the environment's own where it is one (virtual or conda): a Python of the
    system has /usr as its prefix, and a library in /usr is just what must not be taken for torch's own.
    """
    roots = [os.path.dirname(os.path.dirname(os.path.realpath(torch.__file__)))]
    if sys.prefix != sys.base_prefix or os.path.isdir(os.path.join(sys.prefix, "conda-meta")):
        roots.append(os.path.realpath(sys.prefix))
    return roots


def check_libraries(torch: Any) -> dict[str, Any]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        loaded = cuda_libraries(mapped_files(maps.read()))
    roots = environment_roots(torch)
    strangers = foreign(loaded, roots)
    message = "torch was given libraries that are not its own: {} (LD_LIBRARY_PATH={})".format(
        ", ".join(strangers),
        os.environ.get("LD_LIBRARY_PATH", ""),
    )
    return outcome(not strangers, {"loaded": loaded, "foreign": strangers}, {"foreign": [], "inside": roots}, message)
