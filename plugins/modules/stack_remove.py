#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_remove
short_description: Removes what the roles brought to the node
description:
  - Reads the receipts on the node and removes what they say was added. That is environments, toolkits, links, files,
    package sources, the wheel cache and packages.
  - What was on the node before stays, and so does what somebody changed since or needs by now. It is named.
  - Nothing is removed while a process works from an environment, or uses a GPU where the driver is to go.
  - Without a receipt there is nothing to do.
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
  stages:
    description: The stages that go; V(all) is every one of them. V(wheelhouse) is what a cache host serves.
    type: list
    elements: str
    choices: [all, verify, pytorch, python, cudnn, cuda_toolkit, nvidia_driver, wheelhouse]
    default: [all]
  edited:
    description: Whether files, toolkits and environments that were changed since go too.
    type: bool
    default: false
  shared:
    description: Whether a prefix or cache on a shared file system goes, which other nodes may use.
    type: bool
    default: false
  prefix:
    description: Directory in which everything of the collection lives.
    type: path
    default: /opt/gpufleet
  cache_dir:
    description:
      - Directory of the wheel cache. It goes with the stage V(pytorch) where it is this node's own.
      - Unset is C(<prefix>/cache).
    type: path
  state_dir:
    description: Directory of the collection's state on the node.
    type: path
    default: /var/lib/gpufleet
  gpu_sysroot:
    description: Read the GPU facts below this directory.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Leave the node as if this collection had never been there
  gpufleet.stack.stack_remove:

- name: Remove CUDA toolkits and cuDNN
  gpufleet.stack.stack_remove:
    stages: [cudnn, cuda_toolkit]
"""

RETURN = r"""
removed:
  description: What went, or would go in check mode.
  returned: success
  type: dict
  contains:
    packages:
      description: Packages of the distribution.
      returned: always
      type: list
      elements: str
      sample: [python3.11-venv]
    files:
      description: Files.
      returned: always
      type: list
      elements: str
      sample: [/etc/profile.d/gpufleet-pytorch.sh]
    links:
      description: Symbolic links, also those that lead again where they led before.
      returned: always
      type: list
      elements: str
      sample: [/opt/gpufleet/envs/default/current]
    trees:
      description: Directories with all that was in them.
      returned: always
      type: list
      elements: str
      sample: [/opt/gpufleet/envs/default/2.0.1-cpu-1a2b3c4d]
stages:
  description: The stages that the node had of those that were to go.
  returned: success
  type: list
  elements: str
  sample: [verify, pytorch, python]
kept:
  description: What stays, and why.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: A path, or a package with C(package) before its name.
      returned: always
      type: str
      sample: package python3.11-venv
    why:
      description: The reason.
      returned: always
      type: str
      sample: reportbug needs it
reboot_needed:
  description: Whether the removed driver's kernel module is still loaded.
  returned: success
  type: bool
"""

import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import (
    commands,
    dpkg_cut,
    initramfs,
    removal,
    removal_packages,
    removal_plan,
    removal_use,
    removal_wish,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import STATE_DIR

LOADED = "/sys/module/nvidia"
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", "LANGUAGE": "C"}


def wish_of(module: AnsibleModule) -> removal_wish.Wish:
    """What the module's options ask for."""
    params = module.params
    return removal_wish.Wish(
        stages=removal_wish.STAGES if "all" in params["stages"] else tuple(params["stages"]),
        prefix=params["prefix"],
        cache_dir=params["cache_dir"] or os.path.join(params["prefix"], "cache"),
        state_dir=params["state_dir"],
        edited=params["edited"],
        shared=params["shared"],
    )


def remove(module: AnsibleModule, run: removal_packages.Run) -> removal_wish.Plan:
    """Look, refuse, and where it is no dry run, remove."""
    if not module.check_mode:
        dpkg_cut.settle(run)
    manager = removal_packages.manager_of(run)
    plan = removal_plan.make_plan(wish_of(module), manager, platform.release())
    removal_use.refuse_trees_in_use(plan.trees)
    # What is held by us stays out of the plan, and goes as soon as it is let go.
    held = removal_packages.HELD in plan.kept.values()
    if "nvidia_driver" in plan.stages and (plan.packages or plan.installer or held):
        removal_use.refuse_busy_gpus(module.params["gpu_sysroot"])
    removal.refuse(plan, manager)
    if not module.check_mode:
        removal.carry_out(plan, manager, run)
        if removal.changes_module_settings(plan):
            # Our module settings are in the images that kernels start from, too.
            initramfs.rebuild(commands.runner(module))
        removal.forget(plan)
    return plan


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "stages": {"type": "list", "elements": "str", "choices": ["all", *removal_wish.STAGES], "default": ["all"]},
            "edited": {"type": "bool", "default": False},
            "shared": {"type": "bool", "default": False},
            "prefix": {"type": "path", "default": "/opt/gpufleet"},
            "cache_dir": {"type": "path"},
            "state_dir": {"type": "path", "default": STATE_DIR},
            "gpu_sysroot": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )

    def run(command: list[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(command, environ_update=ENVIRONMENT)
        return code, out, err

    try:
        plan = remove(module, run)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict())
    except OSError as error:
        module.fail_json(msg=f"{error.filename or 'a file'} cannot be removed: {error.strerror}")
    lines = plan.lines()
    module.exit_json(
        changed=bool(lines),
        stages=plan.stages,
        removed=plan.in_words(),
        kept=[{"name": name, "why": why} for name, why in sorted(plan.kept.items())],
        reboot_needed="nvidia_driver" in plan.stages and os.path.exists(LOADED),
        diff={"before": "".join(line + "\n" for line in lines), "after": ""},
    )


if __name__ == "__main__":
    main()
