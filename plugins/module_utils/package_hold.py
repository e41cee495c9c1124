# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages that no upgrade may touch: what has to be written for it, with apt and with dnf. Private to the collection.

Everything here only reads and computes; the module package_hold carries a ``Plan`` out.
"""

from __future__ import annotations

import collections
import fnmatch
import glob
import json
import os
import re
from typing import Iterable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import settings_file
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import (
    DPKG_STATUS,
    installed_versions,
    of_rpm,
)

HOLDS = "var/lib/gpufleet/holds"
VERSIONLOCK = "etc/dnf/plugins/versionlock.list"
VERSIONLOCK_PLUGIN = "usr/lib/python3*/*-packages/dnf-plugins/versionlock.py"
KERNEL_PATTERNS = {
    "apt": ("linux-image-*", "linux-headers-*", "linux-modules-*"),
    "dnf": ("kernel", "kernel-core", "kernel-modules*", "kernel-devel*", "kernel-headers"),
}
# Below 1000 apt keeps the installed version against every newer one, but never downgrades one put there by hand.
KEEP_PRIORITY = 999


class Selection(NamedTuple):
    """An installed package: what the admin wants of it (``install``, ``hold``) and its version."""

    want: str
    version: str


class Plan(NamedTuple):
    """What has to be done: selections for dpkg, texts of files (empty: no such file), the module's own note."""

    manager: str
    selections: dict[str, str]
    files: dict[str, str]
    note: dict[str, object] | None
    held: list[str]
    foreign: list[str]
    missing: list[str]


def dpkg_selections(root: str = "/") -> dict[str, Selection]:
    """The installed packages of dpkg; where one is there for two architectures the names carry them."""
    if of_rpm(root):
        return {}
    try:
        with open(os.path.join(root, DPKG_STATUS), encoding="utf-8", errors="replace") as stream:
            stanzas = stream.read().split("\n\n")
    except OSError:
        return {}
    rows = []
    for stanza in stanzas:
        fields = dict(re.findall(r"^(Package|Status|Architecture|Version): (.*)$", stanza, re.MULTILINE))
        want, _separator, state = fields.get("Status", "").partition(" ")
        if "Package" in fields and state == "ok installed":
            selection = Selection(want, fields.get("Version", ""))
            rows.append((fields["Package"], fields.get("Architecture", ""), selection))
    counts = collections.Counter(name for name, _architecture, _selection in rows)
    twice = {name for name, count in counts.items() if count > 1}
    return {f"{name}:{arch}" if name in twice else name: selection for name, arch, selection in rows}


def plain(label: str) -> str:
    """The name of a package without its architecture."""
    return label.partition(":")[0]


def manager_of(root: str = "/") -> str:
    """``apt`` where dpkg has packages, else ``dnf``."""
    return "apt" if dpkg_selections(root) else "dnf"


