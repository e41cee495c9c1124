#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_runfile
short_description: Makes a CUDA toolkit with NVIDIA's installer
description:
  - Runs the installer without a question, for the toolkit alone and into a directory of its own. The driver in it is never installed.
  - What it writes outside of that directory (the default link, a directory of libraries for every program) is taken away again.
  - Where the installer fails, what was in the directory before is there again.
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
  path:
    description: The toolkit's directory.
    type: path
    required: true
  installer:
    description: The installer on the node, checked by M(gpufleet.stack.runfile).
    type: path
    required: true
  sha256:
    description: The installer's SHA-256.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Make CUDA 12.6
  gpufleet.stack.cuda_runfile:
    path: /opt/gpufleet/cuda/12.6
    installer: /var/cache/gpufleet-runfiles/cuda_toolkit/2f0c.run
    sha256: "{{ sha256 }}"
"""

RETURN = r"""
path:
  description: The directory.
  returned: success
  type: str
  sample: /opt/gpufleet/cuda/12.6
missing:
  description: Whether the toolkit was not there, or not as the installer left it.
  returned: success
  type: bool
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-CUDA-RUNFILE", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, cuda_runfile
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "installer": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path, sha256 = module.params["path"], module.params["sha256"]
    changed = not cuda_runfile.is_installed(path, sha256)
    try:
        if changed and not module.check_mode:
            cuda_runfile.install(commands.runner(module), module.params["installer"], path, sha256)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be made: {error}")
    module.exit_json(changed=changed, path=path, missing=changed)


if __name__ == "__main__":
    main()
