# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which wheels a node can load, and the best one of each package. Private to the collection."""

from __future__ import annotations

import functools
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.addresses import Addresses, without_credentials

# ansible-core requires packaging and brings it; a check of this file alone may run without it.
try:
    from packaging.tags import Tag, compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
except ImportError as error:
    PACKAGING_MISSING: ImportError | None = error
else:
    PACKAGING_MISSING = None

Wheel = dict[str, Any]

# The glibc versions for which uv has a platform of its own; a node gets the newest that is not newer than its own.
UV_GLIBC_MINORS = (40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 28, 17)
OLDEST_GLIBC_MINOR = {"x86_64": 5, "aarch64": 17}
LEGACY_PLATFORMS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
SIZE_TIMEOUT = 20


def uv_platform(architecture: str, glibc: str | None) -> str:
    """uv's name of the platform, for example ``x86_64-manylinux_2_36``."""
    own = _glibc_minor(glibc)
    minor = next((known for known in UV_GLIBC_MINORS if known <= own), 17)
    return f"{architecture}-manylinux_2_{minor}"


def _glibc_minor(glibc: str | None) -> int:
    match = re.match(r"2\.(\d+)", glibc or "")
    return int(match.group(1)) if match else 17


def _platforms(architecture: str, glibc: str | None) -> list[str]:
    """Platform tags that the node can load, best first."""
    platforms: list[str] = []
    for minor in range(_glibc_minor(glibc), OLDEST_GLIBC_MINOR.get(architecture, 17) - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{architecture}")
        if minor in LEGACY_PLATFORMS:
            platforms.append(f"{LEGACY_PLATFORMS[minor]}_{architecture}")
    return [*platforms, f"linux_{architecture}"]


@functools.cache
def _ranks(python: str, architecture: str, glibc: str | None) -> dict[Tag, int]:
    if PACKAGING_MISSING is not None:
        raise PACKAGING_MISSING
    major, minor = (int(part) for part in python.split(".")[:2])
    platforms = _platforms(architecture, glibc)
    tags = [*cpython_tags((major, minor), platforms=platforms)]
    tags += compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=platforms)
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def choose(packages: list[dict[str, Any]], python: str, architecture: str, glibc: str | None) -> list[Wheel]:
    """One wheel for each package, the one that an installer on the node would take."""
    ranks = _ranks(python, architecture, glibc)
    chosen = [_best(package, ranks) for package in packages]
    return sorted(chosen, key=lambda wheel: str(wheel["name"]))


def misfits(wheels: list[Wheel], python: str, architecture: str, glibc: str | None) -> list[str]:
    """The wheels that such a node cannot load, by their file names."""
    ranks = _ranks(python, architecture, glibc)
    names = [_last(wheel["url"]) for wheel in wheels]
    return [name for name in names if not any(tag in ranks for tag in _parsed(name)[3])]


def _last(url: str) -> str:
    return unquote(url.split("#", maxsplit=1)[0].rsplit("/", 1)[-1])


def _parsed(name: str) -> Any:
    """Name, version, build and tags of a wheel's file; no tags where it is not named as a wheel."""
    try:
        return parse_wheel_filename(name)
    except InvalidWheelFilename:
        return name, None, (), frozenset()


def _best(package: dict[str, Any], ranks: dict[Tag, int]) -> Wheel:
    candidates: list[tuple[int, Any, dict[str, Any]]] = []
    for wheel in package.get("wheels", []):
        parsed = _parsed(unquote(wheel.get("name") or _last(wheel.get("url", ""))))
        known = [ranks[tag] for tag in parsed[3] if tag in ranks]
        if known and wheel.get("url"):
            candidates.append((-min(known), parsed[2], wheel))
    if not candidates:
        raise GpufleetError(
            "GF-RESOLVE",
            f"{label(package)} {package.get('version', '')} has no wheel with an address for this platform",
            "it comes from a directory, a repository or a source archive, which nodes cannot install from",
            "ask for a version that an index serves as a wheel",
        )
    # Of two wheels with the same tags the one with the higher build number counts.
    best = max(candidates, key=lambda candidate: candidate[:2])[2]
    sha256 = (best.get("hashes") or {}).get("sha256")
    if sha256 is None:
        raise GpufleetError(
            "GF-RESOLVE",
            f"the index does not tell the SHA-256 of {label(package)} {package.get('version', '')}",
            "an index without hashes: what a node downloads could not be checked",
            "use an index that serves hashes (PEP 503 fragments or PEP 691)",
        )
    return {
        "name": canonicalize_name(package["name"]),
        "version": package["version"],
        "url": without_credentials(best["url"].split("#")[0]),
        "sha256": sha256,
        "size": best.get("size"),
    }


def label(package: Any) -> str:
    """A package as a message names it."""
    return str(package.get("name", "a package without a name")) if isinstance(package, dict) else "a package"


def fill_in_sizes(wheels: list[Wheel], addresses: Addresses) -> None:
    """Ask for the sizes that the index did not tell (indexes without PEP 691); a size nobody tells stays None."""
    missing = [wheel for wheel in wheels if wheel["size"] is None]
    if missing:
        with ThreadPoolExecutor(max_workers=8) as pool:
            sizes = pool.map(lambda wheel: _size(wheel["url"], addresses), missing)
            for wheel, size in zip(missing, sizes, strict=True):
                wheel["size"] = size


def _size(url: str, addresses: Addresses) -> int | None:
    user, password = addresses.login(url) or (None, None)
    try:
        with open_url(
            url,
            method="HEAD",
            headers={"Accept-Encoding": "identity"},
            timeout=SIZE_TIMEOUT,
            url_username=user,
            url_password=password,
            force_basic_auth=user is not None,
        ) as answer:
            length = answer.headers.get("Content-Length")
    except (OSError, ValueError):
        return None
    return int(length) if length and length.isdigit() else None
