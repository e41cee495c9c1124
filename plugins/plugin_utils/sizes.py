# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What carrying out a plan downloads and how much of the disk it takes. Private to the collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import in_series

Row = dict[str, Any]
MIB = 1024 * 1024
# Of wheels the sizes packed are known, and unpacked they are about twice that.
UNPACKED = 2


class Part(NamedTuple):
    """One thing that will be installed; None where nothing tells."""

    name: str
    download_bytes: int | None
    disk_mib: int | None
    estimated: bool = False


def environment_part(environment: Row) -> Part:
    """An environment, its disk size estimated from the download where the catalog has none."""
    download = (environment.get("lock") or {}).get("download_bytes")
    disk = environment.get("disk_mib")
    return _unpacked(f"environment {environment['name']}", download, disk)


def missing_environments(stage: Row, facts: Row) -> list[Row]:
    """The environments that would be built: a stage that only lost its link builds none."""
    present = {found.get("path") for found in facts["cuda"]["torch"]}
    return [each for each in stage["environments"] if stage["needed"] and each.get("path") not in present]


def missing_cudnns(stage: Row, facts: Row) -> list[Row]:
    """The copies of cuDNN that would be made."""
    present = {found.get("path") for found in facts["cuda"].get("cudnn", [])}
    return [each for each in stage["cudnns"] if stage["needed"] and each["path"] not in present]


def parts(plan: Row) -> list[Part]:
    """Everything that a run would fetch for this node."""
    stages, facts = plan["stages"], plan["facts"]
    return [
        *_driver(stages["nvidia_driver"], facts),
        *_toolkits(stages["cuda_toolkit"], facts),
        *(cudnn_part(each) for each in missing_cudnns(stages["cudnn"], facts)),
        *(python_part(each) for each in stages["python"].get("managed", []) if stages["python"]["needed"]),
        *(environment_part(each) for each in missing_environments(stages["pytorch"], facts)),
    ]


def total(found: list[Part]) -> Row:
    """The sums; where one size is unknown the sum is what is known, and says that it is not complete."""
    return {
        "download_bytes": sum(part.download_bytes or 0 for part in found),
        "download_complete": all(part.download_bytes is not None for part in found),
        "disk_mib": sum(part.disk_mib or 0 for part in found),
        "disk_complete": all(part.disk_mib is not None for part in found),
        "disk_estimated": any(part.estimated for part in found),
    }


def _driver(stage: Row, facts: Row) -> Iterator[Part]:
    installed = facts["gpu"]["driver"]["installed_version"]
    there = installed is not None and in_series(installed, str(stage.get("version") or ""))
    if stage["needed"] and not there:
        yield _packages("driver", stage)


def _toolkits(stage: Row, facts: Row) -> Iterator[Part]:
    installed = [str(found["version"]) for found in facts["cuda"].get("toolkits", []) if found["version"]]
    missing = [
        each
        for each in stage["toolkits"]
        if not each["requirement"] and not any(in_series(version, each["version"]) for version in installed)
    ]
    if stage["needed"] and missing:
        yield _packages("CUDA toolkit", stage)
    yield from map(toolkit_part, missing_wheel_toolkits(stage, facts))


def missing_wheel_toolkits(stage: Row, facts: Row) -> list[Row]:
    """The toolkits that would be made of wheels."""
    present = {found.get("path") for found in facts["cuda"].get("toolkits", [])}
    made = (each for each in stage["toolkits"] if each["requirement"])
    return [each for each in made if stage["needed"] and each["path"] not in present]


def toolkit_part(toolkit: Row) -> Part:
    """A toolkit, made from wheels."""
    known = [wheel["size"] for wheel in toolkit["wheels"]]
    return _unpacked(f"CUDA toolkit {toolkit['version']}", sum(known) if known and all(known) else None, None)


def _packages(name: str, stage: Row) -> Part:
    download = stage.get("download_mib")
    return Part(name, None if download is None else download * MIB, stage.get("disk_mib"))


def cudnn_part(cudnn: Row) -> Part:
    """A copy of cuDNN, made from a wheel."""
    return _unpacked(f"cuDNN {cudnn['version']}", (cudnn.get("wheel") or {}).get("size"), cudnn.get("disk_mib"))


def python_part(python: Row) -> Part:
    """A managed interpreter. uv does not tell how large its archives are, a row of a site's own may."""
    return Part(f"Python {python['full_version']}", python["size"], None)


def _unpacked(name: str, download: int | None, disk: int | None) -> Part:
    if disk is None and download is not None:
        return Part(name, download, UNPACKED * download // MIB, estimated=True)
    return Part(name, download, disk)
