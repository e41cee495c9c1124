# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which CUDA toolkits stand beside torch, for other software and for compiling. Private to the collection."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import (
    driver_options,
    environment,
    fit,
    gpus,
    installer,
    node,
    repository,
    selection,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import (
    Decision,
    Row,
    nothing,
    once_per_node,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.fit import Driver
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.selection import Environment
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import at_least, in_series, key

NO_TOOLKIT: Row = {
    "default": None, "toolkits": [], "profile": False, "modulefiles": None, "hold": [],
    "download_mib": None, "disk_mib": None,
}  # fmt: skip


_WHEEL_ARCHITECTURES = ("x86_64", "aarch64")


class Offer(NamedTuple):
    """A toolkit that the node can have: ``series`` is 11.8, ``row`` is its row in cuda.yml."""

    series: str
    version: str
    source: str
    row: Row
    archive: Row | None = None
    installer: Row | None = None


def plan(decision: Decision, chosen: list[Environment], driver: Driver | None) -> Row:
    """The stage; ``auto`` is the CUDA of torch's build, else the nearest of its major that fits GPUs and driver."""
    wish = decision.wanted["cuda_toolkit_version"]
    if wish == "none":
        return nothing("no toolkit is wanted (cuda_toolkit_version is none)", **NO_TOOLKIT)
    if wish != "auto":
        wishes = wish if isinstance(wish, list) else [wish]
        found = [offer for offer in (_asked(decision, each, driver) for each in wishes) if offer]
        return _stage(decision, found, "asked for", driver) if found else nothing("no fitting toolkit", **NO_TOOLKIT)
    if not decision.devices:
        return nothing("the node has no NVIDIA GPU", **NO_TOOLKIT)
    cuda = next((each.build["cuda"] for each in chosen if each.build["cuda"]), None)
    if cuda is None:
        return nothing("torch does not use CUDA here", **NO_TOOLKIT)
    nearest = _nearest(decision, cuda, driver)
    if nearest is None:
        return _skipped(decision, cuda, driver)
    same = in_series(cuda, nearest.series)
    reason = f"torch's own CUDA is {cuda}" if same else f"the nearest to torch's CUDA {cuda} that is to be had"
    return _stage(decision, [nearest], reason, driver)


def offers(decision: Decision) -> list[Offer]:
    """Every toolkit that the node can have from the wanted source; the distribution's own first.

    Wheels have to be asked for: packages are what other software of the node finds.
    """
    wanted = _sources(decision)
    found = [offer for offer in _everything(decision) if offer.source in wanted]
    if "runfile" in wanted:
        found += _installers(decision)
    # The distribution's packages of the toolkit depend on packages of the driver: apt would bring a second one.
    return [offer for offer in found if offer.source != "distro" or not _driver_of_installer(decision)]


def _driver_of_installer(decision: Decision) -> bool:
    wish, there = decision.wanted["nvidia_driver_source"], decision.facts["gpu"]["driver"]["source"]
    return bool(decision.devices) and (wish == "runfile" or (there == "runfile" and wish in ("auto", "none")))


def _installers(decision: Decision) -> list[Offer]:
    """The toolkits whose installers a user named, as far as the catalog knows their series."""
    rows = {row["version"]: row for row in decision.catalog["cuda"]["toolkits"]}
    newest = _newest_of_series(decision)
    found = []
    for version, named in installer.toolkits(decision):
        series = ".".join(version.split(".")[:2])
        row = rows.get(version) or newest.get(series)
        if row is not None:
            found.append(Offer(series, version, "runfile", row, installer=named))
    return found


def _sources(decision: Decision) -> list[str]:
    """Where toolkits may come from, the preferred first."""
    source = decision.wanted["cuda_toolkit_source"]
    named = source if isinstance(source, list) else [source]
    return [each for name in named for each in (("distro", "nvidia") if name == "auto" else (name,))]


@once_per_node
def _everything(decision: Decision) -> list[Offer]:
    distribution = node.distribution(decision)
    if distribution is None:
        return []
    rows = _newest_of_series(decision)
    found = []
    own = distribution["toolkit"]
    if (
        own is not None
        and decision.architecture in own.get("architectures", [decision.architecture])
        and own["version"] in rows
    ):
        found.append(Offer(own["version"], own["full_version"], "distro", rows[own["version"]], own))
    place = driver_options.repository(decision, distribution)
    if place is not None:
        found += [
            Offer(series, row["version"], "nvidia", row)
            for series, row in rows.items()
            if place["first_cuda"] is not None
            and at_least(series, place["first_cuda"])
            and (place["last_cuda"] is None or at_least(place["last_cuda"], series))
        ]
    if decision.architecture in _WHEEL_ARCHITECTURES:
        first = decision.catalog["cuda"]["wheels"]["first"]
        found += [
            Offer(series, row["version"], "wheels", row) for series, row in rows.items() if at_least(series, first)
        ]
    return found


def _newest_of_series(decision: Decision) -> dict[str, Row]:
    rows = sorted(decision.catalog["cuda"]["toolkits"], key=lambda row: key(row["version"]))
    return {row["series"]: row for row in rows}


def unfit(decision: Decision, offer: Offer, driver: Driver | None) -> str | None:
    """Why a toolkit does not fit the C library, the GPUs or the driver of the node, or None where it does."""
    have = selection.glibc_of(decision)
    for row in decision.catalog["cuda"]["host_libraries"]:
        if have is not None and at_least(have, row["glibc"]) and not at_least(offer.series, row["first_cuda"]):
            source = decision.source("cuda", row)
            return f"its headers do not compile with glibc {have}, those of CUDA {row['first_cuda']} do ({source})"
    own = decision.catalog["torch"]["own_code_only"]["devices"]
    for capability in gpus.capabilities(decision):
        if not fit.runs_on(offer.row["targets"], capability, own):
            targets = offer.row["targets"]
            return f"its nvcc compiles for {targets[0]} to {targets[-1]}, which does not run on {capability}"
    if driver is None:
        return None
    if not fit.serves_cuda(driver, offer.series, decision.catalog["cuda"]["compatibility"]):
        return f"programs of CUDA {offer.series} do not run under driver {driver.version}"
    least = (offer.archive or {}).get("min_driver")
    if least is not None and not at_least(driver.version, least):
        return f"its packages bring libraries of driver {least} or newer, beside driver {driver.version}"
    return None


def _nearest(decision: Decision, cuda: str, driver: Driver | None) -> Offer | None:
    major, wanted = key(cuda)[0], key(cuda)[:2]
    fitting = [
        offer for offer in offers(decision) if key(offer.series)[0] == major and unfit(decision, offer, driver) is None
    ]

    order = _sources(decision)

    def distance(offer: Offer) -> tuple[int, bool, int]:
        steps = key(offer.series)[1] - wanted[1]
        return abs(steps), steps < 0, order.index(offer.source)

    return min(fitting, key=distance, default=None)


def _asked(decision: Decision, wish: str, driver: Driver | None) -> Offer | None:
    everything = offers(decision)
    found = [offer for offer in everything if in_series(offer.version, wish) or in_series(wish, offer.series)]
    named = [offer for offer in found if in_series(offer.version, wish) or _has_row(decision, offer, wish)]
    if not named:
        _unavailable(decision, wish, everything)
        return None
    fitting = [offer for offer in named if unfit(decision, offer, driver) is None]
    if not fitting:
        reason = unfit(decision, named[-1], driver)
        decision.conflict(
            "GF-TOOLKIT-UNFIT",
            f"CUDA toolkit {wish} does not fit this node",
            [f"{reason} ({decision.source('cuda', named[-1].row)})"],
            [],
            {"toolkit": wish},
        )
        return None
    order = _sources(decision)
    best = max(fitting, key=lambda offer: (key(offer.series), -order.index(offer.source)))
    return best if in_series(best.version, wish) else best._replace(version=wish)


def _has_row(decision: Decision, offer: Offer, wish: str) -> bool:
    """Whether an exact version is one that NVIDIA's repository keeps beside the newest of its series."""
    return offer.source in ("nvidia", "wheels") and any(
        row["version"] == wish for row in decision.catalog["cuda"]["toolkits"]
    )


def _stage(decision: Decision, found: list[Offer], reason: str, driver: Driver | None) -> Row:
    for offer in found:
        decision.uses(f"CUDA toolkit {offer.version}", offer.archive or {})
        _check_compiler(decision, offer)
    toolkits = [_toolkit(decision, offer, driver) for offer in found]
    archives = [offer.archive for offer in found if offer.source != "wheels"]  # the lock knows the wheels' sizes
    return {
        "wanted": True,
        "why": [f"CUDA toolkit {offer.series} from {_place(decision, offer)}: {reason}" for offer in found],
        "default": found[0].series,
        "toolkits": toolkits,
        **environment.description(decision),
        "hold": _held(toolkits) if decision.wanted["gpufleet_hold"] else [],
        "download_mib": _total(archives, "download_mib"),
        "disk_mib": _total(archives, "disk_mib"),
    }


def _held(toolkits: list[Row]) -> list[str]:
    """CUDA's own packages; the compilers beside them are everybody's."""
    names = {name.partition("=")[0] for toolkit in toolkits for name in toolkit["packages"]}
    return sorted(name for name in names if "cuda" in name)


def _total(rows: list[Row | None], field: str) -> int | None:
    sizes = [row[field] if row else None for row in rows]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _place(decision: Decision, offer: Offer) -> str:
    places = {
        "distro": decision.platform,
        "nvidia": "NVIDIA's repository",
        "wheels": "NVIDIA's component wheels",
        "runfile": "NVIDIA's installer",
    }
    return places[offer.source]


def _toolkit(decision: Decision, offer: Offer, driver: Driver | None) -> Row:
    row = {
        "version": offer.series,
        "full_version": offer.version,
        "source": offer.source,
        "architectures": _architectures(decision, offer),
        "repository": None,
        "requirement": None,
        "index_url": "",
        "wheels": [],
        "suite": None,
        "installer": offer.installer,
    }
    own = f"{decision.wanted['gpufleet_prefix']}/cuda/{offer.series}"
    if offer.archive is not None:
        parts = {name: offer.archive[name] for name in ("components", "packages", "layout")}
        return {**row, **parts, "path": own, "suite": _suite(decision, offer.archive, driver)}
    if offer.source in ("wheels", "runfile"):
        # They bring no host compiler.
        compiler = {"apt": "g++"}.get((node.distribution(decision) or {})["family"], "gcc-c++")
        places = {"path": own, "layout": offer.source, "components": [], "packages": [compiler]}
        if offer.source == "runfile":
            return {**row, **places}
        requirement = decision.catalog["cuda"]["wheels"]["requirement"].replace("{version}", offer.version)
        return {**row, **places, "requirement": requirement, "index_url": decision.wanted["pytorch_index_url"]}
    place = driver_options.repository(decision, node.distribution(decision)) or {}
    major, minor = offer.series.split(".")
    name = decision.catalog["repository"]["toolkit_package"].replace("{major}", major).replace("{minor}", minor)
    if offer.version != offer.row["version"]:
        name += f"={offer.version}-1"  # an older one of its series was asked for
    return {
        **row,
        "components": [],
        "packages": [name, *_beside(decision)],
        "layout": "nvidia",
        "path": f"/usr/local/cuda-{offer.series}",  # NVIDIA's packages know no other place
        "repository": repository.description(decision, place),
    }


def _beside(decision: Decision) -> list[str]:
    """What NVIDIA's packages do not bring: with dnf the host compiler, and the plugin that holds packages."""
    if (node.distribution(decision) or {})["family"] == "apt":
        return []
    return ["gcc-c++", *([driver_options.VERSIONLOCK] if decision.wanted["gpufleet_hold"] else [])]


def _suite(decision: Decision, archive: Row, driver: Driver | None) -> Row | None:
    """Where the driver's libraries come from that the toolkit depends on; another driver has brought its own."""
    options = driver_options.archive(decision)
    same = [option.branch["branch"] for option in options if option.row.get("suite") == archive.get("suite")]
    if driver is None or any(in_series(driver.version, branch) for branch in same):
        return driver_options.suite(decision, archive)
    return None


def _architectures(decision: Decision, offer: Offer) -> list[str]:
    """What the toolkit's proof compiles for: each GPU of the node; without one, an architecture that all toolkits know."""
    own = decision.catalog["torch"]["own_code_only"]["devices"]
    targets = [fit.target_for(offer.row["targets"], capability, own) for capability in gpus.capabilities(decision)]
    return sorted({target for target in targets if target}, key=key) or ["8.0"]


def _check_compiler(decision: Decision, offer: Offer) -> None:
    distribution = node.distribution(decision)
    gcc = distribution["gcc"] if distribution else None
    if offer.source == "distro" or gcc is None or offer.row["gcc_max"] is None or gcc <= offer.row["gcc_max"]:
        return
    decision.warn(
        "GF-TOOLKIT-GCC",
        f"CUDA {offer.series} takes gcc up to {offer.row['gcc_max']}, {decision.platform} has {gcc} by default: "
        f"install gcc-{offer.row['gcc_max']} and call nvcc with -ccbin",
    )


def _skipped(decision: Decision, cuda: str, driver: Driver | None) -> Row:
    major, have = key(cuda)[0], offers(decision)
    has = ", ".join(dict.fromkeys(offer.series for offer in have)) or "none that is known"
    reasons = [f"{offer.series}: {unfit(decision, offer, driver)}" for offer in have if key(offer.series)[0] == major]
    decision.warn(
        "GF-TOOLKIT-SKIPPED",
        f"no CUDA toolkit is installed: torch uses CUDA {cuda}, for {decision.platform} there is {has}"
        + (f" ({reasons[-1]})" if reasons else "")
        + "; torch does not need it",
    )
    return nothing(f"no toolkit of CUDA {major} that fits is to be had", **NO_TOOLKIT)


def _unavailable(decision: Decision, wish: str, everything: list[Offer]) -> None:
    have = ", ".join(dict.fromkeys(offer.series for offer in everything)) or "none that is known"
    sources = dict.fromkeys(decision.source("cuda", offer.row) for offer in everything[:1])
    decision.conflict(
        "GF-TOOLKIT-UNAVAILABLE",
        f"CUDA toolkit {wish} is not to be had for {decision.platform}",
        [f"to be had: {have}", *sources],
        [],
        {"toolkit": wish},
    )
