# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drivers that a node can have: from the distribution's archive and from NVIDIA's repository. Private to the collection."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row, once_per_node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import Driver
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key

# How much care NVIDIA gives to a branch, best first.
_TYPES = ("LTS", "production", "new feature")
# The package with dnf's plugin that holds others.
VERSIONLOCK = "python3-dnf-plugin-versionlock"


class Option(NamedTuple):
    """One driver: where it comes from, what it is, and the rows of the catalog behind it."""

    driver: Driver
    branch: Row
    source: str
    flavour: str
    row: Row
    repository: Row | None = None

    @property
    def catalog_file(self) -> str:
        """The file of the catalog that the row stands in."""
        return "driver" if self.repository is None else "repository"


@once_per_node
def branches(decision: Decision) -> dict[str, Row]:
    """The driver branches of the catalog by their number."""
    return {row["branch"]: row for row in decision.catalog["driver"]["branches"]}


@once_per_node
def archive(decision: Decision) -> list[Option]:
    """What the distribution's own archive has, newest branch first."""
    distribution, known = node.distribution(decision), branches(decision)
    if distribution is None:
        return []
    found = [
        Option(Driver(row["driver_version"] or row["branch"], known[row["branch"]]["max_cuda"]),
               known[row["branch"]], "distro", row["flavour"], row)
        for row in _rows(decision, distribution)
        if "withdrawn" not in row
    ]  # fmt: skip
    return sorted(found, key=lambda option: key(option.branch["branch"]), reverse=True)


def _rows(decision: Decision, distribution: Row) -> list[Row]:
    return [
        row
        for row in decision.catalog["driver"]["archive"]
        if (row["distribution"], row["version"]) == (distribution["name"], distribution["version"])
        and decision.architecture in row["architectures"]
    ]


def withdrawn(decision: Decision, wish: str) -> list[Row]:
    """Rows of the wanted version that the distribution's archive had, and has no more."""
    distribution = node.distribution(decision)
    rows = _rows(decision, distribution) if distribution else []
    return [row for row in rows if "withdrawn" in row and in_series(row["driver_version"] or row["branch"], wish)]


@once_per_node
def nvidia(decision: Decision) -> list[Option]:
    """What NVIDIA's repository for the distribution has; supported long-term branches first, then the newest."""
    distribution, known = node.distribution(decision), branches(decision)
    place = repository(decision, distribution)
    if distribution is None or place is None:
        return []
    found = [
        Option(Driver(branch, known[branch]["max_cuda"]), known[branch], "nvidia", row["flavour"], row, place)
        for row in decision.catalog["repository"]["driver_packages"]
        if row["family"] == distribution["family"]
        for branch in known
        if between(branch, row) and between(branch, place)
    ]
    return sorted(found, key=lambda option: preference(option.branch))


@once_per_node
def runfile(decision: Decision) -> list[Option]:
    """NVIDIA's installer, of every branch, for a node on which packages are not wanted."""
    known = branches(decision)
    nothing: Row = {"packages": [], "fabric_manager": None}
    found = [
        Option(Driver(branch, row["max_cuda"]), row, "runfile", flavour, {"source": row["source"], **nothing})
        for branch, row in known.items()
        for flavour in ("open", "proprietary")
    ]
    return sorted(found, key=lambda option: preference(option.branch))


def preference(branch: Row) -> tuple[bool, bool, int, int]:
    """Sorts branches: verified ones, then those still cared for, then by type, then the newest."""
    kind = _TYPES.index(branch["type"]) if branch["type"] in _TYPES else len(_TYPES)
    return bool(branch.get("unverified")), branch["ended"], kind, -key(branch["branch"])[0]


def repository(decision: Decision, distribution: Row | None) -> Row | None:
    """NVIDIA's repository for the distribution and the node's architecture."""
    if distribution is None:
        return None
    # WSL has a repository of its own, which holds no driver that could take the place of Windows'.
    wsl = decision.facts["gpu"]["virtualization"] == "wsl"
    name = "wsl-ubuntu" if wsl and distribution["family"] == "apt" else distribution["repository"]
    rows = decision.catalog["repository"]["repositories"]
    fitting = (row for row in rows if row["name"] == name and decision.architecture in row["architectures"])
    return next(fitting, None)


def between(branch: str, row: Row) -> bool:
    """Whether a row's first and last branch enclose this one."""
    first, last = row["first_branch"], row["last_branch"]
    return (first is None or at_least(branch, first)) and (last is None or at_least(last, branch))


def of_version(option: Option, wish: str) -> Option | None:
    """The option as the wanted version, or None where it has another one."""
    if wish == "auto":
        return option
    if option.source == "distro":
        have = option.driver.version
        return option if in_series(have, wish) or wish == option.branch["branch"] else None
    if wish.split(".", maxsplit=1)[0] != option.branch["branch"]:
        return None
    return option._replace(driver=option.driver._replace(version=wish))


def packages(option: Option, fabric: bool = False) -> list[str]:
    """The package names, with the branch filled in; with the fabric manager's, which is a part of its own, if asked for."""
    names = [*option.row.get("packages", []), *((option.row["fabric_manager"] or []) if fabric else [])]
    return [filled(name, option) for name in names]


def versioned(name: str, option: Option) -> str:
    """With dnf a package's name says no branch, and an installed one of another branch would do: the version says it."""
    if option.repository is None or not option.row["family"].startswith("dnf"):
        return name
    return f"{name}={version(option)}"


def version(option: Option) -> str:
    """The version that was asked for, else a pattern of those of the branch."""
    asked = option.driver.version
    return asked if "." in asked else f"{asked}.*"


def filled(name: str, option: Option) -> str:
    """A name of the catalog with the branch in it."""
    return name.replace("{branch}", str(option.branch["branch"]))


def suite(decision: Decision, row: Row) -> Row | None:
    """The suite of the archive that the driver's packages have to come from, and Debian's source packages that are meant."""
    if "suite" not in row:
        return None
    return {"name": row["suite"], "sources": decision.catalog["driver"]["suite_sources"]["packages"]}
