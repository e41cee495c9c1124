#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_repository
short_description: Makes NVIDIA's package repository known to apt or dnf
description:
  - Fetches the repository's key, accepts it only if the file holds the one key of the full fingerprint O(fingerprint) and it has not
    expired, and writes it with an entry of our own that trusts this key for this repository alone.
  - Takes away what names the same repository already (C(*.list), C(*.sources), C(*.repo), the entry of the package C(cuda-keyring)),
    for apt refuses two entries with different keys, and removes the vendor's retired keys from the keyrings that all repositories
    are trusted by. The former files are kept in C(/var/lib/gpufleet/repositories/nvidia.json); O(state=absent) puts them back.
  - Reads the repository once with the new entry. Where that fails, every file is put back and the module ends with an error.
  - With everything in place it touches nothing and needs no network.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is fetched, so a wrong key or a dead mirror shows in a real run only.
  diff_mode:
    support: full
options:
  package_manager:
    description: Whose repository it is.
    type: str
    choices: [apt, dnf]
    required: true
  url:
    description: Full address of the repository's directory, NVIDIA's own or a mirror's. Required for O(state=present).
    type: str
  key_file:
    description: Name of the key's file in that directory. Required for O(state=present).
    type: str
  fingerprint:
    description: Full fingerprint of the key, 40 or 64 hexadecimal digits. Required for O(state=present).
    type: str
  addresses:
    description: Other addresses of the same repository, whose entries are taken away too.
    type: list
    elements: str
    default: []
  retired_keys:
    description: Full fingerprints of keys that nothing is signed with any more.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: Seconds to wait for another package manager to finish.
    type: int
    default: 600
  state:
    description: V(absent) removes our files and puts back those that were taken away.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: Root of the file system that is meant. Another one than V(/) is for tests; its repository is not read.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Make NVIDIA's repository known
  gpufleet.stack.nvidia_repository:
    package_manager: apt
    url: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64
    key_file: 3bf863cc.pub
    fingerprint: EB693B3035CD5710E231E123A4B469963BF863CC
"""

RETURN = r"""
files:
  description: The files of ours, for a receipt.
  returned: always
  type: list
  elements: str
  sample: [/etc/apt/keyrings/gpufleet-nvidia.gpg, /etc/apt/sources.list.d/gpufleet-nvidia.sources]
migrated:
  description: Files of others that lost an entry or a retired key, or got it back.
  returned: always
  type: list
  elements: str
  sample: [/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list]
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    apt_locks,
    commands,
    dnf_locks,
    removal_packages,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.vendor_repository import Change, Wish

TRIES = 3
REFRESH = {
    # Only our own entry: another repository's faults are not ours to report.
    "apt": ["apt-get", "update", "-q", "-o", "Dir::Etc::SourceList={file}", "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", "APT::Get::List-Cleanup=0", "-o", "Acquire::Retries=2"],
    "dnf": ["dnf", "-q", "-y", "--refresh", "--disablerepo=*", "--enablerepo=gpufleet-nvidia", "makecache"],
}  # fmt: skip


def fetch(url: str) -> bytes:
    """The bytes at an address.

    :raises GpufleetError: GF-REPOSITORY-UNREACHABLE.
    """
    reason = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(2**attempt)
        try:
            with open_url(url, timeout=30, headers={"User-Agent": "gpufleet"}) as answer:
                return bytes(answer.read())
        except OSError as error:
            reason = str(getattr(error, "reason", error))
    raise GpufleetError(
        "GF-REPOSITORY-UNREACHABLE",
        f"the key {url} could not be fetched: {reason}",
        "the node has no way to it (network, proxy), or the mirror lacks this distribution",
        f"on the node: curl -I {url}; set nvidia_repository_url to a mirror that the node reaches",
    )


def refresh(module: AnsibleModule, wish: Wish) -> None:
    """Read the repository with its new entry, once nobody else has the package manager's lock."""
    run = commands.runner(module)
    command = [part.format(file=wish.source_file) for part in REFRESH[wish.family]]
    until = time.monotonic() + module.params["lock_timeout"]
    code, out, err = run(command)
    while code and "Could not get lock" in err and time.monotonic() < until:
        time.sleep(5)
        code, out, err = run(command)
    vendor_repository.judge(wish.url, code, out + err)


def wanted(module: AnsibleModule) -> Wish:
    """The options as the functions take them."""
    params = module.params
    url = params["url"].rstrip("/")
    return Wish(
        family=params["package_manager"],
        url=url,
        key_url=f"{url}/{params['key_file']}",
        fingerprint=params["fingerprint"].upper(),
        addresses=params["addresses"],
        retired=params["retired_keys"],
    )


def converge(module: AnsibleModule) -> list[Change]:
    """Do what is wanted and answer which files changed."""
    root = module.params["root"]
    if module.params["state"] == "absent":
        return forget(module, root)
    wish = wanted(module)
    changes = vendor_repository.plan(wish, fetch, root, module.check_mode)
    if changes and not module.check_mode:
        wait = {"apt": apt_locks.wait, "dnf": dnf_locks.wait}[wish.family]
        wait(module.params["lock_timeout"], root)
        trusted = any(change.path == wish.key_file for change in changes) and is_trusted(module, wish)
        vendor_repository.carry_out(changes, lambda: refresh(module, wish) if root == "/" else None, root)
        if trusted:
            vendor_repository.note_key(root)
    return changes


def forget(module: AnsibleModule, root: str) -> list[Change]:
    """Put back what others' files were, and take the key out of rpm's database that it took over from our entry."""
    keys = vendor_repository.imported_keys(root)
    changes = vendor_repository.restore(root, module.check_mode)
    if keys and root == "/" and not module.check_mode:
        removal_packages.manager_of(commands.runner(module)).distrust(keys)
    return changes


def is_trusted(module: AnsibleModule, wish: Wish) -> bool:
    """Whether rpm has the key already, as it takes it over from any repository's entry."""
    if wish.family != "dnf":
        return False
    code, _out, _err = commands.runner(module)(["rpm", "-q", f"gpg-pubkey-{wish.fingerprint[-8:].lower()}"])
    return code == 0


def difference(change: Change) -> dict[str, str]:
    """A file's change as a diff; keys are bytes that nobody reads."""
    before, after = (
        "(a keyring)\n" if data and b"\0" in data else (data or b"").decode("utf-8", "replace")
        for data in (change.before, change.after)
    )
    return {"before_header": change.path, "after_header": change.path, "before": before, "after": after}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "package_manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "url": {"type": "str"},
            "key_file": {"type": "str", "no_log": False},
            "fingerprint": {"type": "str"},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "retired_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "lock_timeout": {"type": "int", "default": 600},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "present", ["url", "key_file", "fingerprint"])],
        supports_check_mode=True,
    )
    try:
        changes = converge(module)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a file'} cannot be written: {error.strerror}")
    family = module.params["package_manager"]
    ours = [vendor_repository.KEY_FILES[family], vendor_repository.SOURCE_FILES[family]]
    module.exit_json(
        changed=bool(changes),
        files=ours if module.params["state"] == "present" else [],
        migrated=[change.path for change in changes if change.path not in [*ours, "/" + vendor_repository.NOTE]],
        diff=[difference(change) for change in changes],
    )


if __name__ == "__main__":
    main()
