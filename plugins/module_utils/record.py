# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records a node: an archive of the files that the facts read, from which they can be read again elsewhere.

Private to the collection. Works where Ansible does not: from a copy of the collection, Python 3.8 alone runs it::

    PYTHONPATH=collections python3 -m ansible_collections.gpufleet.stack.plugins.module_utils.record -o node.tar.gz
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import tarfile
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver,
    gpu_health,
    gpu_usage,
    kernel,
    node,
    nvml,
    packages,
    pci,
    record_texts,
    shell_variables,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.record_rules import About, rules
from ansible_collections.gpufleet.stack.plugins.module_utils.record_scrub import Scrubber
from ansible_collections.gpufleet.stack.plugins.module_utils.record_tree import Entry, Tree, matching
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

NVML_RECORD = ".gpufleet/nvml.json"
# Names of processes that say nothing of whose work it is; the driver's own services are among them.
_COMMON = re.compile(
    r"^(systemd|init|python[\d.]*|pt_\w+|Xorg|gnome-shell|nvidia-.*|nv-.*|dcgm.*|ray::.*|ollama|tritonserver)$"
)


def _about(system: Sysroot, prefix: str) -> About:
    release = kernel.release(system.root)
    nvidia = [
        path
        for path in system.listing("/sys/bus/pci/devices")
        if (system.text(path + "/vendor") or "").strip() == pci.NVIDIA
    ]
    ids = {(system.text(path + "/device") or "").strip()[2:] for path in nvidia}
    base = f"/lib/modules/{release}"
    dependencies = (system.text(base + "/modules.dep", 64 * 1024 * 1024) or "").splitlines() if release else []
    modules = [line.split(":", 1)[0] for line in dependencies if "nvidia" in line]
    return About(
        prefix=prefix,
        release=release,
        ld_library_path=shell_variables.read(system)["ld_library_path"],
        pci_addresses=[os.path.basename(path) for path in nvidia],
        pci_device_ids=sorted(ids - {""}),
        module_files=[os.path.join(base, path) for path in modules if path.endswith(".ko")],
    )


def _nvml(root: str, live: bool, timeout: float) -> dict[str, Any] | None:
    """What NVML says on the node; of a node that was recorded, what it said then."""
    if not live:
        answer = nvml.recorded(root)
        return dict(answer._asdict()) if answer is not None else None
    if kernel.virtualization(root) == "wsl" and os.path.exists(nvml.WSL_LIBRARY):
        return dict(nvml.ask(nvml.WSL_LIBRARY, timeout)._asdict())
    return dict(nvml.ask(nvml.LIBRARY, timeout)._asdict()) if driver.loaded(root).version else None


def _processes(system: Sysroot, tree: Tree, known: list[int]) -> None:
    """Who uses a GPU, and which of the driver's services run; a name that might tell more is not kept."""
    seen = gpu_usage.look(system.root, driver.loaded(system.root).version is not None)
    for path in system.listing("/proc", "[0-9]*"):
        pid, name = os.path.basename(path), gpu_usage.name_of(system.root, int(os.path.basename(path)))
        if int(pid) in seen.holders or int(pid) in known or name in (seen.services or ()):
            tree.put_text(f"/proc/{pid}/comm", (name if name and _COMMON.match(name) else "process") + "\n")
        if int(pid) in seen.holders:
            tree.entries[f"proc/{pid}/fd/3"] = "/dev/nvidia0"


def gather(sysroot: str = "/", prefix: str = "/opt/gpufleet", nvml_timeout: float = 5.0) -> dict[str, Entry]:
    """The whole record as paths and what stands there.

    :param sysroot: record the node below this directory instead of this machine.
    :param prefix: where the collection installs, as the node sees it.
    :param nvml_timeout: seconds after which NVML is abandoned.
    """
    live, prefix = os.path.abspath(sysroot) == "/", prefix.rstrip("/")
    system = Sysroot(sysroot)
    scrubber = Scrubber.of(system, live)
    tree = Tree(system, scrubber)
    for rule in rules(_about(system, prefix)):
        for path in matching(system, rule.pattern):
            tree.add(rule, path)
    answer = _nvml(sysroot, live, nvml_timeout)
    pids = [each["pid"] for device in (answer or {}).get("devices", []) for each in device.get("processes") or []]
    _processes(system, tree, pids)
    if answer is not None:
        tree.put_text(NVML_RECORD, _json(scrubber.data(answer)))
    facts = node.collect(prefix, sysroot)
    tree.put_text(node.RECORD, _json(scrubber.data({key: facts[key] for key in node.RECORDED})))
    rpm = packages.rpm_versions(sysroot)
    if rpm:
        kept = {name: version for name, version in sorted(rpm.items()) if record_texts.PACKAGES.search(name)}
        tree.put_text(packages.RECORDED_RPM, _json(kept))
    log = gpu_health.kernel_log() if live else None
    if log is not None:
        tree.put_text("/var/log/dmesg", scrubber.text(record_texts.kernel_log(log).decode("utf-8", "replace")))
    return tree.entries


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, sort_keys=True) + "\n"


def write(entries: dict[str, Entry], path: str) -> None:
    """Writes a record as an archive; the same record gives the same archive, and only its owner can read it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in sorted(entries):
            entry, member = entries[name], tarfile.TarInfo(name)
            member.mode = 0o644
            if entry is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(entry, str):
                member.type, member.linkname = tarfile.SYMTYPE, entry
            else:
                member.size = len(entry)
            archive.addfile(member, io.BytesIO(entry) if isinstance(entry, bytes) else None)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Record what the facts of gpufleet.stack read on this machine.")
    parser.add_argument("-o", "--output", required=True, help="the archive to write")
    parser.add_argument("--sysroot", default="/", help="record the node below this directory")
    parser.add_argument("--prefix", default="/opt/gpufleet", help="where the collection installs")
    options = parser.parse_args(arguments)
    entries = gather(options.sysroot, options.prefix)
    write(entries, options.output)
    sys.stdout.write(f"{options.output}: {len(entries)} entries. Look through it before you hand it on.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
