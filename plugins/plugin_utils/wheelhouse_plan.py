# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's stages need of wheels, and which way these come. Private to the collection.

The way is no part of any stage: a node whose wheels came another way is no other node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import managed_python, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.sizes import MIB, Part
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store, incomplete

Row = dict[str, Any]
GROUP = "gpufleet_cache"
PORT = 8400
SERVED = "/var/lib/gpufleet-wheelhouse"


@dataclass(frozen=True)
class Site:
    """What a site has for all its nodes.

    :param store: the controller's wheelhouse, where one is known.
    :param caches: ``{host, address, port}`` of each host of the group gpufleet_cache.
    :param number: the node's place among all: nodes take turns with the caches.
    """

    store: Store | None = None
    caches: tuple[Row, ...] = ()
    number: int = 0


ALONE = Site()


def site_of(variables: Mapping[str, Any], store: Store) -> Site:
    """What the inventory says, from the variables of a task."""
    groups, hostvars = variables.get("groups", {}), variables.get("hostvars", {})
    names = list(groups.get(GROUP, []))
    nodes = sorted(set(groups.get("all", [])) - set(names))
    caches = tuple({"host": name, **_reached(name, hostvars[name])} for name in names)
    host = variables.get("inventory_hostname")
    return Site(store, caches, nodes.index(host) if host in nodes else 0)


def _reached(name: str, variables: Mapping[str, Any]) -> Row:
    address = variables.get("gpufleet_cache_address") or variables.get("ansible_host") or name
    return {"address": str(address), "port": int(variables.get("gpufleet_cache_port") or PORT)}


def make(plan: Row, wanted: Row, receipts: Row, site: Site) -> Row:
    """``{way, base, directory, host, port, files[], bytes}``.

    ``base`` is what the node's modules are given, ``directory`` where the files lie on ``host`` (null: on the node itself).
    """
    files = _files(plan, receipts) if plan["ok"] else []
    return {**route(wanted, site), "files": files, "bytes": sum(each["size"] or 0 for each in _unique(files))}


def route(wanted: Row, site: Site) -> Row:
    """Which way the wheels come."""
    way = str(wanted.get("gpufleet_wheelhouse", "auto"))
    if way == "auto":
        way = "cache" if site.caches else "copy" if wanted.get("gpufleet_offline") else "index"
    nothing: Row = {"way": way, "base": "", "directory": "", "host": None, "port": None}
    if way == "copy":
        kept = f"{wanted.get('gpufleet_cache_dir', '/opt/gpufleet/cache')}/wheelhouse"
        return {**nothing, "base": kept, "directory": kept}
    if way == "cache" and site.caches:
        cache = site.caches[site.number % len(site.caches)]
        base = f"http://{cache['address']}:{cache['port']}"
        return {**nothing, "base": base, "directory": SERVED, "host": cache["host"], "port": cache["port"]}
    if way.startswith("/"):
        return {**nothing, "way": "shared", "base": way, "directory": way}
    if wheelhouse.is_served(way):
        return {**nothing, "way": "address", "base": way}
    return nothing


def check(house: Row, wanted: Row, site: Site) -> None:
    """What can be known before a node is touched.

    :raises GpufleetError: GF-WHEELHOUSE-NO-CACHE, GF-WHEELHOUSE-INCOMPLETE.
    """
    if house["way"] == "cache" and house["host"] is None:
        raise GpufleetError(
            "GF-WHEELHOUSE-NO-CACHE",
            f"gpufleet_wheelhouse is cache, and the group {GROUP} has no host",
            "the inventory has no such group, or --limit or a group of another name hides it",
            f"put the host that shall serve the wheels into the group {GROUP}, or set gpufleet_wheelhouse: copy",
        )
    if wanted.get("gpufleet_offline") and site.store is not None and house["way"] != "address":
        absent = site.store.absent(house["files"])
        if absent:
            raise incomplete(site.store.directory, absent)


def copies(house: Row | None) -> list[Part]:
    """What the copies of wheels take of the node's own disk."""
    if not house or house["way"] != "copy" or not house["bytes"]:
        return []
    return [Part("copies of the wheels", None, house["bytes"] // MIB)]


def stage_files(plan: Row) -> dict[str, list[tuple[str, list[Row]]]]:
    """By role, everything that its stage is made of: ``(directory that it becomes, files)``."""
    stages = plan["stages"]
    pytorch, toolkit, cudnn = stages["pytorch"], stages["cuda_toolkit"], stages["cudnn"]
    python = stages["python"]
    found: dict[str, list[tuple[str, list[Row]]]] = {
        "python": [(each["path"], [archive_of(each)]) for each in python.get("managed", [])],
        "pytorch": [
            (each["path"], wheelhouse.locked_files(each["lock"]["text"])) for each in pytorch.get("environments", [])
        ],
        "cuda_toolkit": [
            (each["path"], list(map(file_of, each["wheels"])))
            for each in toolkit.get("toolkits", [])
            if each.get("wheels")
        ],
        "cudnn": [
            (each["path"], [file_of(each["wheel"])])
            for each in cudnn.get("cudnns", [])
            if (each.get("wheel") or {}).get("url")
        ],
    }
    for role, stage in (("python", python), ("pytorch", pytorch)):
        if (stage.get("uv") or {}).get("url"):
            found[role].append(("", [file_of(stage["uv"])]))
    return found


def archive_of(python: Row) -> Row:
    """The archive of a managed interpreter as a file of the wheelhouse."""
    url = managed_python.published(python["full_version"], python["release"], python["architecture"])
    return file_of({"url": url, "sha256": python["sha256"], "size": python["size"]})


def file_of(wheel: Row) -> Row:
    """A wheel of the plan as a file of the wheelhouse."""
    return {"name": wheelhouse.file_name(wheel["url"]), **{key: wheel[key] for key in ("url", "sha256", "size")}}


def _files(plan: Row, receipts: Row) -> list[Row]:
    """What the stages that run need, each with its ``role``."""
    rows: list[Row] = []
    for role, parts in stage_files(plan).items():
        stage = plan["stages"][role]
        needed = [part for part in parts if stage["needed"] and _is_made(part[0], stage, plan, receipts.get(role))]
        # uv alone makes nothing.
        if any(path for path, _its_files in needed):
            rows += [{"role": role, **each} for each in _unique(each for _path, files in needed for each in files)]
    return rows


def _is_made(path: str, stage: Row, plan: Row, receipt: Row | None) -> bool:
    """Whether wheels are unpacked for this directory: not where the stage runs again for another part of it."""
    cuda = plan["facts"]["cuda"]
    present = {each.get("path") for key in ("torch", "toolkits", "cudnn") for each in cuda.get(key) or []}
    # The facts do not name interpreters: where one is not as it was, its receipt says so.
    present |= {each["path"] for each in plan["stages"]["python"].get("managed", [])}
    drifted = receipt is not None and receipt["digest"] == stage["digest"]
    return not (drifted and path in present and path not in stage["because"])


def _unique(files: Iterable[Row]) -> list[Row]:
    return list({each["sha256"]: each for each in files}.values())
