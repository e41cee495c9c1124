# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node had before a role touched it, so that the role's receipt can say what was added. Private to the collection.

``begin`` writes the baseline before a role's work, ``close`` turns it into the parts of the receipt that removal reads.
A baseline that is there already stays, and is added to: the run that wrote it was cut off, and what it installed is ours
too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import receipts
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import (
    dpkg_entries,
    installed_versions,
    of_rpm,
    present,
)

EXTENDED_STATES = "var/lib/apt/extended_states"
KINDS = ("files", "links", "trees")
# Stands in the first or second line of each file that is ours alone.
OUR_WORDS = "Written by gpufleet.stack"


def baseline_path(state_dir: str, role: str) -> str:
    """Where the baseline of ``role`` lies while the role works."""
    return os.path.join(state_dir, "baselines", role + ".json")


def within(root: str, path: str) -> str:
    """``path`` of the node as it is found below ``root``."""
    return os.path.join(root, path.lstrip("/"))


def bears_our_words(path: str) -> bool:
    """Whether a file says of itself that this collection wrote it: known where no receipt is left, too."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return any(OUR_WORDS in stream.readline() for _line in range(2))
    except OSError:
        return False


def automatic_packages(root: str = "/") -> set[str]:
    """Packages that apt installed for others' sake only; every other one somebody asked for."""
    if of_rpm(root):
        return set()
    try:
        with open(os.path.join(root, EXTENDED_STATES), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return set()
    found = set()
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if fields.get("Auto-Installed") == "1" and "Package" in fields:
            found.add(fields["Package"])
    return found


def plain_names(packages: Iterable[str]) -> set[str]:
    """Names without the version that was asked for (``name=version``)."""
    return {name.partition("=")[0] for name in packages}


def begin(
    state_dir: str, role: str, wanted: dict[str, list[str]], root: str = "/", check_mode: bool = False
) -> dict[str, Any] | None:
    """Write the baseline of a role that starts to work.

    :param wanted: ``packages``, ``files``, ``links`` and ``trees`` that the role is about to bring.
    :returns: the baseline; None where a former run that was cut off left one that says it all.
    """
    path = baseline_path(within(root, state_dir), role)
    there = receipts.read_json(path)
    asked = plain_names(wanted["packages"])
    installed = installed_versions(root=root)
    baseline: dict[str, Any] = {
        "schema": 1,
        "role": role,
        "installed": sorted(installed),
        "asked": sorted(asked),
        "auto": sorted(asked & set(installed) & automatic_packages(root)),
        "wanted": {kind: sorted(wanted[kind]) for kind in KINDS},
        "before": _existing(wanted, _ours(_former(state_dir, role, root)), root),
        "directories": _missing_directories([path for kind in KINDS for path in wanted[kind]], root),
    }
    if there is not None:
        baseline = _joined(there, baseline)
        if baseline == there:
            return None
    if not check_mode:
        receipts.write_json(path, baseline)
    return baseline


def _joined(there: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The note of a run that was cut off, with what this run is about to bring besides: its wish may be another one."""
    known = {kind: set(there["wanted"][kind]) for kind in KINDS}
    new = {kind: {path: to for path, to in now["before"][kind].items() if path not in known[kind]} for kind in KINDS}
    return {
        **there,
        "asked": sorted({*there["asked"], *now["asked"]}),
        "auto": sorted({*there["auto"], *(set(now["auto"]) & set(there["installed"]))}),
        "wanted": {kind: sorted(known[kind].union(now["wanted"][kind])) for kind in KINDS},
        "before": {kind: {**new[kind], **there["before"][kind]} for kind in KINDS},
        "directories": sorted({*there["directories"], *now["directories"]}),
    }


def _former(state_dir: str, role: str, root: str) -> dict[str, Any]:
    return receipts.read_json(receipts.receipt_path(within(root, state_dir), role)) or {}


def _ours(former: dict[str, Any]) -> set[str]:
    """Paths that a former run of the role brought: that they are there says nothing about the node before us."""
    before = former.get("before", {})
    ours: set[str] = set()
    for kind in KINDS:
        brought = {
            *former.get(kind, {}),
            *former.get("earlier", {}).get(kind, {}),
            *former.get("begun", {}).get(kind, []),
        }
        ours |= brought - set(before.get(kind, {}))
    return ours


def _existing(wanted: dict[str, list[str]], ours: set[str], root: str) -> dict[str, dict[str, Any]]:
    """What is there already of the paths that the role is about to bring."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for path in wanted[kind]:
            inside = within(root, path)
            if path in ours or not os.path.lexists(inside):
                continue
            if kind != "files" or not bears_our_words(inside):
                found[kind][path] = receipts.link_target(inside)
    return found


def _missing_directories(paths: Iterable[str], root: str) -> list[str]:
    missing = set()
    for path in paths:
        folder = os.path.dirname(path)
        while folder not in ("/", "") and not os.path.lexists(within(root, folder)):
            missing.add(folder)
            folder = os.path.dirname(folder)
    return sorted(missing)


def added_packages(baseline: dict[str, Any], asked: Iterable[str], root: str = "/") -> list[str]:
    """What came since the baseline, and came through us.

    The time between may be long where a run was cut off. What an administrator asked for meanwhile is not marked as
    automatic in apt's records and was not asked for by us; so it is told apart. rpm's records don't say who asked.
    """
    came = present(root) - set(baseline.get("installed", []))
    if dpkg_entries(root):
        came &= automatic_packages(root) | set(asked)
    return sorted(came)


def close(state_dir: str, role: str, receipt: dict[str, Any], root: str = "/") -> dict[str, Any]:
    """The receipt with what removal has to know; ``finish`` drops the baseline once the receipt is written.

    Without a baseline and without a former receipt that knows, nothing is said: unknown is not the same as nothing.
    """
    former = _former(state_dir, role, root)
    baseline = receipts.read_json(baseline_path(within(root, state_dir), role))
    if baseline is None and "added_packages" not in former:
        return receipt
    return {**receipt, **_memory(baseline or {}, former, receipt, root)}


def _memory(baseline: dict[str, Any], former: dict[str, Any], receipt: dict[str, Any], root: str) -> dict[str, Any]:
    installed = present(root)
    asked = {*former.get("asked_packages", []), *baseline.get("asked", []), *receipt.get("packages", {})}
    added = set(added_packages(baseline, asked, root)) if baseline else set()
    old, new = former.get("before", {}), baseline.get("before", {})
    auto = {*former.get("auto_packages", []), *baseline.get("auto", [])} - set(former.get("added_packages", []))
    return {
        "asked_packages": sorted(asked),
        "added_packages": sorted((added | set(former.get("added_packages", []))) & installed),
        "auto_packages": sorted(auto & installed),
        # The oldest knowledge counts: it is of the node before we came.
        "before": {kind: {**new.get(kind, {}), **old.get(kind, {})} for kind in KINDS},
        "directories": sorted({*former.get("directories", []), *baseline.get("directories", [])}),
        # All that some run was about to bring: a cache, say, is in no receipt, and is ours all the same.
        "begun": {
            kind: sorted({*former.get("begun", {}).get(kind, []), *baseline.get("wanted", {}).get(kind, [])})
            for kind in KINDS
        },
        "earlier": _earlier(former, receipt, root),
    }


def _earlier(former: dict[str, Any], receipt: dict[str, Any], root: str) -> dict[str, dict[str, Any]]:
    """What former runs left and this receipt no longer names: the environment before the last switch, say."""
    earlier: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        known = {**former.get("earlier", {}).get(kind, {}), **former.get(kind, {})}
        earlier[kind] = {
            path: state
            for path, state in known.items()
            if path not in receipt.get(kind, {}) and os.path.lexists(within(root, path))
        }
    return earlier


def finish(state_dir: str, role: str, root: str = "/") -> None:
    """Drop the baseline: the receipt holds all of it now."""
    path = baseline_path(within(root, state_dir), role)
    if os.path.lexists(path):
        os.unlink(path)


def unfinished(state_dir: str, root: str = "/") -> dict[str, dict[str, Any]]:
    """``{role: baseline}`` of roles whose last run was cut off."""
    folder = os.path.join(within(root, state_dir), "baselines")
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except OSError:
        return {}
    read = {name[:-5]: receipts.read_json(os.path.join(folder, name)) for name in names}
    return {role: baseline for role, baseline in read.items() if baseline is not None}


def as_receipt(baseline: dict[str, Any], former: dict[str, Any], root: str = "/") -> dict[str, Any]:
    """What a receipt would say if the role that was cut off had ended now; states of its paths are unknown."""
    guess: dict[str, Any] = {
        kind: {**dict.fromkeys(baseline.get("wanted", {}).get(kind, [])), **former.get(kind, {})} for kind in KINDS
    }
    guess["packages"] = former.get("packages", {})
    return {**former, **guess, **_memory(baseline, former, guess, root)}
