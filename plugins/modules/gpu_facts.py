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
    description:
      - Read every file below this directory, which holds a recorded node. V(/) is the node itself.
      - NVML is asked only on V(/); of a recorded node C(.gpufleet/nvml.json) tells what it answered there.
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
          description: Number of GPUs on this node, those among them that are kept for a guest.
          returned: always
          type: int
          sample: 8
        usable:
          description: Number of GPUs that are not kept for a guest.
          returned: always
          type: int
          sample: 8
        virtualization:
          description: V(wsl), V(container), V(vm) or V(bare); of several, the innermost.
          returned: always
          type: str
          sample: bare
        tegra:
          description: NVIDIA's system on a chip (Jetson, DRIVE); null on every other machine.
          returned: always
          type: dict
          contains:
            model:
              description: Name of the board.
              returned: always
              type: str
              sample: NVIDIA Jetson AGX Orin Developer Kit
            soc:
              description: Name of the chip as the device tree has it.
              returned: always
              type: str
              sample: tegra234
            l4t_version:
              description: Version of L4T, the board's Linux.
              returned: always
              type: str
              sample: 36.4.3
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
              description: Address on the PCI bus as sysfs writes it; null for the GPU inside a Tegra.
              returned: always
              type: str
              sample: "0000:3b:00.0"
            pci_id:
              description: Vendor and device; null for a GPU that is on no bus.
              returned: always
              type: str
              sample: "10de:2335"
            name:
              description: Name from NVML, from the driver, from the newer one of our list and the node's C(pci.ids), or
                the chip with well-known cards that bear it.
              returned: always
              type: str
              sample: NVIDIA H200
            chip:
              description: The chip; null for a device id that neither our table nor the node knows.
              returned: always
              type: str
              sample: GH100
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
            kernel_driver:
              description: The kernel driver that is bound to the device (V(nvidia), V(nouveau), V(vfio-pci)); null
                for none.
              returned: always
              type: str
              sample: nvidia
            passthrough:
              description: Whether the device is kept for a guest (bound to vfio-pci or a stub) and so can not be
                used here.
              returned: always
              type: bool
            vgpu:
              description: Whether this is a share of a GPU that a hypervisor hands out; null where nothing says so.
              returned: always
              type: bool
            persistence:
              description: Whether the driver keeps the GPU initialized while nobody uses it; null when NVML was not
                asked.
              returned: always
              type: bool
            mig:
              description: Multi-Instance GPU.
              returned: always
              type: dict
              contains:
                enabled:
                  description: Whether it is on; false for a GPU without it, null when nobody could tell.
                  returned: always
                  type: bool
                instances:
                  description: The instances; without NVML only their number is known.
                  returned: always
                  type: list
                  elements: dict
                  contains:
                    uuid:
                      description: UUID.
                      returned: always
                      type: str
                    name:
                      description: Name.
                      returned: always
                      type: str
                      sample: NVIDIA H100 80GB HBM3 MIG 1g.10gb
                    memory_mib:
                      description: Memory in MiB.
                      returned: always
                      type: int
                      sample: 9856
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
                corrected:
                  description: Corrected errors in the life of the GPU.
                  returned: always
                  type: int
                remapped_rows:
                  description: Rows of memory that were replaced; null for a GPU that can not do so.
                  returned: always
                  type: dict
                  contains:
                    correctable:
                      description: Rows replaced after correctable errors.
                      returned: always
                      type: int
                    uncorrectable:
                      description: Rows replaced after uncorrectable errors.
                      returned: always
                      type: int
                    pending:
                      description: Whether a row is replaced with the next reset of the GPU.
                      returned: always
                      type: bool
                    failure:
                      description: Whether a replacement failed, which calls for an exchange of the card.
                      returned: always
                      type: bool
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
              description: Processes on this GPU; null when NVML did not say.
              returned: always
              type: list
              elements: dict
              contains:
                pid:
                  description: Process id.
                  returned: always
                  type: int
                name:
                  description: Name; null for a process of another PID namespace.
                  returned: always
                  type: str
            detected_by:
              description: V(nvml), V(pci) or V(devicetree).
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
              description: V(distro), V(nvidia), V(runfile), V(windows) or V(l4t) (the board's own Linux).
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
            package:
              description: The package that brings the kernel module; null where none does.
              returned: always
              type: dict
              contains:
                name:
                  description: Name.
                  returned: always
                  type: str
                  sample: nvidia-kernel-dkms
                version:
                  description: Version as the package manager has it.
                  returned: always
                  type: str
                  sample: 535.309.01-1~deb12u1
            held:
              description: Whether that package is on hold or locked to its version; null where there is no package.
              returned: always
              type: bool
            runfile:
              description: What NVIDIA's installer left on the node; null where there is nothing of one.
              returned: always
              type: dict
              contains:
                version:
                  description: The driver's version, as the installer wrote it down.
                  returned: always
                  type: str
                  sample: 570.211.01
                problems:
                  description: What of it is not whole, in words. Empty for a driver that is.
                  returned: always
                  type: list
                  elements: str
                  sample: [nvidia-uninstall is missing]
            library_version:
              description: Version of the libraries in user space.
              returned: always
              type: str
              sample: 535.309.01
            dkms:
              description: What DKMS has of the driver for the running kernel.
              returned: always
              type: dict
              contains:
                version:
                  description: Version; null where DKMS has none.
                  returned: always
                  type: str
                  sample: 535.309.01
                state:
                  description: V(installed), V(built), V(added), V(missing) (the package is there, its source is not)
                    or null.
                  returned: always
                  type: str
            module_signed:
              description: Whether the kernel module on disk bears a signature; null for a compressed one or none.
              returned: always
              type: bool
            loads_under_secure_boot:
              description: Whether the kernel takes the module. True where nothing is enforced or it is loaded, false
                for a module without a signature, null where that hangs on the key.
              returned: always
              type: bool
        fabric:
          description: NVSwitches.
          returned: always
          type: dict
          contains:
            nvswitches:
              description: Number of NVSwitches on the PCI bus.
              returned: always
              type: int
            needed:
              description: Whether CUDA needs the fabric manager on this node; null where that is not known.
              returned: always
              type: bool
            manager_version:
              description: Version of the fabric manager; null where it is not installed.
              returned: always
              type: str
            manager_active:
              description: Whether it runs; null where it is neither needed nor installed.
              returned: always
              type: bool
            manager_matches:
              description: Whether its version is the one of the driver, which it has to be; null without one of the
                two.
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
            lockdown:
              description: The kernel's lockdown mode, V(none), V(integrity) or V(confidentiality).
              returned: always
              type: str
            module_signatures_enforced:
              description: Whether the kernel refuses modules without a valid signature; null where it does not say.
              returned: always
              type: bool
        health:
          description: What the kernel's log says about the GPUs.
          returned: always
          type: dict
          contains:
            xid:
              description: NVIDIA's Xid errors, each kind on each GPU once; null where the log can not be read or
                there is no GPU.
              returned: always
              type: list
              elements: dict
              contains:
                code:
                  description: Number of the error.
                  returned: always
                  type: int
                  sample: 79
                pci_address:
                  description: The GPU.
                  returned: always
                  type: str
                  sample: "0000:3b:00.0"
                message:
                  description: What the kernel last said with it.
                  returned: always
                  type: str
                  sample: GPU has fallen off the bus.
                count:
                  description: How often it came.
                  returned: always
                  type: int
            source:
              description: V(kernel) for the ring buffer, or the log file of a recorded node.
              returned: always
              type: str
        persistence_daemon:
          description: Whether NVIDIA's persistence daemon runs; null where processes can not be seen.
          returned: always
          type: bool
        busy:
          description: Processes that use a GPU now. The driver's own services and NVIDIA's monitoring are not among
            them. Without root only one's own processes are seen.
          returned: always
          type: list
          elements: dict
          contains:
            pid:
              description: Process id.
              returned: always
              type: int
            name:
              description: Name; null for a process of another PID namespace.
              returned: always
              type: str
        reboot_needed:
          description: Whether the driver on disk takes over only with the next boot.
          returned: always
          type: bool
        errors:
          description: What went wrong.
          returned: always
          type: list
          elements: dict
          sample: [{"code": "GF-NVML-MISMATCH", "message": "NVML does not start: Driver/library version mismatch"}]
          contains:
            code:
              description: Stable code, explained in docs/errors.md.
              returned: always
              type: str
            message:
              description: What went wrong, in words.
              returned: always
              type: str
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
