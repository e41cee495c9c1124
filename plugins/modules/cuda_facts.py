#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_facts
short_description: Gathers facts about CUDA toolkits, cuDNN and PyTorch
description:
  - Sets the fact C(gpufleet_cuda). Changes nothing and needs nothing on the node but Python 3.8.
  - No toolkit, shell or Python of the node is started; versions are read from the files that carry them.
  - Every key is always there; what is not known is null. What went wrong is told in C(errors).
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
  facts:
    description: Action returns an C(ansible_facts) dictionary that will update existing host facts.
    support: full
options:
  sysroot:
    description: Read every file below this directory, which holds a recorded node. V(/) is the node itself.
    type: path
    default: /
  prefix:
    description: Directory in which everything of the collection lives, as the node sees it.
    type: path
    default: /opt/gpufleet
seealso:
  - module: gpufleet.stack.gpu_facts
"""

EXAMPLES = r"""
- name: Look at what CUDA there is
  gpufleet.stack.cuda_facts:

- name: Warn of libraries that LD_LIBRARY_PATH takes from PyTorch
  ansible.builtin.debug:
    var: ansible_facts['gpufleet_cuda']['shadowed']
  when: ansible_facts['gpufleet_cuda']['shadowed'] | length > 0
"""

RETURN = r"""
ansible_facts:
  description: The facts, under one key.
  returned: always
  type: dict
  contains:
    gpufleet_cuda:
      description: Toolkits, cuDNN, environment variables and PyTorch.
      returned: always
      type: dict
      contains:
        toolkits:
          description: CUDA toolkits.
          returned: always
          type: list
          elements: dict
          contains:
            version:
              description: Version, as full as the toolkit tells it.
              returned: always
              type: str
              sample: 12.4.1
            path:
              description: Its directory, what C(CUDA_HOME) would be.
              returned: always
              type: str
              sample: /usr/local/cuda-12.4
            nvcc:
              description: Path of its compiler; null where it has none.
              returned: always
              type: str
            source:
              description: V(gpufleet) below the prefix, V(nvidia) from NVIDIA's packages, V(distro), or V(runfile)
                for anything else.
              returned: always
              type: str
            default:
              description: Whether C(/usr/local/cuda) leads to it.
              returned: always
              type: bool
        cudnn:
          description: Copies of cuDNN outside Python environments.
          returned: always
          type: list
          elements: dict
          contains:
            version:
              description: Version, as full as the copy tells it.
              returned: always
              type: str
              sample: 8.9.6.50
            path:
              description: Directory in which it stands.
              returned: always
              type: str
              sample: /opt/gpufleet/cudnn/8.9.6.50-cuda11
            cuda_major:
              description: CUDA it is made for; null where nothing tells.
              returned: always
              type: int
              sample: 11
            source:
              description: V(gpufleet) below the prefix, V(package) or V(copy).
              returned: always
              type: str
            on_loader_path:
              description: Whether programs find it without being told, through the loader's directories or
                C(LD_LIBRARY_PATH).
              returned: always
              type: bool
            loader_takes:
              description: Whether it is the one that a program gets which asks for this major version and names no
                place, by C(LD_LIBRARY_PATH) of the login shells, the loader's cache and its directories.
              returned: always
              type: bool
        environment:
          description: What login shells get, read from the files that set it.
          returned: always
          type: dict
          contains:
            cuda_home:
              description: C(CUDA_HOME), or C(CUDA_PATH).
              returned: always
              type: str
            path:
              description: Directories of C(PATH).
              returned: always
              type: list
              elements: str
            ld_library_path:
              description: Directories of C(LD_LIBRARY_PATH).
              returned: always
              type: list
              elements: str
            set_by:
              description: Files that set one of these for CUDA.
              returned: always
              type: list
              elements: str
              sample: [/etc/profile.d/gpufleet-cuda_toolkit.sh]
        torch:
          description: Every PyTorch in the environments below the prefix.
          returned: always
          type: list
          elements: dict
          contains:
            environment:
              description: Name of the environment.
              returned: always
              type: str
              sample: default
            path:
              description: Its directory.
              returned: always
              type: str
            current:
              description: Whether the link C(current) of the environment leads to it.
              returned: always
              type: bool
            version:
              description: Version of PyTorch.
              returned: always
              type: str
              sample: 2.0.1+cu117
            cuda:
              description: CUDA it is built for; null for a build for the CPU.
              returned: always
              type: str
              sample: "11.7"
            cudnn:
              description: Version of the cuDNN package beside it; null where PyTorch brings its own.
              returned: always
              type: str
              sample: 8.5.0.96
            python:
              description: Version of Python.
              returned: always
              type: str
              sample: 3.11.2
            arch_list:
              description: Compute capabilities whose code it holds, read from its library without importing it. Empty
                for a build for the CPU; null where the library can't be read.
              returned: always
              type: list
              elements: str
              sample: ["7.0", "7.5", "8.0", "8.6", "9.0"]
        shadowed:
          description: Libraries of PyTorch's that C(LD_LIBRARY_PATH) replaces.
          returned: always
          type: list
          elements: dict
          contains:
            library:
              description: Name of the file.
              returned: always
              type: str
              sample: libcublas.so.11
            path:
              description: The one that PyTorch brings.
              returned: always
              type: str
            by:
              description: The one that is loaded instead.
              returned: always
              type: str
        errors:
          description: What went wrong.
          returned: always
          type: list
          elements: dict
          contains:
            code:
              description: Code.
              returned: always
              type: str
              sample: GF-TORCH-UNREADABLE
            message:
              description: What went wrong, in words.
              returned: always
              type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "sysroot": {"type": "path", "default": "/"},
            "prefix": {"type": "path", "default": "/opt/gpufleet"},
        },
        supports_check_mode=True,
    )
    facts = cuda.collect(sysroot=module.params["sysroot"], prefix=module.params["prefix"])
    module.exit_json(changed=False, ansible_facts={"gpufleet_cuda": facts})


if __name__ == "__main__":
    main()
