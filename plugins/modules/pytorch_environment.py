#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pytorch_environment
short_description: Builds, proves and activates a PyTorch environment from a lock
description:
  - Installs exactly the wheels of a lock into a new directory with uv, compares every file with what its wheel
    states, imports torch in a fresh process, and only then lets the link C(current) lead to the new environment.
  - A run that was killed leaves nothing that is used; the next run removes what it left and starts again. What was
    active before stays active until the switch.
  - An environment that is there already is checked file by file; only damaged packages are installed anew. Packages
    that somebody added stay.
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
  name:
    description: Name of the environment.
    type: str
    required: true
  path:
    description: Versioned directory of the environment. It holds one lock and one interpreter for ever.
    type: path
    required: true
  link:
    description: Link that leads to the active environment of this name. It lies beside O(path).
    type: path
    required: true
  interpreter:
    description: Python that the environment is made from.
    type: path
    required: true
  lock_text:
    description: Content of the lock, a C(pylock.toml) with one wheel for each package.
    type: str
    required: true
  lock_sha256:
    description: SHA-256 of O(lock_text).
    type: str
    required: true
  torch_version:
    description: What C(torch.__version__) has to be.
    type: str
    required: true
  cuda:
    description: What C(torch.version.cuda) has to be. Left out for a build without CUDA.
    type: str
  torchvision:
    description: Version of torchvision that has to be importable. Left out where the environment has none.
    type: str
  torchaudio:
    description: Version of torchaudio that has to be importable. Left out where the environment has none.
    type: str
  wheelhouse:
    description: Directory or address of the wheelhouse that the wheels are taken from. Left out, they come from the lock's addresses.
    type: str
    default: ""
  shared:
    description:
      - Whether many nodes use the environment from a directory that they share. One that another node has completed is then taken without
        reading every file of it, and another run is waited for as long as it takes to build one.
    type: bool
    default: false
  prefix:
    description: Directory in which everything of the collection lives. uv goes below it.
    type: path
    default: /opt/gpufleet
  cache_dir:
    description: Cache of wheels. Files are linked from it into environments where both are on one file system.
    type: path
    default: /opt/gpufleet/cache
  keep:
    description:
      - Environments of this name that stay, the active one among them. Of the others those that were active last stay.
      - One that a process works from stays in any case, and so do one that has packages which its lock does not have and one
        on a file system that other nodes may use.
    type: int
    default: 2
  interpreters:
    description:
      - Interpreters of all environments of the plan. Of those that M(gpufleet.stack.managed_python) brought, the ones that are neither
        among them nor behind any environment on the node are removed, but for one that a process runs or that came within the last hour.
      - Left out, no interpreter is removed.
    type: list
    elements: path
  lock_wait:
    description: Seconds to wait for another run that works on the same environment.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Build the environment of the plan
  gpufleet.stack.pytorch_environment:
    name: default
    path: /opt/gpufleet/envs/default/2.0.1-cu117-py311-0a1b2c3d
    link: /opt/gpufleet/envs/default/current
    interpreter: /usr/bin/python3.11
    lock_text: "{{ gpufleet_plan.stages.pytorch.environments[0].lock.text }}"
    lock_sha256: "{{ gpufleet_plan.stages.pytorch.environments[0].lock.sha256 }}"
    torch_version: 2.0.1+cu117
    cuda: "11.7"
    torchvision: 0.15.2
    torchaudio: 2.0.2
    uv: "{{ gpufleet_plan.stages.pytorch.uv }}"
"""

RETURN = r"""
action:
  description: What was done. V(none) where the environment was whole and active.
  returned: success
  type: str
  sample: built
because:
  description: Why it was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["the environment is not there"]
path:
  description: Directory of the environment.
  returned: success
  type: str
  sample: /opt/gpufleet/envs/default/2.0.1-cu117-py311-0a1b2c3d
link:
  description: Link that leads to it.
  returned: success
  type: str
  sample: /opt/gpufleet/envs/default/current
torch_version:
  description: C(torch.__version__) of the environment.
  returned: success
  type: str
  sample: 2.0.1+cu117
bytes:
  description: Bytes of all files whose SHA-256 was compared. 0 in check mode where nothing is installed yet.
  returned: success
  type: int
  sample: 5182834119
fetched_bytes:
  description: Bytes of the wheels that were fetched, as the lock has them. 0 where the cache or a directory of the node had them all.
  returned: success
  type: int
  sample: 2329514119
seconds:
  description: How long it took, with the waiting for other runs.
  returned: success
  type: float
  sample: 41.2
pruned:
  description: Former environments of this name, and managed interpreters, that were removed; in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [/opt/gpufleet/envs/default/1.13.1-cu117-py311-0a1b2c3d]
kept:
  description: Environments and managed interpreters that were to be removed and stay, and why.
  returned: success
  type: dict
  sample: {"/opt/gpufleet/envs/default/1.13.1-cu117-py311-0a1b2c3d": "in use by python (4711)"}
error:
  description: Code, message, cause and mending command of an error.
  returned: failure
  type: dict
  sample: {"code": "GF-DOWNLOAD-HASH", "message": "...", "cause": "...", "fix": "..."}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import environments, uv, wheelhouse
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

SAME_NAME = (
    "name",
    "path",
    "link",
    "interpreter",
    "lock_text",
    "lock_sha256",
    "torch_version",
    "cuda",
    "uv",
    "prefix",
    "cache_dir",
    "wheelhouse",
    "keep",
    "shared",
    "lock_wait",
)
COMPANIONS = ("torchvision", "torchaudio")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=dict(
            name={"type": "str", "required": True},
            path={"type": "path", "required": True},
            link={"type": "path", "required": True},
            interpreter={"type": "path", "required": True},
            lock_text={"type": "str", "required": True},
            lock_sha256={"type": "str", "required": True},
            torch_version={"type": "str", "required": True},
            cuda={"type": "str"},
            torchvision={"type": "str"},
            torchaudio={"type": "str"},
            uv=uv.ARGUMENT,
            wheelhouse={"type": "str", "default": ""},
            shared={"type": "bool", "default": False},
            prefix={"type": "path", "default": "/opt/gpufleet"},
            cache_dir={"type": "path", "default": "/opt/gpufleet/cache"},
            keep={"type": "int", "default": 2},
            interpreters={"type": "list", "elements": "path"},
            lock_wait={"type": "float", "default": 60},
        ),
        supports_check_mode=True,
    )
    interpreters = module.params["interpreters"]
    wanted = Wanted(
        interpreters=None if interpreters is None else tuple(interpreters),
        companions={name: module.params[name] for name in COMPANIONS if module.params[name]},
        **{name: module.params[name] for name in SAME_NAME},
    )
    wheelhouse.keep_off_proxies(wanted.wheelhouse)
    try:
        result = environments.ensure(wanted, check_mode=module.check_mode)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    module.exit_json(path=wanted.path, link=wanted.link, torch_version=wanted.torch_version, **result)


if __name__ == "__main__":
    main()
