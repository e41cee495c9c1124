# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of the catalog that name other rows: every name must be there. Private to the collection."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog.schema import TABLES, Problem, Row, name_of

Catalog = dict[str, Any]


def dangling(catalog: Catalog) -> Iterator[Problem]:
    """Every name in a row that no other row answers to. The rows themselves must have passed the schema."""
    yield from _torch(catalog)
    yield from _gpus(catalog)
    yield from _distributions(catalog)


def _torch(catalog: Catalog) -> Iterator[Problem]:
    torch = catalog["torch"]
    toolkits = {row["series"] for row in catalog["cuda"]["toolkits"]}
    cudnns = {(row["version"], str(row["cuda_major"])) for row in catalog["cudnn"]["cudnn"]}
    released = {row["series"] for row in torch["releases"]}
    for row in torch["releases"]:
        if row["series"] not in torch["builds"]:
            yield _problem("torch.releases", row, "series", f"there are no builds of torch {row['series']}")
            continue
        built = {build["platform"] for build in torch["builds"][row["series"]]}
        for platform in row["pythons"]:
            if platform not in built:
                yield _problem("torch.releases", row, "pythons", f"{row['series']} has no build for {platform}")
    for series, builds in torch["builds"].items():
        if series not in released:
            yield Problem("torch.builds", series, "series", f"there is no release of torch {series}")
        for build in builds:
            yield from _build(series, build, toolkits, cudnns)


def _build(
    series: str, build: Row, toolkits: Collection[str], cudnns: Collection[tuple[str, str]]
) -> Iterator[Problem]:
    cuda, cudnn = build["cuda"], build["cudnn"]
    label = f"{series} {name_of(TABLES['torch.builds'], build)}"
    if cuda is not None and cuda not in toolkits:
        yield Problem("torch.builds", label, "cuda", f"{cuda} has no row in cuda.toolkits")
    if cudnn is not None and (cudnn, str(cuda).split(".", maxsplit=1)[0]) not in cudnns:
        yield Problem("torch.builds", label, "cudnn", f"{cudnn} for CUDA {cuda} has no row in cudnn.cudnn")


def _gpus(catalog: Catalog) -> Iterator[Problem]:
    branches = {row["branch"] for row in catalog["driver"]["branches"]}
    architectures = {row["architecture"] for row in catalog["gpu"]["compute_capabilities"]}
    majors = {row["major"] for row in catalog["cuda"]["compatibility"]}
    for name in ("compute_capabilities", "chips"):
        for row in catalog["gpu"][name]:
            for field in ("first_branch", "last_branch"):
                if row.get(field) is not None and row[field] not in branches:
                    yield _problem(f"gpu.{name}", row, field, f"{row[field]} has no row in driver.branches")
    for row in catalog["driver"]["branches"]:
        for flavour in ("open", "proprietary"):
            for architecture in row[flavour]:
                if architecture not in architectures:
                    yield _problem("driver.branches", row, flavour, f"no GPU is of the architecture {architecture}")
        if row["max_cuda"] is not None and row["max_cuda"].split(".")[0] not in majors:
            yield _problem("driver.branches", row, "max_cuda", f"{row['max_cuda']} has no row in cuda.compatibility")


def _distributions(catalog: Catalog) -> Iterator[Problem]:
    branches = {row["branch"] for row in catalog["driver"]["branches"]}
    toolkits = {row["version"] for row in catalog["cuda"]["toolkits"]}
    repositories = {row["name"] for row in catalog["repository"]["repositories"]}
    keys = {row["name"] for row in catalog["repository"]["keys"]}
    known = {(row["name"], row["version"]) for row in catalog["distro"]["distributions"]}
    for row in catalog["driver"]["archive"]:
        if row["branch"] not in branches:
            yield _problem("driver.archive", row, "branch", f"{row['branch']} has no row in driver.branches")
        if (row["distribution"], row["version"]) not in known:
            yield _problem("driver.archive", row, "distribution", "has no row in distro.distributions")
    for row in catalog["driver"]["precompiled"]:
        if (row["distribution"], row["version"]) not in known:
            yield _problem("driver.precompiled", row, "distribution", "has no row in distro.distributions")
    for row in catalog["distro"]["distributions"]:
        if row["repository"] is not None and row["repository"] not in repositories:
            yield _problem("distro.distributions", row, "repository", f"{row['repository']} is no known repository")
        if row["toolkit"] is not None and row["toolkit"]["full_version"] not in toolkits:
            version = row["toolkit"]["full_version"]
            yield _problem("distro.distributions", row, "toolkit", f"{version} has no row in cuda.toolkits")
        if row["python"] not in [each["version"] for each in row["pythons"]]:
            yield _problem("distro.distributions", row, "python", f"{row['python']} is not among its pythons")
    for row in catalog["repository"]["repositories"]:
        if row["key"] is not None and row["key"] not in keys:
            yield _problem("repository.repositories", row, "key", f"{row['key']} has no row in repository.keys")


def _problem(place: str, row: Row, field: str, text: str) -> Problem:
    return Problem(place, name_of(TABLES[place], row), field, text)
