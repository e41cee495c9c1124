# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A portable wheelhouse: everything that a site's nodes need, for a site without internet. Private to the collection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ansible_collections.gpufleet.stack.plugins.module_utils import wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import (
    facts_cache,
    fleet_wishes,
    wheelhouse_plan,
    wheelhouse_seal,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_cached import CachedPlanner
from ansible_collections.gpufleet.stack.plugins.plugin_utils.planning import make_plan
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]
SCHEMA = 1
# How the nodes get the files at their own site changes nothing of what is packed.
PACKED = {"gpufleet_offline": False, "gpufleet_wheelhouse": "index"}


class Packer(CachedPlanner):
    """Collects the files of many nodes, from the facts that a look at each has left."""

    def __init__(self, facts_directory: str, run: Any) -> None:
        super().__init__(facts_directory, run)
        self.files: dict[str, Row] = {}
        self.refused: dict[str, list[str]] = {}

    def pack(self, host: str, variables: Mapping[str, Any]) -> None:
        """Everything that this node would need if it were bare."""
        try:
            wishes = {**fleet_wishes.of_node(variables), **PACKED}
            probe = {**facts_cache.read(self.facts_directory, host), "receipts": {}}
        except GpufleetError as error:
            self._refuse(f"{error.code}: {error.message}", host)
            return
        plan = make_plan(_roomy(probe), wishes, self.run, choose=self._choose)
        for conflict in plan["conflicts"]:
            self._refuse(f"{conflict['code']}: {conflict['message']}", host)
        if plan["ok"]:
            for parts in wheelhouse_plan.stage_files(plan).values():
                self._take(each for _path, files in parts for each in files)

    def take(self, named: Iterable[Row]) -> None:
        """Files that a site names itself: NVIDIA's installers, packages."""
        for each in named:
            place, sha256 = str(each["file"]), str(each["sha256"]).lower()
            url = "file://" + quote(os.path.abspath(os.path.expanduser(place))) if "://" not in place else place
            self._take([{"name": wheelhouse.file_name(url), "url": url, "sha256": sha256, "size": None}])

    def _take(self, files: Iterable[Row]) -> None:
        for each in files:
            self.files[each["sha256"]] = each

    def _refuse(self, reason: str, host: str) -> None:
        self.refused.setdefault(reason, []).append(host)


def _roomy(probe: Row) -> Row:
    """The node with no end of room: what is packed does not depend on how full its disk was."""
    node = probe["node"]
    return {**probe, "node": {**node, "prefix": {**node["prefix"], "free_mib": None}}}


def write(store: Store, files: list[Row], nodes: list[str], indexes: list[str], key: str, mirror: str = "") -> Row:
    """Fetch what lacks, write down what is there, and sign it.

    :returns: ``{files, bytes, fetched, changed}``.
    """
    before = _read(store.directory)
    fetched = store.bring(files, indexes, mirror)
    locks = os.path.join(store.directory, wheelhouse_seal.LOCKS)
    names = [f"{wheelhouse_seal.LOCKS}/{name}" for name in sorted(os.listdir(locks)) if name.endswith(".toml")]
    rows = sorted(
        ({key: each[key] for key in ("name", "sha256", "size")} for each in files), key=lambda row: row["name"]
    )
    _write_about(store.directory, {"schema": SCHEMA, "nodes": sorted(nodes), "files": rows})
    names += [wheelhouse_seal.ABOUT, *(f"{each['sha256']}/{each['name']}" for each in rows)]
    wheelhouse_seal.seal(store.directory, names, key)
    size = sum(each["size"] or 0 for each in files)
    return {
        "files": len(files),
        "bytes": size,
        "fetched": fetched,
        "changed": fetched > 0 or before != _read(store.directory),
    }


def _write_about(directory: str, document: Row) -> None:
    path = os.path.join(directory, wheelhouse_seal.ABOUT)
    with open(path + ".part", "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1, sort_keys=True)
        stream.write("\n")
    os.replace(path + ".part", path)


def _read(directory: str) -> str | None:
    try:
        with open(os.path.join(directory, wheelhouse_seal.SUMS), encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return None
