# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Receipts: what a role left on a node, and whether it is still so. Private to the collection.

A receipt holds only while the wish is the same (its digest, compared on the controller) and the node is as the
role left it (``check``, run on the node by the probe).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from typing import Any, Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import driver_state, kernel, package_hold
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.packages import installed_versions

SCHEMA = 1
STATE_DIR = "/var/lib/gpufleet"


def receipt_path(state_dir: str, role: str) -> str:
    """Where the receipt of ``role`` lies."""
    return os.path.join(state_dir, "receipts", role + ".json")


def file_digest(path: str) -> str | None:
    """SHA-256 of a regular file as hex, or None where there is no such file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as handle:
            for block in iter(lambda: handle.read(1 << 20), b""):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def link_target(path: str) -> str | None:
    """What a symbolic link points to, or None where there is no link."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def tree_state(path: str) -> dict[str, Any] | None:
    """Entries and digest of a directory tree, or None where there is none.

    The digest covers every relative path with size, modification time (ns) and link target. It reads no file's
    content: 15,000 files take a fraction of a second. ``__pycache__`` is left out, since Python writes there by itself.
    """
    if not os.path.isdir(path):
        return None
    digest = hashlib.sha256()
    entries = 0
    for line in _tree_lines(path, ""):
        digest.update(line.encode("utf-8", "surrogateescape"))
        entries += 1
    return {"entries": entries, "digest": digest.hexdigest()}


def _tree_lines(root: str, relative: str) -> Iterable[str]:
    with os.scandir(os.path.join(root, relative)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = os.path.join(relative, entry.name)
        if entry.is_symlink():
            yield f"{name}\0{os.readlink(entry.path)}\n"
        elif entry.is_dir():
            if entry.name != "__pycache__":
                yield f"{name}/\n"
                yield from _tree_lines(root, name)
        else:
            stat = entry.stat(follow_symlinks=False)
            yield f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"


def module_version(name: str) -> str | None:
    """Version of a loaded kernel module, or None."""
    try:
        with open(f"/sys/module/{name}/version", encoding="utf-8") as handle:
            return handle.read().strip()
    except OSError:
        return None


def driven_kernels(root: str = "/") -> dict[str, bool]:
    """Whether each installed kernel has the NVIDIA driver's module."""
    return {
        each["release"]: driver_state.module_file(each["release"], root) is not None for each in kernel.installed(root)
    }


def measure(
    role: str,
    digest: str,
    packages: list[str],
    files: list[str],
    links: list[str],
    trees: list[str],
    kernel_modules: list[str],
    holds: Iterable[str] = (),
    kernels: bool = False,
) -> dict[str, Any]:
    """Make the receipt of what is on the node now.

    :param kernels: whether the role brought the driver's modules; a kernel that has none now is known to lack it.
    :raises GpufleetError: GF-RECEIPT-INCOMPLETE where something that the role says it left is not there.
    """
    versions = installed_versions(packages) if packages else {}
    receipt: dict[str, Any] = {
        "schema": SCHEMA,
        "role": role,
        "digest": digest,
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": {name: versions.get(name) for name in sorted(packages)},
        "files": {path: file_digest(path) for path in sorted(files)},
        "links": {path: link_target(path) for path in sorted(links)},
        "trees": {path: tree_state(path) for path in sorted(trees)},
        "kernel_modules": {name: module_version(name) for name in sorted(kernel_modules)},
        "holds": {name: is_held or None for name, is_held in sorted(package_hold.held(holds).items())} if holds else {},
    }
    if kernels:
        receipt["kernels"] = driven_kernels()
    missing = [
        f"{kind[:-1].replace('_', ' ')} {name}"
        for kind in ("packages", "files", "links", "trees", "kernel_modules", "holds")
        for name, state in receipt[kind].items()
        if state is None
    ]
    if missing:
        raise GpufleetError(
            "GF-RECEIPT-INCOMPLETE",
            f"the role {role} ended without: {', '.join(missing)}",
            "something removed it while the role ran, or the role did not finish its work",
            "run the playbook again; if it stays, run it with -vv and report the output",
        )
    return receipt


def check(receipt: dict[str, Any]) -> list[str]:
    """What is no longer as the receipt says: one sentence each, empty when it holds."""
    drift: list[str] = []
    wanted = receipt.get("packages", {})
    found = installed_versions(list(wanted)) if wanted else {}
    for name, version in wanted.items():
        if found.get(name) != version:
            drift.append(f"package {name} was {version}, is {found.get(name) or 'not installed'}")
    for path, digest in receipt.get("files", {}).items():
        now = file_digest(path)
        if now != digest:
            drift.append(f"file {path} {'is gone' if now is None else 'was edited'}")
    for path, target in receipt.get("links", {}).items():
        now = link_target(path)
        if now != target:
            drift.append(f"link {path} pointed to {target}, " + (f"points to {now}" if now else "is gone"))
    holds = receipt.get("holds", {})
    for name, is_held in (package_hold.held(holds) if holds else {}).items():
        if not is_held:
            drift.append(f"package {name} was held, is not")
    known: dict[str, bool] = receipt.get("kernels", {})
    for release, has_module in (driven_kernels() if "kernels" in receipt else {}).items():
        if not has_module and known.get(release) is not False:
            drift.append(f"kernel {release} has no NVIDIA module")
    for path, state in receipt.get("trees", {}).items():
        now_tree = tree_state(path)
        if now_tree != state:
            drift.append(f"directory {path} {'is gone' if now_tree is None else 'was changed'}")
    return drift


def lacking(receipt: dict[str, Any]) -> list[str]:
    """The kernels for which the role could not make a module, and that still have none."""
    known = [release for release, has_module in receipt.get("kernels", {}).items() if not has_module]
    now = driven_kernels() if known else {}
    return [release for release in known if now.get(release) is False]


def write_json(path: str, data: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old document or the new one, never half of one."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a file that is whole at any time, and that everybody may read."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: str) -> dict[str, Any] | None:
    """A JSON object from a file; None where it is missing, damaged or not an object (the work is then done again)."""
    try:
        with open(path, encoding="utf-8") as handle:
            data = json.load(handle)
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def read_all(state_dir: str) -> dict[str, dict[str, Any]]:
    """``{role: {digest, holds, drift, lacking}}`` for each receipt found in ``state_dir``."""
    directory = os.path.join(state_dir, "receipts")
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json") and not name.startswith("."))
    except OSError:
        return {}
    answers: dict[str, dict[str, Any]] = {}
    for name in names:
        receipt = read_json(os.path.join(directory, name))
        if receipt is None or receipt.get("schema") != SCHEMA:
            answers[name[:-5]] = {
                "digest": None,
                "holds": False,
                "drift": ["the receipt cannot be read"],
                "lacking": [],
            }
            continue
        drift = check(receipt)
        answers[name[:-5]] = {
            "digest": receipt.get("digest"),
            "holds": not drift,
            "drift": drift,
            "lacking": lacking(receipt),
        }
    return answers