def check_names(name: str, packages: Iterable[str], patterns: Iterable[str]) -> None:
    """Refuse what would not fit into the files.

    :raises GpufleetError: GF-HOLD-NAME
    """
    wrong = [name] if not re.fullmatch(r"[a-z0-9_-]+", name) else []
    wrong += [item for item in packages if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*", item)]
    # Something other than wildcards has to be in a pattern: "*" would keep the whole node from being updated.
    wrong += [item for item in patterns if not re.fullmatch(r"[*?]*[A-Za-z0-9][A-Za-z0-9+._*?-]*", item)]
    if wrong:
        raise GpufleetError(
            "GF-HOLD-NAME",
            f"{wrong[0]!r} is no name of a package, pattern or part",
            "a character that package managers do not allow there, or a pattern that fits every package",
            "correct the name; a pattern may have * and ?, and needs at least one letter or digit",
        )


def chosen(installed: Iterable[str], packages: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The installed packages that are meant, by name or by pattern."""
    exact, wild = set(packages), list(patterns)
    return sorted(
        label
        for label in installed
        if plain(label) in exact or any(fnmatch.fnmatchcase(plain(label), pattern) for pattern in wild)
    )


def pin_text(versions: dict[str, str], patterns: Iterable[str]) -> str:
    """The file for /etc/apt/preferences.d: the first record that fits a version counts."""
    records = ["# Written by gpufleet.stack: these packages stay as they are. Do not edit."]
    for label, version in sorted(versions.items()):
        records.append(f"Package: {label}\nPin: version {version}\nPin-Priority: {KEEP_PRIORITY}")
    # What is not installed may not be dragged in by something else. `apt list -a` shows it all the same.
    records += [f"Package: {pattern}\nPin: release *\nPin-Priority: -1" for pattern in sorted(patterns)]
    return "\n\n".join(records) + "\n"


def blacklist_text(labels: Iterable[str], patterns: Iterable[str]) -> str:
    """The file for /etc/apt/apt.conf.d that keeps unattended-upgrades away."""
    expressions = [_expression(name) for name in sorted({*map(plain, labels), *patterns})]
    lines = [f'    "{expression}";' for expression in expressions]
    head = "// Written by gpufleet.stack: these packages stay as they are. Do not edit."
    return "\n".join([head, "Unattended-Upgrade::Package-Blacklist {", *lines, "};"]) + "\n"


def _expression(name: str) -> str:
    """A name or pattern as an anchored regular expression, without backslashes: apt.conf has its own use for them."""
    parts = {".": "[.]", "+": "[+]", "*": ".*", "?": "."}
    return "^" + "".join(parts.get(character, character) for character in name) + "$"


def read_note(root: str, name: str) -> dict[str, list[str]]:
    """What we remember of a part: the packages that we hold (``ours``) and those held before us (``theirs``)."""
    try:
        with open(os.path.join(root, HOLDS, name + ".json"), encoding="utf-8") as stream:
            note = json.load(stream)
        return {key: [str(item) for item in note[key]] for key in ("ours", "theirs")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"ours": [], "theirs": []}


def held_elsewhere(root: str, name: str) -> set[str]:
    """The packages that we hold for other parts: they outlive this one."""
    found: set[str] = set()
    for path in glob.glob(os.path.join(glob.escape(os.path.join(root, HOLDS)), "*.json")):
        other = os.path.basename(path)[: -len(".json")]
        if other != name:
            found.update(read_note(root, other)["ours"])
    return found


def plan(
    name: str, packages: list[str], patterns: list[str], *, kernel: bool = False, state: str = "held", root: str = "/",
    branch: str = "",
) -> Plan:  # fmt: skip
    """What has to change on the node so that the part ``name`` is in ``state``.

    :param branch: with dnf, a pattern of versions that the packages are kept to, installed or not.
    :raises GpufleetError: GF-HOLD-NAME, GF-HOLD-NO-PLUGIN
    """
    check_names(name, packages, [*patterns, *([branch] if branch else [])])
    manager = manager_of(root)
    selecting = [*patterns, *(KERNEL_PATTERNS[manager] if kernel else ())]
    if manager == "apt":
        return _plan_apt(name, packages, patterns, selecting, state, root)
    return _plan_dnf(name, packages, selecting, state, root, branch)


def _plan_apt(name: str, packages: list[str], patterns: list[str], selecting: list[str], state: str, root: str) -> Plan:
    installed = dpkg_selections(root)
    note, elsewhere = read_note(root, name), held_elsewhere(root, name)
    labels = chosen(installed, packages, selecting) if state == "held" else []
    theirs = [
        label
        for label in (labels if state == "held" else note["theirs"])
        if label in installed
        and installed[label].want == "hold"
        and label not in note["ours"]
        and label not in elsewhere
    ]
    ours = [label for label in labels if label not in theirs]
    selections = {label: "hold" for label in ours if installed[label].want != "hold"}
    for label in note["ours"]:
        # One that the admin has since marked for removal, or that is gone, is not called back.
        if label not in labels and label not in elsewhere and label in installed and installed[label].want == "hold":
            selections[label] = "install"
    versions = {label: installed[label].version for label in labels}
    keep = state == "held"
    files = {
        f"etc/apt/preferences.d/gpufleet-{name}": pin_text(versions, patterns) if keep else "",
        f"etc/apt/apt.conf.d/52gpufleet-{name}": blacklist_text(labels, patterns) if keep else "",
    }
    return Plan(manager="apt", selections=selections, files=files, note=_note(state, ours, theirs), held=labels,
                foreign=theirs, missing=_missing(packages, installed, state))  # fmt: skip


def _note(state: str, ours: list[str], theirs: list[str]) -> dict[str, object] | None:
    return None if state == "absent" else {"schema": 1, "state": state, "ours": ours, "theirs": theirs}


def _missing(packages: list[str], installed: Iterable[str], state: str) -> list[str]:
    there = {plain(label) for label in installed}
    return sorted(set(packages) - there) if state == "held" else []


def _marks(name: str) -> tuple[str, str]:
    return f"# gpufleet {name}: begin", f"# gpufleet {name}: end"


def _without_block(text: str, name: str) -> str:
    begin, end = map(re.escape, _marks(name))
    return re.sub(rf"^{begin}\n.*?^{end}\n", "", text, flags=re.MULTILINE | re.DOTALL)


def _without_lines(text: str, names: Iterable[str]) -> str:
    """The list without lines that lock one of these packages."""
    locks = [re.compile(rf"{re.escape(name)}-(?:\d+:)?[^-\s]+-[^-\s]+") for name in names]
    return "".join(
        line for line in text.splitlines(keepends=True) if not any(lock.fullmatch(line.strip()) for lock in locks)
    )


def locked_names(text: str, names: Iterable[str]) -> list[str]:
    """Those of the names that a line of versionlock.list keeps at one version: ``name-epoch:version-release.arch``.

    A line with a pattern for the version keeps a branch, and that is no hold.
    """
    lines = [line.strip() for line in text.splitlines() if not line.startswith(("#", "!"))]
    heads = [match.group(1) for match in (re.match(r"(.+)-[^-*]+-[^-]+$", line) for line in lines) if match]
    return sorted(name for name in set(names) if any(fnmatch.fnmatchcase(name, head) for head in heads))


def _plan_dnf(name: str, packages: list[str], selecting: list[str], state: str, root: str, branch: str) -> Plan:
    if state == "held" and not glob.glob(os.path.join(glob.escape(root), VERSIONLOCK_PLUGIN)):
        raise GpufleetError(
            "GF-HOLD-NO-PLUGIN",
            "dnf cannot hold packages on this node: its plugin versionlock is not installed",
            "a minimal installation leaves it out; dnf5 keeps its locks elsewhere and is not served yet",
            "dnf install python3-dnf-plugin-versionlock",
        )
    text = settings_file.read(os.path.join(root, VERSIONLOCK))
    rest = _without_block(text, name)
    if _marks(name)[0] not in text:
        # `dnf versionlock delete` writes the list anew, without comments: what we locked is told by our note.
        rest = _without_lines(rest, read_note(root, name)["ours"])
    installed = installed_versions(root=root) if state == "held" else {}
    labels = chosen(installed, packages, selecting)
    if branch and state == "held":
        labels = sorted(packages)
    # Locks of other parts of ours are no one else's: the package is locked for both, and outlives either.
    others = rest
    for path in glob.glob(os.path.join(glob.escape(os.path.join(root, HOLDS)), "*.json")):
        others = _without_block(others, os.path.basename(path)[: -len(".json")])
    theirs = locked_names(others, labels)
    ours = [label for label in labels if label not in theirs]
    begin, end = _marks(name)
    lines = [f"{label}-{branch}-*" if branch else _lock(label, installed[label]) for label in ours]
    if lines and rest and not rest.endswith("\n"):
        rest += "\n"
    block = "\n".join([begin, *lines, end]) + "\n" if lines else ""
    return Plan(manager="dnf", selections={}, files={VERSIONLOCK: rest + block}, note=_note(state, ours, theirs),
                held=labels, foreign=theirs, missing=[] if branch else _missing(packages, installed, state))  # fmt: skip


def _lock(name: str, version: str) -> str:
    """A line of versionlock.list, with the epoch 0 that rpm leaves out."""
    return f"{name}-{version if ':' in version else '0:' + version}.*"


def locked(names: Iterable[str], root: str = "/") -> list[str]:
    """Those of the names that dnf's plugin versionlock keeps at one version."""
    return locked_names(settings_file.read(os.path.join(root, VERSIONLOCK)), names)


def held(names: Iterable[str], root: str = "/") -> dict[str, bool]:
    """Whether each package is on hold, read from the package manager's files: no process is started."""
    wanted = list(names)
    installed = dpkg_selections(root)
    on_hold = {plain(label) for label, selection in installed.items() if selection.want == "hold"}
    found = on_hold if installed else set(locked(wanted, root))
    return {name: name in found or (name in installed and installed[name].want == "hold") for name in wanted}
