#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_python
short_description: Brings one of uv's managed builds of CPython to a node
description:
  - Has uv fetch an archive of the project python-build-standalone, compares it with the SHA-256 of the plan, and unpacks it into a
    directory of its own. Nothing of the distribution's Python is touched.
  - An interpreter that is there and unchanged is left alone; one that was damaged, or that a killed run left half unpacked, is
    brought again.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
  - gpufleet.stack.uv_wheel
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  path:
    description: Directory of the interpreter. It holds one build for ever.
    type: path
    required: true
  interpreter:
    description: The program in it, as the plan has it.
    type: path
    required: true
  full_version:
    description: Version of CPython.
    type: str
    required: true
  release:
    description: Release of the build, a date as C(20261110).
    type: str
    required: true
  architecture:
    description: Architecture of the node.
    type: str
    required: true
    choices: [x86_64, aarch64]
  sha256:
    description: SHA-256 of the archive.
    type: str
    required: true
  mirror:
    description:
      - Address (C(https://), C(http://) or C(file://)) that has the archives as the project publishes them, each in a directory of its
        release. Empty is the project's own. It is never shown, since it may hold a password.
    type: str
    default: ""
  wheelhouse:
    description: Directory or address of the wheelhouse that the archive and uv are taken from. O(mirror) comes before it for the archive.
    type: str
    default: ""
  wait:
    description: Seconds that a node which may only read O(prefix) waits for another one to bring the interpreter there.
    type: float
    default: 0
  prefix:
    description: Directory in which everything of the collection lives. uv goes below it.
    type: path
    default: /opt/gpufleet
  cache_dir:
    description: Cache of uv.
    type: path
    default: /opt/gpufleet/cache
"""

EXAMPLES = r"""
- name: Bring the interpreter of the plan
  gpufleet.stack.managed_python:
    path: /opt/gpufleet/python/3.11.18-20261110
    interpreter: /opt/gpufleet/python/3.11.18-20261110/cpython-3.11.18-linux-x86_64-gnu/bin/python3.11
    full_version: 3.11.18
    release: "20261110"
    architecture: x86_64
    sha256: "{{ gpufleet_plan.stages.python.managed[0].sha256 }}"
    uv: "{{ gpufleet_plan.stages.python.uv }}"
"""

RETURN = r"""
action:
  description: What was done. V(none) where the interpreter was there and unchanged.
  returned: success
  type: str
  sample: installed
because:
  description: Why it was done.
  returned: where something was done
  type: str
  sample: /opt/gpufleet/python/3.11.18-20261110 is not there
path:
  description: Directory of the interpreter.
  returned: success
  type: str
  sample: /opt/gpufleet/python/3.11.18-20261110
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-DOWNLOAD-HASH", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import managed_python, uv, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            path={"type": "path", "required": True},
            interpreter={"type": "path", "required": True},
            full_version={"type": "str", "required": True},
            release={"type": "str", "required": True},
            architecture={"type": "str", "required": True, "choices": ["x86_64", "aarch64"]},
            sha256={"type": "str", "required": True},
            mirror={"type": "str", "default": "", "no_log": True},
            wheelhouse={"type": "str", "default": ""},
            wait={"type": "float", "default": 0},
            uv=uv.ARGUMENT,
            prefix={"type": "path", "default": "/opt/gpufleet"},
            cache_dir={"type": "path", "default": "/opt/gpufleet/cache"},
        ),
        supports_check_mode=True,
    )
    wanted = managed_python.Wanted(**module.params)
    wheelhouse.keep_off_proxies(wanted.wheelhouse)
    try:
        result = managed_python.ensure(wanted, check_mode=module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(path=wanted.path, **result)


if __name__ == "__main__":
    main()
