# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPU architectures that a torch is compiled for, read out of its library. Private to the collection.

``torch.cuda.get_arch_list()`` answers a text that the build put into libtorch_python.so ("sm_37 sm_50 sm_60"); it
stands there among the constants, so that torch need not be imported, which takes seconds and starts CUDA.
"""

from __future__ import annotations

import re

from ansible_collections.gpufleet.stack.plugins.module_utils import elf
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

# The text before it need not end with a zero byte, the list itself does.
_FLAGS = re.compile(rb"sm_\d{2,3}[a-z]?(?: (?:sm|compute)_\d{2,3}[a-z]?)*(?=\0)")
_FLAG = re.compile(r"^sm_(\d+)(\d)([a-z]?)$")


def capabilities(text: str) -> list[str]:
    """Compute capabilities of the code in a list of flags: ``sm_86`` is 8.6, ``sm_90a`` 9.0a; PTX is none."""
    found = [_FLAG.match(flag) for flag in text.split()]
    return [f"{match.group(1)}.{match.group(2)}{match.group(3)}" for match in found if match]


def flags(path: str) -> bytes | None:
    """The list as it stands in a libtorch_python.so, or None where there is none."""
    try:
        constants = elf.section(path, ".rodata")
    except OSError:
        return None
    # A message may name one architecture; the list is the longest.
    return max(_FLAGS.findall(constants or b""), key=len, default=None)


def arch_list(sysroot: Sysroot, site: str, cuda: str | None) -> list[str] | None:
    """What the torch in ``site`` is compiled for; empty for a build for the CPU, None where it can't be read.

    :param cuda: the CUDA that torch/version.py names.
    """
    if cuda is None:
        return []
    found = flags(sysroot.place(site + "/torch/lib/libtorch_python.so"))
    return capabilities(found.decode()) if found else None
