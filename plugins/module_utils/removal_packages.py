# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take packages off a node, and nothing but these. Private to the collection.

``Apt`` and ``Rpm`` answer the same four questions, so nothing else knows which package manager a node has. Both first
say which packages something else needs by now (``needed``), then what a removal would really take (``would_take``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Callable, NamedTuple, Protocol

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import (
    DPKG_STATUS,
    dpkg_entries,
    dpkg_interrupted,
    rpm_versions,
)

Run = Callable[["list[str]"], "tuple[int, str, str]"]
# Another apt may be at work (unattended upgrades): wait as long as the roles do.
LOCK_SECONDS = 600
HELD = "it is held"


class Stanza(NamedTuple):
    """What dpkg's status file says of one package: each clause of ``depends`` has the names that satisfy it."""

    name: str
    version: str
    installed: bool
    held: bool
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]


class Manager(Protocol):
    """What removal asks of a package manager."""

    def present(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: version}`` of these that are there; one that only left its settings counts."""

    def needed(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: why}`` of these that have to stay."""

    def would_take(self, names: list[str]) -> set[str]:
        """All that would go, or come, with these."""

    def purge(self, names: list[str]) -> None:
        """Take them off the node."""

    def mark_automatic(self, names: list[str]) -> None:
        """Let these count again as installed for others' sake."""

    def distrust(self, fingerprints: list[str]) -> None:
        """Forget keys that the package manager took over from a repository's entry."""


def _names(clause: str) -> tuple[str, ...]:
    return tuple(item.split("(")[0].split(":")[0].strip() for item in clause.split("|") if item.strip())


def parse_status(text: str) -> list[Stanza]:
    """The packages of dpkg's status file that left anything on the node."""
    found = []
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        status = fields.get("Status", "").split()
        if "Package" not in fields or len(status) != 3 or status[2] == "not-installed":
            continue
        clauses = ",".join(fields.get(key, "") for key in ("Pre-Depends", "Depends")).split(",")
        depends = tuple(_names(clause) for clause in clauses if clause.strip())
        provides = tuple(name for item in fields.get("Provides", "").split(",") for name in _names(item))
        version = fields.get("Version", "")
        found.append(
            Stanza(fields["Package"], version, status[2] != "config-files", status[0] == "hold", depends, provides)
        )
    return found


def needed_by(stanzas: list[Stanza], names: Iterable[str]) -> dict[str, str]:
    """``{name: who needs it}`` of the names that must stay, since what is not going to go depends on them.

    Versions of dependencies are not compared: apt's own simulation has the last word.
    """
    installed = [stanza for stanza in stanzas if stanza.installed]
    going = set(names)
    needed: dict[str, str] = {}
    while True:
        staying = {name for stanza in installed if stanza.name not in going for name in (stanza.name, *stanza.provides)}
        found = _satisfiers(installed, going, staying)
        if not found:
            return needed
        needed.update(found)
        going -= set(found)


def _satisfiers(installed: list[Stanza], going: set[str], staying: set[str]) -> dict[str, str]:
    offers: dict[str, set[str]] = {}
    for stanza in installed:
        if stanza.name in going:
            for name in (stanza.name, *stanza.provides):
                offers.setdefault(name, set()).add(stanza.name)
    found = {}
    for stanza in installed:
        if stanza.name in going:
            continue
        for clause in stanza.depends:
            if not staying.intersection(clause):
                found.update({name: stanza.name for item in clause for name in offers.get(item, ())})
    return found


def parse_apt_simulation(text: str) -> set[str]:
    """Names of all packages that ``apt-get --simulate purge`` would remove, or install in their place."""
    return {match[1] for match in re.finditer(r"^(?:Purg|Remv|Inst) ([^\s:]+)", text, re.MULTILINE)}


