#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_facts
short_description: Gathers facts about NVIDIA GPUs and their driver
description:
  - Sets the fact C(gpufleet_gpu). Changes nothing, needs nothing on the node but Python 3.8, and works before any
    driver is installed.
  - GPUs come from NVML where the driver is loaded, and from the PCI bus before that. C(nvidia-smi) is not run.
  - Every key is always there; what is not known is null. What went wrong is told in C(errors), a broken driver does
    not make the module fail.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  facts:
    description: Action returns an C(ansible_facts) dictionary that will update existing host facts.
    support: full
options:
  sysroot:
    description:
      - Read every file below this directory, which holds a recorded node. V(/) is the node itself.
      - NVML is asked only on V(/).
    type: path
    default: /
  nvml_timeout:
    description: Seconds after which an NVML that does not answer is abandoned.
    type: float
    default: 5.0
seealso:
  - module: gpufleet.stack.cuda_facts
"""

EXAMPLES = r"""
- name: Look at the GPUs
  gpufleet.stack.gpu_facts:

- name: Say which GPUs there are
  ansible.builtin.debug:
    msg: "{{ ansible_facts['gpufleet_gpu']['devices'] | map(attribute='name') | list }}"
  when: ansible_facts['gpufleet_gpu']['present']
"""

RETURN = r"""
ansible_facts:
  description: The facts, under one key.
  returned: always
  type: dict
  contains:
    gpufleet_gpu:
      description: GPUs, driver, fabric and kernel.
      returned: always
      type: dict
      contains:
        present:
          description: Whether there is any GPU.
          returned: always
          type: bool
        count:
          description: Number of GPUs.
          returned: always
          type: int
          sample: 8
        virtualization:
          description: V(wsl), V(container), V(vm) or V(bare); of several, the innermost.
          returned: always
          type: str
          sample: bare
        devices:
          description: The GPUs, in NVML's order where it numbers them, else in that of the PCI bus.
          returned: always
          type: list
          elements: dict
          contains:
            index:
              description: Number of the GPU; null for one that NVML leaves out.
              returned: always
              type: int
            pci_address:
              description: Address on the PCI bus as sysfs writes it.
              returned: always
              type: str
              sample: "0000:3b:00.0"
            pci_id:
              description: Vendor and device.
              returned: always
              type: str
              sample: "10de:2335"
            name:
              description: Name from NVML, from the node's C(pci.ids), or the chip with well-known cards that bear it.
              returned: always
              type: str
              sample: NVIDIA H200
            architecture:
              description: V(Kepler), V(Maxwell), V(Pascal), V(Volta), V(Turing), V(Ampere), V(Ada), V(Hopper),
                V(Blackwell) or V(Rubin); null for a device id that is not known.
              returned: always
              type: str
              sample: Hopper
            compute_capability:
              description: Compute capability.
              returned: always
              type: str
              sample: "9.0"
            memory_mib:
              description: Memory in MiB; known to NVML only.
              returned: always
              type: int
              sample: 143771
            uuid:
              description: UUID; known to NVML only.
              returned: always
              type: str
            numa_node:
              description: NUMA node; null where the firmware does not say.
              returned: always
              type: int
            mig:
              description: Multi-Instance GPU.
              returned: always
              type: dict
              contains:
                enabled:
                  description: Whether it is on; false for a GPU without it, null when NVML was not asked.
                  returned: always
                  type: bool
                instances:
                  description: The instances, each with C(uuid), C(name) and C(memory_mib).
                  returned: always
                  type: list
                  elements: dict
            ecc:
              description: Error correction.
              returned: always
              type: dict
              contains:
                enabled:
                  description: Whether it is on; false for a GPU without it, null when NVML was not asked.
                  returned: always
                  type: bool
                uncorrected:
                  description: Uncorrected errors in the life of the GPU.
                  returned: always
                  type: int
            pcie:
              description: The link to the host.
              returned: always
              type: dict
              contains:
                generation:
                  description: Generation in use now; an idle GPU may lower it.
                  returned: always
                  type: int
                generation_max:
                  description: The highest generation.
                  returned: always
                  type: int
                width:
                  description: Lanes in use now.
                  returned: always
                  type: int
                width_max:
                  description: The most lanes.
                  returned: always
                  type: int
            processes:
              description: Processes on this GPU, each with C(pid) and C(name); null when NVML did not say.
              returned: always
              type: list
              elements: dict
            detected_by:
              description: V(nvml) or V(pci).
              returned: always
              type: str
        driver:
          description: The driver.
          returned: always
          type: dict
          contains:
            installed_version:
              description: Version on disk, of the kernel module the next boot loads.
              returned: always
              type: str
              sample: 535.309.01
            loaded_version:
              description: Version the kernel runs now.
              returned: always
              type: str
              sample: 535.309.01
            branch:
              description: First number of the version.
              returned: always
              type: str
              sample: "535"
            flavour:
              description: V(open) or V(proprietary) kernel modules.
              returned: always
              type: str
            source:
              description: V(distro), V(nvidia), V(runfile) or V(windows).
              returned: always
              type: str
            cuda_version:
              description: The newest CUDA it serves, from NVML or from the table of branches.
              returned: always
              type: str
              sample: "12.2"
            mismatch:
              description: Whether the driver's libraries are of another version than the module that is loaded.
              returned: always
              type: bool
            competitor:
              description: V(nouveau) or V(nova_core), where one of them holds the GPUs.
              returned: always
              type: str
        fabric:
          description: NVSwitches.
          returned: always
          type: dict
          contains:
            nvswitches:
              description: Number of NVSwitches on the PCI bus.
              returned: always
              type: int
            manager_version:
              description: Version of the fabric manager; null where it is not installed or there is no NVSwitch.
              returned: always
              type: str
            manager_active:
              description: Whether it runs; null where there is no NVSwitch.
              returned: always
              type: bool
        kernel:
          description: The running kernel.
          returned: always
          type: dict
          contains:
            release:
              description: Release.
              returned: always
              type: str
              sample: 6.1.0-47-amd64
            headers:
              description: Whether its headers are installed, which building a driver needs.
              returned: always
              type: bool
            secure_boot:
              description: Whether Secure Boot is on; null where the firmware does not say.
              returned: always
              type: bool
        busy:
          description: Processes that use a GPU now, each with C(pid) and C(name). The driver's own services and
            NVIDIA's monitoring are not among them. Without root only one's own processes are seen.
          returned: always
          type: list
          elements: dict
        reboot_needed:
          description: Whether the driver on disk takes over only with the next boot.
          returned: always
          type: bool
        errors:
          description: What went wrong, each with C(code) and C(message).
          returned: always
          type: list
          elements: dict
          sample: [{"code": "GF-NVML-MISMATCH", "message": "NVML does not start: Driver/library version mismatch"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "sysroot": {"type": "path", "default": "/"},
            "nvml_timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    facts = gpu.collect(sysroot=module.params["sysroot"], nvml_timeout=module.params["nvml_timeout"])
    module.exit_json(changed=False, ansible_facts={"gpufleet_gpu": facts})


if __name__ == "__main__":
    main()
