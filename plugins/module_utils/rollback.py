# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stage can go back to, from what is kept on the node. Private to the collection.

A receipt that another one takes the place of is kept as the former one, with the part of the plan that made it. Going back is
the role's own work with that part of the plan and the packages' former versions. What apt still has in its cache of
packages is made a source of its own, so that nothing of it is downloaded again; dnf takes the files of its cache as they are.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from typing import Any, Iterable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    dnf_transaction,
    receipts,
    removal_baseline,
    runfile,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions, of_rpm, present

# What a role needs of a stage to carry it out again. Addresses of indexes and mirrors, which may hold passwords, are not kept.
KEPT = {
    "nvidia_driver": (
        "version", "source", "flavour", "components", "packages", "obsolete", "blacklist", "kernel_release", "sysroot",
        "hold", "hold_kernel", "reboot", "digest", "wanted", "parts", "match", "module_stream", "versionlock",
        "modules", "suite", "installer",
    ),
    "cuda_toolkit": ("default", "toolkits", "profile", "modulefiles", "hold", "digest", "wanted"),
    "pytorch": ("environments", "cache_dir", "profile", "modulefiles", "kernels", "keep", "digest", "wanted"),
}  # fmt: skip
KEPT_OF_INSTALLER = ("sha256", "version", "architecture", "options", "optional")
KEPT_OF_TOOLKIT = ("version", "full_version", "source", "layout", "path", "packages", "components", "suite")
KEPT_OF_ENVIRONMENT = ("name", "path", "link", "torch_version", "module")
# In place of a digest: no plan has it, so the next run of site.yml brings the repository again.
NO_REPOSITORY = "went back without its repository"
CACHE = "var/cache/apt/archives"
DIRECTORY = "var/lib/gpufleet/rollback"
SOURCE = "etc/apt/sources.list.d/gpufleet-rollback.sources"


class Way(NamedTuple):
    """How to go back: the stage for the role, what it goes back to in words, and the packages that nobody has to fetch.

    ``automatic`` are those that nobody asked for by name: they came for others' sake.
    """

    stage: dict[str, Any]
    back_to: str
    cached: list[str]
    automatic: list[str]


