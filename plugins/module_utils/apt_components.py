# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components of the distribution's own archive, derived from the node's apt sources. Private to the collection.

A node says itself where its distribution is: whatever archive serves ``main`` of its release also serves ``contrib``
and ``non-free``. So no file of the collection names a mirror.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.settings_file import read

SOURCES_FILE = "etc/apt/sources.list.d/gpufleet-components.sources"
HEADER = "# Written by gpufleet.stack: components of this node's own archives that its other sources leave out.\n"
SUITE_SUFFIXES = ("", "-updates", "-security", "-backports", "-backports-sloppy", "-proposed-updates", "/updates")
ONE_LINE = re.compile(
    r"^(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<rest>.*)$"
)
# One-line options and the deb822 fields that mean the same (sources.list(5)).
FIELDS = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "pdiffs": "PDiffs",
    "by-hash": "By-Hash",
    "allow-insecure": "Allow-Insecure",
    "allow-weak": "Allow-Weak",
    "allow-downgrade-to-insecure": "Allow-Downgrade-To-Insecure",
    "trusted": "Trusted",
    "signed-by": "Signed-By",
    "check-valid-until": "Check-Valid-Until",
    "valid-until-min": "Valid-Until-Min",
    "valid-until-max": "Valid-Until-Max",
    "check-date": "Check-Date",
    "date-max-future": "Date-Max-Future",
    "inrelease-path": "InRelease-Path",
    "snapshot": "Snapshot",
}
KNOWN_FIELDS = {field.lower(): field for field in FIELDS.values()}


class Source(NamedTuple):
    """One archive, one suite: ``options`` are deb822 fields, values as apt reads them (Signed-By may span lines)."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...]


def parse_one_line(text: str) -> list[Source]:
    """The binary sources of a ``sources.list`` file."""
    found = []
    for line in text.splitlines():
        match = ONE_LINE.match(line.split("#", 1)[0].strip())
        if match is None or match["type"] != "deb":
            continue
        options = []
        for option in (match["options"] or "").split():
            name, _equals, value = option.partition("=")
            field = FIELDS.get(name.rstrip("+-").lower())
            if field is not None:
                # arch+= and arch-= have a field of their own in deb822.
                field += {"+": "-Add", "-": "-Remove"}.get(name[-1:], "")
                options.append((field, value.replace(",", " ")))
        found.append(Source(match["uri"], match["suite"], tuple(match["rest"].split()), tuple(options)))
    return found


def _stanzas(text: str) -> Iterable[dict[str, str]]:
    stanza: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, field = {}, ""
        elif line[0] in " \t":
            if field:
                stanza[field] += "\n" + line
        elif ":" in line:
            name, _colon, value = line.partition(":")
            field = name.strip().lower()
            stanza[field] = value.strip()
    return


def parse_deb822(text: str) -> list[Source]:
    """The enabled binary sources of a ``.sources`` file."""
    found = []
    for stanza in _stanzas(text):
        if stanza.get("enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        if "deb" not in stanza.get("types", "").split():
            continue
        options = []
        for name, value in stanza.items():
            base = re.sub(r"-(add|remove)$", "", name)
            if base in KNOWN_FIELDS:
                options.append((KNOWN_FIELDS[base] + name[len(base) :].title(), value))
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                found.append(Source(uri, suite, tuple(stanza.get("components", "").split()), tuple(options)))
    return found


def read_sources(root: str = "/", without: str = SOURCES_FILE) -> list[Source]:
    """Every binary source of the node, but for those in our own file.

    :param root: the tree whose ``etc/apt`` is read.
    :param without: the file, relative to ``root``, that is left out.
    """
    found = parse_one_line(read(os.path.join(root, "etc/apt/sources.list")))
    folder = os.path.join(root, "etc/apt/sources.list.d")
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    for name in names:
        path = os.path.join(folder, name)
        # The names that apt itself reads: letters, digits, underscore, hyphen, full stop (sources.list(5)).
        if path == os.path.join(root, without) or not re.fullmatch(r"[\w.-]+\.(list|sources)", name, re.ASCII):
            continue
        found += parse_deb822(read(path)) if name.endswith(".sources") else parse_one_line(read(path))
    return found


def aliases(codename: str, root: str) -> dict[str, str]:
    """Suite names that mean this release (``stable``): apt's own lists of the node tell."""
    names: dict[str, str] = {}
    folder = os.path.join(root, "var/lib/apt/lists")
    try:
        files = sorted(name for name in os.listdir(folder) if name.endswith(("_InRelease", "_Release")))
    except OSError:
        return names
    for name in files:
        fields = dict(re.findall(r"^(Suite|Codename): *(\S+)", read(os.path.join(folder, name))[:4000], re.MULTILINE))
        if {"Suite", "Codename"} <= set(fields) and fields["Codename"] in _suites(codename):
            names[fields["Suite"]] = fields["Codename"]
    return names


