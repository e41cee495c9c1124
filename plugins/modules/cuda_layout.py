#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_layout
short_description: Makes a CUDA directory of a toolkit from Debian's packages
description:
  - Debian puts the toolkit into C(/usr/bin), C(/usr/include) and C(/usr/lib). This makes a directory with C(bin),
    C(include), C(lib64), C(nvvm) and C(version.json), as programs expect it of CUDA, from links to those files.
  - C(lib64) has CUDA's own libraries only, so that it may stand in E(LD_LIBRARY_PATH).
  - The directory is built beside the old one and takes its place in one step.
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
  path:
    description: The directory.
    type: path
    required: true
  packages:
    description: The packages that were installed for the toolkit; what they need of the same source comes along.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Lay out CUDA 11.8
  gpufleet.stack.cuda_layout:
    path: /opt/gpufleet/cuda/11.8
    packages: [nvidia-cuda-toolkit]
"""

RETURN = r"""
path:
  description: The directory.
  returned: always
  type: str
  sample: /opt/gpufleet/cuda/11.8
entries:
  description: Number of links and files in the directory.
  returned: success
  type: int
  sample: 330
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda_layout
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


def listing(entries: dict[str, str]) -> str:
    """A layout as text, a line each, for the diff."""
    return "".join(f"{place} -> {target.strip()}\n" for place, target in sorted(entries.items()))


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        wanted = cuda_layout.wanted_layout(module.params["packages"])
    except GpufleetError as error:
        if module.check_mode:
            # A dry run of a node on which the packages are not installed yet.
            module.exit_json(changed=True, path=path, entries=0)
        module.fail_json(msg=str(error), error=error.as_dict())
    former = cuda_layout.present(path)
    changed = former != wanted
    if changed and not module.check_mode:
        try:
            cuda_layout.make(path, wanted)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be made: {error}")
    diff = {"before": listing(former), "after": listing(wanted), "before_header": path, "after_header": path}
    module.exit_json(changed=changed, path=path, entries=len(wanted), diff=diff)


if __name__ == "__main__":
    main()
