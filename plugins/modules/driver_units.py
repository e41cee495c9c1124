#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_units
short_description: Looks after the services of the NVIDIA driver
description:
  - Adds to each unit what has to be there for it to start, so that on a node without a GPU it is skipped and does not fail
    (C(50-gpufleet.conf) beside the unit). Written before the packages, it also keeps their own installation from failing.
  - Enables the units, and proves that the packages which have to be of exactly the driver's version are.
  - Starts them, where that is asked for.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  units:
    description: The units.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, with its type.
        type: str
        required: true
      paths:
        description: Paths or patterns of which each has to be there.
        type: list
        elements: str
        default: []
      optional:
        description: Whether a release of the software may lack the unit.
        type: bool
        default: false
  state:
    description: How far to go. Each step has those before it.
    type: str
    choices: [quiet, enabled, started]
    default: enabled
  tied:
    description: Packages that have to be of exactly the driver's version.
    type: list
    elements: str
    default: []
  version:
    description: The driver's version; without it nothing is compared.
    type: str
"""

EXAMPLES = r"""
- name: Have the fabric manager run on nodes with switches only
  gpufleet.stack.driver_units:
    units:
      - name: nvidia-fabricmanager.service
        paths: [/proc/driver/nvidia-nvswitch/devices/*]
    tied: [nvidia-fabricmanager]
    version: 580.95.05
"""

RETURN = r"""
files:
  description: The files of ours, for a receipt.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/nvidia-fabricmanager.service.d/50-gpufleet.conf]
links:
  description: The links that make the units start at boot, for a receipt.
  returned: success
  type: list
  elements: str
  sample: [/etc/systemd/system/multi-user.target.wants/nvidia-fabricmanager.service]
states:
  description: What was done with each unit (C(enabled), C(kept), C(started), C(running), C(skipped), C(absent)).
  returned: success
  type: dict
  sample: {"nvidia-fabricmanager.service": "enabled"}
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-DRIVER-UNIT", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_units
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    unit_options = {
        "name": {"type": "str", "required": True},
        "paths": {"type": "list", "elements": "str", "default": []},
        "optional": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "default": [], "options": unit_options},
            "state": {"type": "str", "choices": ["quiet", "enabled", "started"], "default": "enabled"},
            "tied": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str"},
        },
        supports_check_mode=True,
    )
    params, dry, run = module.params, module.check_mode, commands.runner(module)
    units = [driver_units.Unit(each["name"], each["paths"], each["optional"]) for each in params["units"]]
    states: dict[str, str] = {}
    try:
        changed = driver_units.quiet(units, dry=dry)
        if changed and not dry:
            driver_units.reload(run)
        if params["state"] != "quiet":
            if params["version"] and not dry:
                driver_units.check_versions(params["tied"], params["version"])
            states = driver_units.enable(units, run, dry=dry)
        did = bool(changed) or "enabled" in states.values()
        if params["state"] == "started":
            states = driver_units.start(units, run, dry=dry)
            did = did or "started" in states.values()
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or driver_units.SYSTEM} cannot be written: {error.strerror}")
    module.exit_json(
        changed=did,
        files=[driver_units.dropin_path(unit.name) for unit in units],
        links=driver_units.links(units),
        states=states,
    )


if __name__ == "__main__":
    main()
