#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_version
short_description: Finds one version for all packages of the driver, and keeps apt on it
description:
  - Asks apt which versions of some packages it knows, and takes the one that is installed where that fits, else apt's own choice,
    else the newest that all of the packages have. Fails where there is none, before anything is installed.
  - Writes C(/etc/apt/preferences.d/gpufleet-driver-version) where apt has to be kept on that version, and removes it where not.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  names:
    description: The packages that are about to be installed. They are answered with their versions put in.
    type: list
    elements: str
    default: []
  match:
    description: Which of them need one version. Without it, no file of ours stays.
    type: dict
    suboptions:
      lead:
        description: The package whose version is that of the driver.
        type: str
        required: true
      series:
        description: The version that is wanted, or its branch.
        type: str
        required: true
      packages:
        description: The packages that have to be of one version.
        type: list
        elements: str
        required: true
      pin:
        description: Whether apt has to be kept on that version.
        type: bool
        required: true
  lock_timeout:
    description: Seconds to wait for another apt before package lists are fetched.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Find driver 580.95.05 with its fabric manager
  gpufleet.stack.driver_version:
    names: [linux-headers-amd64, nvidia-open-580, nvidia-fabricmanager]
    match:
      lead: nvidia-open-580
      series: 580.95.05
      packages: [nvidia-open-580, nvidia-fabricmanager]
      pin: true
"""

RETURN = r"""
packages:
  description: O(names) with the versions put in.
  returned: success
  type: list
  elements: str
  sample: [linux-headers-amd64, nvidia-open-580=580.95.05-1, nvidia-fabricmanager=580.95.05-1]
version:
  description: The driver's version, null where no one version is needed or a dry run cannot know it yet.
  returned: success
  type: str
  sample: 580.95.05
files:
  description: The files of ours, for a receipt.
  returned: success
  type: list
  elements: str
  sample: [/etc/apt/preferences.d/gpufleet-driver-version]
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-DRIVER-VERSION-ABSENT", "message": "...", "cause": "...", "fix": "..."}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    apt_locks,
    commands,
    driver_version,
    package_transaction,
    vendor_repository,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_packages import upstream
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def find(module: AnsibleModule, match: dict[str, Any]) -> dict[str, str]:
    """The version of each package that needs one; a dry run that cannot know it yet says nothing."""
    run = commands.runner(module)

    def look() -> dict[str, str]:
        known = driver_version.policies(run, match["packages"], driver_version.PREFERENCES)
        return driver_version.choose(known, match["lead"], match["series"])

    try:
        return look()
    except GpufleetError:
        if module.check_mode:
            return {}
    # The lists may be older than the version.
    apt_locks.wait(module.params["lock_timeout"])
    package_transaction.update(run)
    return look()


def main() -> None:
    """Entry point of the module."""
    match_options = {
        "lead": {"type": "str", "required": True},
        "series": {"type": "str", "required": True},
        "packages": {"type": "list", "elements": "str", "required": True},
        "pin": {"type": "bool", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "match": {"type": "dict", "options": match_options},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    match, names = module.params["match"], module.params["names"]
    versions: dict[str, str] = {}
    version = driver_version.given(names, match["lead"]) if match else None
    try:
        if match and version is None:
            versions = find(module, match)
            version = upstream(versions[match["lead"]]) if versions else None
        path = driver_version.PREFERENCES
        wanted = driver_version.text(version) if match and match["pin"] and version else None
        before = vendor_repository.content("/", path)
        after = wanted.encode() if wanted else None
        # Nothing is known in a dry run: the file stays in the diff as it is.
        if module.check_mode and match and version is None:
            after = before
        if after != before and not module.check_mode:
            vendor_repository.write("/", path, after)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path} cannot be written: {error.strerror}")
    module.exit_json(
        changed=after != before,
        packages=driver_version.named(names, versions),
        version=version,
        files=[path] if after is not None else [],
        diff={"before": (before or b"").decode(), "after": (after or b"").decode(), "after_header": path},
    )


if __name__ == "__main__":
    main()
