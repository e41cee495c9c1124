# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on what: the rules between GPUs, drivers, CUDA and compiled code. Private to the collection."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, key


class Driver(NamedTuple):
    """A driver that is there or that can be had.

    ``version`` is exact, or a branch of which the newest is meant; ``cuda`` is the newest CUDA it serves.
    """

    version: str
    cuda: str | None
    windows: bool = False


def runs_on(compiled_for: list[str], capability: str, own_code_only: list[str]) -> bool:
    """Whether code compiled for these architectures runs on a device of this compute capability, without PTX."""
    if capability in compiled_for:
        return True
    if capability in own_code_only:
        return False
    device = key(capability)
    return any(key(code)[0] == device[0] and key(code)[1] <= device[1] for code in compiled_for)


def target_for(targets: list[str], capability: str, own_code_only: list[str]) -> str | None:
    """What a compiler with these targets has to compile for, so that the device runs it: the newest that it runs."""
    # Jetson's targets are for Jetson only.
    general = [target for target in targets if target == capability or target not in own_code_only]
    fitting = [target for target in general if runs_on([target], capability, own_code_only)]
    return max(fitting, key=key, default=None)


def newer_than(driver: Driver, minimum: str) -> bool:
    """Whether a driver is at least this version; of a branch the newest version is meant."""
    if "." not in driver.version:
        return key(driver.version)[0] >= key(minimum)[0]
    return at_least(driver.version, minimum)


def serves_cuda(driver: Driver, cuda: str, compatibility: list[Row]) -> bool:
    """Whether programs of this CUDA run under the driver: any minor version of a major that the driver serves."""
    row = next((row for row in compatibility if row["major"] == cuda.split(".", maxsplit=1)[0]), None)
    if driver.cuda is not None and at_least(driver.cuda, cuda):
        return True
    if row is None:
        return False
    if driver.windows and driver.cuda is not None:
        # Windows drivers count differently from Linux ones; what NVML says of CUDA counts the same on both.
        return key(driver.cuda)[0] >= key(cuda)[0]
    minimum = row["windows_min_driver"] if driver.windows else row["min_driver"]
    return minimum is not None and newer_than(driver, minimum)


def compiles_ptx(driver: Driver, build: Row, capability: str) -> bool:
    """Whether the build's PTX can be compiled for the device: the driver has to know the CUDA that wrote it."""
    ptx = build["ptx"]
    if ptx is None or not at_least(capability, ptx):
        return False
    return driver.cuda is not None and at_least(driver.cuda, ".".join(build["cuda"].split(".")[:2]))