class Apt:
    """dpkg and apt."""

    def __init__(self, run: Run, root: str = "/") -> None:
        self.run = run
        self.root = root

    def _stanzas(self) -> list[Stanza]:
        try:
            with open(os.path.join(self.root, DPKG_STATUS), encoding="utf-8", errors="replace") as stream:
                return parse_status(stream.read())
        except OSError:
            return []

    def present(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: version}`` of these that are there; one that only left its settings counts."""
        wanted = set(names)
        return {stanza.name: stanza.version for stanza in self._stanzas() if stanza.name in wanted}

    def needed(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: why}`` of these that have to stay: held by somebody, or needed by what is not ours."""
        stanzas, wanted = self._stanzas(), set(names)
        held = {stanza.name: HELD for stanza in stanzas if stanza.held and stanza.name in wanted}
        users = needed_by(stanzas, wanted - set(held))
        return {**{name: f"{user} needs it" for name, user in users.items()}, **held}

    def would_take(self, names: list[str]) -> set[str]:
        """All that would go, or come, with these."""
        text = do(self.run, [*self._command(), "--simulate", "purge", *names], "apt-get --simulate purge")
        return parse_apt_simulation(text)

    def purge(self, names: list[str]) -> None:
        """Take them off the node with their settings, those too that a dpkg that was cut off left half unpacked."""
        half = ["-o", "DPkg::Options::=--force-remove-reinstreq"] if dpkg_interrupted(self.root) else []
        do(self.run, [*self._command(), *half, "--assume-yes", "purge", *names], "apt-get purge")

    def mark_automatic(self, names: list[str]) -> None:
        """Let these count again as installed for others' sake."""
        do(self.run, ["apt-mark", "auto", *names], "apt-mark auto")

    def distrust(self, fingerprints: list[str]) -> None:
        """apt takes over no key: it reads the file that an entry names."""

    def _command(self) -> list[str]:
        # A site may have set AutomaticRemove: what we did not add is not ours to clean up.
        options = ["APT::Get::AutomaticRemove=false", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
        return ["apt-get", *(part for option in options for part in ("-o", option))]


NEEDED = re.compile(r"^\s+(\S.*?) is needed by \((?:installed|erased)\) (\S+)$", re.MULTILINE)


def parse_rpm_test(text: str) -> list[tuple[str, str]]:
    """``(capability, who needs it)`` from what ``rpm -e --test`` says. The version of a capability is cut off."""
    return [(match[1].split(" ")[0], match[2]) for match in NEEDED.finditer(text)]


class Rpm:
    """rpm and dnf. ``rpm -e --test`` takes exactly what it is told or refuses, so it says who needs what."""

    def __init__(self, run: Run, root: str = "/") -> None:
        self.run = run
        self.root = root

    def present(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: version}`` of these that are there."""
        installed = rpm_versions(self.root)
        return {name: installed[name] for name in names if name in installed}

    def needed(self, names: Iterable[str]) -> dict[str, str]:
        """``{name: why}`` of these that have to stay."""
        going, needed = set(names), {}
        while going:
            _code, out, err = self.run(["rpm", "-e", "--test", *sorted(going)])
            found: dict[str, str] = {}
            for capability, user in parse_rpm_test(out + err):
                found.update(dict.fromkeys(self._providers(capability) & going, f"{user} needs it"))
            if not found:
                break
            needed.update(found)
            going -= set(found)
        return needed

    def _providers(self, capability: str) -> set[str]:
        _code, out, _err = self.run(["rpm", "-q", "--whatprovides", "--qf", "%{NAME}\\n", capability])
        return {capability, *out.split()}

    def would_take(self, names: list[str]) -> set[str]:
        """These alone, where rpm agrees."""
        do(self.run, ["rpm", "-e", "--test", *names], "rpm -e --test")
        return set(names)

    def purge(self, names: list[str]) -> None:
        """Take them off the node, through dnf so that its history has it."""
        do(self.run, ["dnf", "--assumeyes", "remove", "--noautoremove", *names], "dnf remove")

    def mark_automatic(self, names: list[str]) -> None:
        """dnf leaves alone why a package was installed when it is asked for once more."""

    def distrust(self, fingerprints: list[str]) -> None:
        """Take these keys out of rpm's database, where each is a package named by the end of its fingerprint."""
        _code, out, _err = self.run(["rpm", "-q", "gpg-pubkey", "--qf", "%{NAME}-%{VERSION}-%{RELEASE}\\n"])
        ends = tuple(f"gpg-pubkey-{fingerprint[-8:].lower()}-" for fingerprint in fingerprints)
        for name in out.split():
            if name.startswith(ends):
                do(self.run, ["rpm", "-e", name], "rpm -e")


def do(run: Run, command: list[str], doing: str) -> str:
    """Run a command; what it prints.

    :raises GpufleetError: GF-REMOVE-FAILED, with what the command said.
    """
    code, out, err = run(command)
    if code == 0:
        return out
    # dpkg's own words are in what apt prints; that they were an error is all that apt says of them.
    lines = [line for line in f"{out}\n{err}".splitlines() if line.strip() and not line.startswith("W:")]
    raise GpufleetError(
        "GF-REMOVE-FAILED",
        f"{doing} ended with status {code}: " + " - ".join(lines[-8:]),
        "the package manager's own message above says it: another one at work, a held package, a script that failed",
        "mend what it names and run remove.yml again: it goes on where it stopped",
    )


def manager_of(run: Run, root: str = "/") -> Manager:
    """The package manager that this node has."""
    return Apt(run, root) if dpkg_entries(root) else Rpm(run, root)


def check_taken(manager: Manager, names: list[str]) -> None:
    """Stop before anything is removed where the package manager would take more than our list.

    :raises GpufleetError: GF-REMOVE-WOULD-TAKE.
    """
    others = sorted(manager.would_take(names) - set(names))
    if others:
        raise GpufleetError(
            "GF-REMOVE-WOULD-TAKE",
            f"removing our packages would also take or bring: {', '.join(others)}",
            "they were installed after this collection came and depend on its packages",
            "remove them yourself, or leave the stage they need: gpufleet_remove with the other stages only",
        )
