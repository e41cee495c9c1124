# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf would do for an installation, and doing it. Private to the collection.

The program is asked, not its Python library: on RHEL 8 that one is for a Python which Ansible no longer runs on.
"""

from __future__ import annotations

import glob
import os
import re
import time
from typing import Callable, Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.package_transaction import Step, Transaction
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import rpm_versions
from ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages import Rpm
from ansible_collections.gpufleet.stack.plugins.module_utils.vendor_repository import UNTRUSTED

CACHE = "var/cache/dnf/*/packages"
REPOSITORY = "gpufleet-nvidia"
LOCKED = 200  # dnf's status where it was told not to wait for another one
TRIES = 3
# Heads of the table that dnf shows before it asks whether it may begin; the row of a package is name, architecture, version, ...
_HEAD = re.compile(r"^(\S[^\n]*):$", re.MULTILINE)
_ROW = re.compile(r"^ (\S+)\s+(?:noarch|x86_64|aarch64|i\d86)\s+(\S+)\s", re.MULTILINE)
_REPLACED = re.compile(r"^\s+replacing\s+(\S+)\.\w+\s+(\S+)$", re.MULTILINE)
_ADDS = ("Installing", "Upgrading", "Downgrading", "Reinstalling")
_ABORTED = "Operation aborted"
_NETWORK = re.compile(r"Curl error|Failed to download|Cannot download|No more mirrors|Could not resolve", re.IGNORECASE)


def command(driver: bool, *more: str) -> list[str]:
    """dnf, so that it installs what is asked for and nothing that is only recommended.

    :param driver: whether what excludes the new packages may be removed: of the driver there is one on a node.
    """
    settings = ("install_weak_deps=False", "clean_requirements_on_remove=False", "exit_on_lock=True", "keepcache=True")
    options = ["--best", *(f"--setopt={setting}" for setting in settings)]
    return ["dnf", *options, *(["--allowerasing"] if driver else []), *more, "install", "--"]


def specs(packages: Iterable[str], back: bool = False, root: str = "/") -> list[str]:
    """Packages as dnf takes them: ``name=version`` is ``name-version``, or the file that its cache has of it.

    :param back: take what is in the cache, so that going back downloads nothing.
    """
    found = []
    for package in packages:
        name, _equals, version = package.partition("=")
        file = cached({name: version}, root).get(name) if back and version else None
        found.append(file or (f"{name}-{version}" if version else name))
    return found


def cached(versions: dict[str, str], root: str = "/") -> dict[str, str]:
    """Of these packages those that dnf's cache has in that version, with their files."""
    found = {}
    for name, version in versions.items():
        # A file's name has no epoch.
        file = f"{name}-{version.rpartition(':')[2]}"
        paths = glob.glob(os.path.join(glob.escape(root), CACHE, glob.escape(file) + ".*.rpm"))
        if paths:
            found[name] = sorted(paths)[0]
    return found


def parse(text: str, installed: dict[str, str]) -> list[Step]:
    """The steps of the table that dnf shows; ``installed`` has the versions before."""
    steps = []
    heads = list(_HEAD.finditer(text))
    for head, following in zip(heads, [*heads[1:], None]):
        # A long name has a line of its own, and what belongs to it follows on the next.
        body = text[head.end() : following.start() if following else None].partition("\nTransaction Summary")[0]
        rows = _ROW.findall(re.sub(r"\n {3,}(?!\s*replacing )", " ", body))
        if head[1].startswith("Removing"):
            steps += [Step(name, version, None) for name, version in rows]
        elif head[1].startswith(_ADDS):
            # A kernel that is installed takes no other one's place.
            before = {} if head[1].startswith("Installing") else installed
            steps += [Step(name, before.get(name), version) for name, version in rows]
            steps += [Step(name, version, "replaced") for name, version in _REPLACED.findall(body)]
    return steps


def _offline(wanted: list[str]) -> list[str]:
    """Where there is a file of every package, no repository has to answer."""
    return ["--cacheonly"] if all(spec.startswith("/") for spec in wanted) else []


def ask(run: Run, packages: list[str], driver: bool = False, back: bool = False, root: str = "/",
        more: Iterable[str] = ()) -> Transaction:  # fmt: skip
    """Ask dnf what installing these packages would do; nothing is changed.

    Where it finds no way because of locks, it is asked past them, so that the locked packages can be named.

    :param more: further options of dnf.
    """
    wanted = specs(packages, back, root)
    options = ["--assumeno", *_offline(wanted), *more]
    code, out, err = run([*command(driver, *options), *wanted])
    if code != 0 and _ABORTED not in err + out:
        said = err.strip() or out.strip()
        code, out, err = run([*command(driver, *options, "--disableplugin=versionlock"), *wanted])
        if code != 0 and _ABORTED not in err + out:
            return Transaction(False, [], f"{said}\n{_no_match(out)}".strip())
    return Transaction(True, parse(out, rpm_versions(root)), "")


