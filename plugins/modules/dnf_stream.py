#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: dnf_stream
short_description: Enables a stream of a dnf module
description:
  - Enables the stream in place of another one that may be enabled. No package is changed; the installation that follows brings
    the stream's packages.
  - Where the stream is not to be had, the former one stays enabled.
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
  name:
    description: Module and stream, C(module:stream). Without a stream none will be enabled.
    type: str
    required: true
  cached:
    description: Whether the lists that dnf has are taken as they are, without a network, where they do.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for another dnf.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Let the packages of branch 570 with open kernel modules be the ones that dnf sees
  gpufleet.stack.dnf_stream:
    name: nvidia-driver:570-open
"""

RETURN = r"""
former:
  description: The stream that was enabled before, or null.
  returned: success
  type: str
  sample: 560-open
path:
  description: The file that dnf keeps the module's state in.
  returned: success
  type: str
  sample: /etc/dnf/modules.d/nvidia-driver.module
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-STREAM-UNKNOWN", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, dnf_locks, dnf_streams
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "cached": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    name, _colon, stream = module.params["name"].partition(":")
    former = dnf_streams.enabled(name)
    changed = former != (stream or None)
    try:
        if changed and not module.check_mode:
            dnf_locks.wait(module.params["lock_timeout"])
            run = commands.runner(module)
            if stream:
                changed = dnf_streams.switch(run, name, stream, cached=module.params["cached"])
            else:
                dnf_streams.reset(run, name, cached=module.params["cached"])
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(
        changed=changed,
        former=former,
        path=dnf_streams.path(name),
        diff={"before": f"{name}:{former or ''}\n", "after": f"{name}:{stream}\n"},
    )


if __name__ == "__main__":
    main()
