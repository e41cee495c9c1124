# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the driver that the distribution built for its own kernels. Private to the collection."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def without_dkms(state: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kernels as they are judged where nothing is built on the node: headers oblige to nothing."""
    return [{**kernel, "headers": False} for kernel in state]


def _order(kernel: dict[str, Any]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", kernel["release"])]


def check(state: list[dict[str, Any]]) -> None:
    """The newest kernel is the one that the node boots next.

    :raises GpufleetError: GF-MODULES-MISSING where it has no module.
    """
    newest = max((kernel for kernel in state if kernel["image"]), key=_order, default=None)
    if newest is not None and newest["module"] is None:
        raise GpufleetError(
            "GF-MODULES-MISSING",
            f"kernel {newest['release']} is the newest of this node and has no NVIDIA module",
            "the distribution published the kernel before its modules, or another package than the driver's follows this kernel",
            "apt-get update, then run this play again; or build the modules on the node: nvidia_driver_modules: dkms",
        )