def _suites(codename: str) -> set[str]:
    return {codename + suffix for suffix in SUITE_SUFFIXES}


def _archive(source: Source) -> tuple[str, str]:
    return source.uri.rstrip("/"), source.suite


def no_source(codename: str) -> GpufleetError:
    """The error for a node whose sources do not have its own release."""
    return GpufleetError(
        "GF-APT-SOURCES",
        f"no apt source of this node serves main of {codename}",
        "the distribution's own entry was removed from /etc/apt/sources.list(.d), or names another release",
        "add the distribution's archive (suite, component main) to /etc/apt/sources.list.d and run apt-get update",
    )


def missing_sources(
    sources: Iterable[Source], components: Iterable[str], suites: set[str], codename: str
) -> list[Source]:
    """What has to be added so that every archive that serves ``main`` of the release serves ``components`` too.

    A suite of the distribution is one that bears the release's name and has ``main``: a third party's repository
    has other suites or other components, and is left alone.

    :raises GpufleetError: GF-APT-SOURCES when no source serves ``main`` of the release.
    """
    sources = list(sources)
    base = [source for source in sources if source.suite in suites and "main" in source.components]
    if not base:
        raise no_source(codename)
    served: dict[tuple[str, str], set[str]] = {}
    for source in sources:
        served.setdefault(_archive(source), set()).update(source.components)
    wanted = sorted(set(components))
    added: dict[tuple[object, ...], Source] = {}
    for source in base:
        lacking = tuple(name for name in wanted if name not in served[_archive(source)])
        if lacking:
            added.setdefault((_archive(source), source.options), source._replace(components=lacking))
    return list(added.values())


def render(sources: Iterable[Source]) -> str:
    """The ``.sources`` file for these sources; empty text for none."""
    groups: dict[tuple[object, ...], list[Source]] = {}
    for source in sources:
        groups.setdefault((source.uri, source.components, source.options), []).append(source)
    stanzas = []
    for group in groups.values():
        lines = [
            "Types: deb",
            f"URIs: {group[0].uri}",
            "Suites: " + " ".join(source.suite for source in group),
            "Components: " + " ".join(group[0].components),
        ]
        lines += [f"{field}: {value}" if value[:1] != "\n" else f"{field}:{value}" for field, value in group[0].options]
        stanzas.append("\n".join(lines) + "\n")
    return HEADER + "\n".join(stanzas) if stanzas else ""


def codename_of(root: str = "/") -> str:
    """The release's codename from os-release; empty where it has none."""
    text = read(os.path.join(root, "etc/os-release")) or read(os.path.join(root, "usr/lib/os-release"))
    match = re.search(r'^VERSION_CODENAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else ""


def plan_file(root: str, codename: str, components: Iterable[str]) -> tuple[str, list[Source]]:
    """The text that our sources file must have (empty: no file), and the sources in it.

    Components that the file already has stay, so that two roles with different wishes don't undo each other.
    """
    suites = _suites(codename)
    suites |= set(aliases(codename, root))
    ours = parse_deb822(read(os.path.join(root, SOURCES_FILE)))
    wanted = list(components) + sorted({name for source in ours for name in source.components})
    added = missing_sources(read_sources(root), wanted, suites, codename)
    return render(added), added