def keepable(role: str, stage: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part of a stage that a receipt keeps; None for roles that do not go back."""
    if not stage or role not in KEPT:
        return None
    kept = {key: stage[key] for key in KEPT[role] if key in stage}
    if "toolkits" in kept:
        kept["toolkits"] = [{key: each[key] for key in KEPT_OF_TOOLKIT if key in each} for each in kept["toolkits"]]
    if "environments" in kept:
        # Neither locks nor indexes: what goes back is on the node.
        kept["environments"] = [
            {key: each[key] for key in KEPT_OF_ENVIRONMENT if key in each} for each in kept["environments"]
        ]
    if kept.get("installer"):
        kept["installer"] = {key: kept["installer"][key] for key in KEPT_OF_INSTALLER}
    return kept


def former_path(state_dir: str, role: str) -> str:
    """Where the former receipt of a role lies."""
    return os.path.join(state_dir, "former", role + ".json")


def keep_former(state_dir: str, former: dict[str, Any] | None, receipt: dict[str, Any]) -> None:
    """Keep a receipt that makes way for another: one of the same wish and the same packages is nothing to go back to."""
    if former is None or not former.get("stage") or former.get("digest") == "removed":
        return
    # Of environments what counts is where their links lead: another wish may leave all of them active.
    what = "links" if receipt["role"] == "pytorch" else "packages"
    same_wish = former["digest"] == receipt["digest"] or receipt["role"] == "pytorch"
    if former["digest"] == NO_REPOSITORY:  # the repository came again, with the packages that had come back without it
        same_wish, what = True, "versions"
    if not same_wish or former.get(what) != receipt[what]:
        receipts.write_json(former_path(state_dir, receipt["role"]), former)


def find(role: str, state_dir: str, run: Run, root: str = "/", unfinished: bool = False, dry: bool = False) -> Way:
    """What the role can go back to, made ready.

    :param unfinished: not to the former receipt but to the present one, from work that was begun and failed.
    :param dry: write nothing; whether apt has everything is not found out then.
    :raises GpufleetError: GF-ROLLBACK-NOTHING, GF-ROLLBACK-UNAVAILABLE
    """
    state = os.path.join(root, state_dir.lstrip("/"))
    path = receipts.receipt_path(state, role) if unfinished else former_path(state, role)
    receipt = receipts.read_json(path) or {}
    if not receipt.get("stage"):
        raise GpufleetError(
            "GF-ROLLBACK-NOTHING",
            f"there is no former {role} that this node could go back to",
            "the collection installed it once only, or the receipt is of a release that kept nothing",
            "name the version: nvidia_driver_version, cuda_toolkit_version or pytorch_version, and run the playbook",
        )
    if role == "cuda_toolkit":
        return _toolkit(receipt, root)
    if role == "pytorch":
        return _environments(receipt, root)
    return _driver(receipt, state, run, root, dry)


def _toolkit(receipt: dict[str, Any], root: str) -> Way:
    """Toolkits stay on the disk: what goes back is the default and what the receipt says."""
    stage = receipt["stage"]
    gone = [
        each["path"] for each in stage["toolkits"] if not os.path.isdir(os.path.join(root, each["path"].lstrip("/")))
    ]
    if gone:
        raise _unavailable(f"{', '.join(gone)} is not there any more", "cuda_toolkit_version and run the playbook")
    return Way({**stage, "needed": True}, f"CUDA toolkit {stage['default']}", [], [])


def _environments(receipt: dict[str, Any], root: str) -> Way:
    """Former environments stay beside the active ones; one that was changed since was not proved as it is."""
    stage = receipt["stage"]
    for each in stage["environments"]:
        known = receipt.get("trees", {}).get(each["path"])
        now = receipts.tree_state(os.path.join(root, each["path"].lstrip("/")))
        if now is None or now != known:
            what = "is not there any more" if now is None else "was changed since"
            raise _unavailable(f"{each['path']} {what}", "pytorch_version and run the playbook")
    named = ", ".join(f"torch {each['torch_version']} ({each['name']})" for each in stage["environments"])
    return Way({**stage, "needed": True}, named, [], [])


def _unavailable(what: str, variable: str) -> GpufleetError:
    return GpufleetError(
        "GF-ROLLBACK-UNAVAILABLE",
        f"what this node had before cannot be had any more: {what}",
        "the package manager's cache was cleaned and the archive has newer versions only, or the files were removed",
        f"name a version that can be had: {variable}",
    )


def own(versions: dict[str, str], packages: Iterable[str]) -> dict[str, str]:
    """The packages of one driver among ``versions``: those with the driver's own version, which have to match each other."""
    # A kernel's release can look like the version of a driver.
    names = [name for name in map(_plain, packages) if name in versions and not name.startswith("kernel-")]
    named = [upstream(versions[name]) for name in names]
    version = next((each for each in named if each), None)
    return {name: each for name, each in versions.items() if version and upstream(each) == version}


def _plain(package: str) -> str:
    return package.partition("=")[0]


def _replaced(stage: dict[str, Any], state: str) -> dict[str, Any] | None:
    """The present driver, where it is from another source or of an installer: it goes first."""
    now = (receipts.read_json(receipts.receipt_path(state, "nvidia_driver")) or {}).get("stage") or {}
    source = now.get("source")
    if source is None or (source == stage.get("source") and source != "runfile"):
        return None
    return {"source": source, "version": now["version"], "packages": []}


def _installer(receipt: dict[str, Any], state: str, root: str) -> Way:
    """A driver of NVIDIA's installer, which is kept on the node."""
    stage = receipt["stage"]
    installer = stage["installer"]
    path = runfile.cached_path("nvidia_driver", installer["sha256"])
    if receipts.file_digest(os.path.join(root, path.lstrip("/"))) != installer["sha256"]:
        raise _unavailable(f"{path} is not there any more", "nvidia_driver_runfile and run the playbook")
    extra: dict[str, Any] = {"needed": True, "repository": None, "pin": None, "back": True, "obsolete": []}
    sources = {"installer": {**installer, "url": path}, "replaces": _replaced(stage, state)}
    return Way({**stage, **extra, **sources}, f"driver {stage['version']} of NVIDIA's installer", [], [])


def _driver(receipt: dict[str, Any], state: str, run: Run, root: str, dry: bool) -> Way:
    stage = receipt["stage"]
    if stage.get("source") == "runfile":
        return _installer(receipt, state, root)
    versions = receipt.get("versions", {})
    wanted = own(versions, stage["packages"])
    installed = installed_versions(root=root)
    packages = [f"{name}={version}" for name, version in sorted(wanted.items())]
    rest = [package for package in stage["packages"] if _plain(package) not in wanted]
    # With dnf a bare name would mean the newest: headers of another kernel.
    packages += rest if of_rpm(root) else map(_plain, rest)
    lacking = {name: version for name, version in versions.items() if installed.get(name) != version}
    files = dnf_transaction.cached(lacking, root) if of_rpm(root) else cached(lacking, root)
    if not dry:
        said = _rpms(packages, run, root) if of_rpm(root) else _debs(files, packages, run, root)
        if said:
            raise _unavailable(said, "nvidia_driver_version and run the playbook")
    now = receipts.read_json(receipts.receipt_path(state, "nvidia_driver")) or {}
    others = set(own(now.get("versions", {}), now.get("packages", {}))) | _came_since(state, root)
    obsolete = sorted(
        {*stage.get("obsolete", []), *others} - set(versions) - {_plain(name) for name in stage["packages"]}
    )
    # No repository: what is kept is the only place that has to answer.
    extra = {"packages": packages, "obsolete": obsolete, "needed": True, "repository": None, "pin": None, "back": True}
    extra.update(installer=None, replaces=_replaced(stage, state))
    if _left_its_repository(stage, root):
        extra["digest"] = NO_REPOSITORY
    automatic = sorted(set(wanted) - {_plain(name) for name in receipt.get("packages", {})})
    return Way({**stage, **extra}, f"driver {next(iter(wanted.values()), stage['version'])}", sorted(files), automatic)


def _left_its_repository(stage: dict[str, Any], root: str) -> bool:
    """Whether NVIDIA's packages come back to a node that has no entry of NVIDIA's repository any more."""
    entries = vendor_repository.SOURCE_FILES.values()
    return stage.get("source") == "nvidia" and all(vendor_repository.content(root, path) is None for path in entries)


def _debs(files: dict[str, str], packages: list[str], run: Run, root: str) -> str:
    """Make apt a source of the files; what apt says where it finds no way to install the packages, else nothing."""
    offer(list(files.values()), run, root)
    code, out, err = run(_simulation(packages))
    if code != 0:
        withdraw(root)
    return (err.strip() or out.strip()) if code != 0 else ""


def _rpms(packages: list[str], run: Run, root: str) -> str:
    """What dnf says where it finds no way to install the packages. The stream that they are of is enabled later."""
    every_stream = f"--setopt={dnf_transaction.REPOSITORY}.module_hotfixes=True"
    transaction = dnf_transaction.ask(run, packages, driver=True, back=True, root=root, more=[every_stream])
    return "" if transaction.known else transaction.said


def _came_since(state: str, root: str) -> set[str]:
    """Packages that came since a role began its work and did not end it."""
    baseline = receipts.read_json(removal_baseline.baseline_path(state, "nvidia_driver"))
    if baseline is None:
        return set()
    return present(root) - set(baseline.get("installed", []))


def _simulation(packages: list[str]) -> list[str]:
    options = ["--simulate", "--assume-yes", "--no-install-recommends", "--allow-downgrades"]
    held = ["-o", "APT::Ignore-Hold=true", "--allow-change-held-packages"]
    return ["apt-get", "install", *options, *held, "--", *packages]


def cached(versions: dict[str, str], root: str = "/") -> dict[str, str]:
    """Of these packages those that apt's cache has in that version, with their files."""
    found = {}
    for name, version in versions.items():
        pattern = f"{glob.escape(name + '_' + version.replace(':', '%3a'))}_*.deb"
        files = glob.glob(os.path.join(glob.escape(os.path.join(root, CACHE)), pattern))
        if files:
            found[name] = sorted(files)[0]
    return found


def offer(debs: list[str], run: Run, root: str = "/") -> None:
    """Make a source of packages from these files, and have apt know it."""
    withdraw(root)
    directory = os.path.join(root, DIRECTORY)
    os.makedirs(directory, mode=0o755)
    entries = [entry for entry in (_entry(deb, directory, run) for deb in debs) if entry]
    with open(os.path.join(directory, "Packages"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(entries))
    source = os.path.join(root, SOURCE)
    os.makedirs(os.path.dirname(source), exist_ok=True)
    with open(source, "w", encoding="utf-8") as stream:
        stream.write(
            f"# Written by gpufleet.stack while it goes back.\nTypes: deb\nURIs: file:{directory}\nSuites: ./\nTrusted: yes\n"
        )
    # This source only: the others need not answer.
    only = ["-o", f"Dir::Etc::sourcelist={source}", "-o", "Dir::Etc::sourceparts=-", "-o", "APT::Get::List-Cleanup=0"]
    code, out, err = run(["apt-get", "update", "-q", *only])
    if code != 0:
        withdraw(root)
        raise _unavailable(err.strip() or out.strip(), "nvidia_driver_version and run the playbook")


def _entry(deb: str, directory: str, run: Run) -> str | None:
    """A file's paragraph in the index; None for one that is damaged."""
    code, fields, _err = run(["dpkg-deb", "--field", deb])
    # The whole of it: a file that was cut off has its fields still.
    if code != 0 or run(["dpkg-deb", "--contents", deb])[0] != 0:
        return None
    name = os.path.basename(deb)
    os.symlink(os.path.realpath(deb), os.path.join(directory, name))
    digest = hashlib.sha256()
    with open(deb, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return f"{fields.rstrip()}\nFilename: ./{name}\nSize: {os.path.getsize(deb)}\nSHA256: {digest.hexdigest()}\n"


def withdraw(root: str = "/") -> bool:
    """Take the source away again; whether there was one."""
    directory = os.path.join(root, DIRECTORY)
    lists = os.path.join(glob.escape(os.path.join(root, "var/lib/apt/lists")), "*_gpufleet_rollback_*")
    paths = [os.path.join(root, SOURCE), *glob.glob(lists)]
    there = [path for path in paths if os.path.lexists(path)]
    for path in there:
        os.unlink(path)
    if os.path.isdir(directory):
        shutil.rmtree(directory)
        return True
    return bool(there)