def _no_match(out: str) -> str:
    return "\n".join(line for line in out.splitlines() if "for argument" in line)


def update(run: Run, tries: int = TRIES, sleep: Callable[[float], None] = time.sleep) -> None:
    """Fetch the lists of all the node's repositories.

    :raises GpufleetError: GF-DNF-UPDATE
    """
    for left in reversed(range(tries)):
        code, out, err = run(["dnf", "-q", "-y", "--refresh", "--setopt=skip_if_unavailable=False", "makecache"])
        if code == 0:
            return
        if left:
            sleep(10)
    raise GpufleetError(
        "GF-DNF-UPDATE",
        f"the package lists cannot be fetched: {err.strip() or out.strip()}",
        "a repository in /etc/yum.repos.d does not answer, or its metadata are damaged",
        "dnf --refresh makecache on the node shows it; mend or disable that repository, then run the playbook again",
    )


def available(run: Run, packages: list[str]) -> set[str]:
    """Those of the packages with headers (``name=version``) that dnf could install, or that are there."""
    names = sorted({package.partition("=")[0] for package in packages})
    if not names:
        return set()
    form = "%{name}=%{version}-%{release}\\n"
    _code, offered, _err = run(["dnf", "-q", "repoquery", "--qf", form, *names])
    _code, there, _err = run(["rpm", "-q", "--qf", form, *names])
    return set(packages) & {*names, *offered.split(), *there.split()}


def require(transaction: Transaction, packages: list[str]) -> None:
    """See that dnf found a way.

    :raises GpufleetError: GF-DKMS-MISSING, GF-DNF-FAILED
    """
    if transaction.known:
        return
    if "nothing provides dkms" in transaction.said:
        raise GpufleetError(
            "GF-DKMS-MISSING",
            "no repository of this node has dkms, with which the driver's kernel module is built",
            "dkms is in EPEL, which is not enabled here, and is not mirrored where the node can reach it",
            "dnf install epel-release (RHEL: its package of that name from the Fedora project), then run the playbook again",
        )
    raise GpufleetError(
        "GF-DNF-FAILED",
        f"dnf finds no way to install {' '.join(packages)}: {transaction.said}",
        "the repository lacks that version, or an installed package excludes it",
        "dnf install with these packages on the node says the same; remove or update what it names",
    )


def install(run: Run, packages: list[str], driver: bool = False, back: bool = False, root: str = "/",
            sleep: Callable[[float], None] = time.sleep, fetch: bool = False) -> None:  # fmt: skip
    """Install what dnf was asked about.

    :param fetch: only bring the packages to the node; the installation finds them in dnf's cache.
    :raises GpufleetError: GF-DNF-FAILED, GF-REPOSITORY-UNTRUSTED
    """
    wanted = specs(packages, back, root)
    offline = _offline(wanted)
    if fetch and offline:
        return
    options = ["--assumeyes", *offline, *(["--downloadonly"] if fetch else [])]
    for left in reversed(range(TRIES)):
        code, out, err = run([*command(driver, *options), *wanted])
        if code == 0:
            return
        if left == 0 or not (code == LOCKED or _NETWORK.search(err + out)):
            break
        sleep(10)
    said = "\n".join((err.strip() or out.strip()).splitlines()[-15:])
    if UNTRUSTED.search(err):
        raise GpufleetError(
            "GF-REPOSITORY-UNTRUSTED",
            f"a package is not signed by the key of its repository: {said}",
            "a mirror that was cut off in the middle of its copy, a changed signing key, or somebody in between",
            "compare the mirror with NVIDIA's own repository; where NVIDIA changed its key, take a newer release of the collection",
        )
    raise GpufleetError(
        "GF-DNF-FAILED",
        f"dnf could not {'fetch' if fetch else 'install'} {' '.join(packages)}: {said}",
        "a mirror that does not answer, a full disk, or a package's own script",
        "dnf install with these packages on the node shows it; then run the playbook again",
    )


def drop(run: Run, names: Iterable[str], root: str = "/") -> list[str]:
    """Remove what has no use any more; what something else needs stays. The names that went.

    :raises GpufleetError: GF-REMOVE-FAILED
    """
    manager = Rpm(run, root)
    there = sorted(manager.present(names))
    needed = manager.needed(there)
    going = [name for name in there if name not in needed]
    if going:
        manager.purge(going)
    return going
