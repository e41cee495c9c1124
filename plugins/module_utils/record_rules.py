# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a record holds, and what of each: the one list of them. Private to the collection.

What is not in this list is not recorded. A test compares it with what the facts open, so that neither outruns the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Callable, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import record_texts as texts
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_ids import PCI_IDS_FILES

Treat = Callable[[bytes], bytes]  # read when the module is: typing's, for Python 3.8


class Rule(NamedTuple):
    """A pattern of paths and what is kept: of the content (``treat``), of the file by its path (``stub``), or neither.

    ``kind``: ``file``; ``link``, whose target is kept and not followed; ``directory``, that it is there; ``cache``, the
    loader's.
    """

    pattern: str
    treat: Treat | None = None
    kind: str = "file"
    stub: Callable[[str], bytes] | None = None


def _lines(pattern: str) -> Treat:
    return partial(texts.lines, pattern=pattern)


_PCI = "/sys/bus/pci/devices/{pci}"
_SITE = "{prefix}/envs/*/*/lib*/python3.*/site-packages"
_SYSTEM = (
    Rule("/etc/os-release", texts.os_release),
    Rule("/usr/lib/os-release", texts.os_release),
    Rule("/proc/sys/kernel/osrelease", texts.word),
    Rule("/proc/sys/kernel/random/boot_id", texts.word),
    Rule("/proc/1/comm", texts.word),
    Rule("/proc/cpuinfo", texts.cpuinfo),
    Rule("/proc/1/environ", texts.process_environment),
    Rule("/proc/device-tree/model", texts.word),
    Rule("/proc/device-tree/compatible", texts.word),
    Rule("/sys/firmware/devicetree/base/model", texts.word),
    Rule("/sys/firmware/devicetree/base/compatible", texts.word),
    Rule("/etc/nv_tegra_release", _lines("^# R")),
    Rule("/sys/class/dmi/id/sys_vendor", texts.word),
    Rule("/sys/class/dmi/id/product_name", texts.word),
    Rule("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", texts.word),
    Rule("/sys/kernel/security/lockdown", texts.word),
    Rule("/sys/module/module/parameters/sig_enforce", texts.word),
    Rule("/run/systemd/container", texts.nothing),
    Rule("/run/.containerenv", texts.nothing),
    Rule("/.dockerenv", texts.nothing),
    Rule("/dev/dxg", texts.nothing),
    Rule("/boot/initr*", texts.nothing),
    *(Rule(f"/usr/{folder}/{name}", texts.nothing) for folder, name in (
        ("bin", "apt-get"), ("bin", "dnf"), ("bin", "zypper"), ("bin", "dracut"), ("bin", "gcc"), ("bin", "mkinitrd"),
        ("sbin", "update-initramfs"), ("sbin", "dracut"), ("sbin", "mkinitrd"), ("bin", "nvidia-uninstall"),
    )),
    Rule("/usr/lib/gcc/*/*/cc1", texts.nothing),
    *(Rule(f"{folder}/python3.*", texts.nothing) for folder in ("/usr/bin", "/usr/local/bin", "/opt/*/bin")),
    *(
        Rule(f"{base}/include/python3.*/patchlevel.h", _lines("^#define PY_VERSION "))
        for base in ("/usr", "/usr/local", "/opt/*")
    ),
    Rule("/var/lib/dpkg/status", texts.dpkg_status),
    Rule("/var/lib/dpkg/updates/*", texts.nothing),
    Rule("/var/lib/rpm", kind="directory"),
    Rule("/usr/lib/sysimage/rpm", kind="directory"),
    Rule("/etc/dnf/plugins/versionlock.list", _lines("^[^#]*nvidia")),
    Rule("/etc/dnf/versionlock.toml", _lines("^[^#]*nvidia")),
    Rule("/etc/yum/pluginconf.d/versionlock.list", _lines("^[^#]*nvidia")),
)  # fmt: skip
_DRIVER = (
    *(
        Rule(f"{_PCI}/{name}", texts.word)
        for name in (
            "vendor", "class", "device", "numa_node", "current_link_speed", "max_link_speed", "current_link_width",
            "max_link_width",
        )
    ),
    Rule(f"{_PCI}/driver", kind="link"),
    Rule(f"{_PCI}/physfn", kind="link"),
    Rule("/proc/driver/nvidia/version", _lines("^NVRM version:")),
    Rule("/proc/driver/nvidia/gpus/*/information", _lines("^(Model|GPU UUID|Device Minor):")),
    Rule("/proc/driver/nvidia/capabilities/gpu*/mig/gi*/ci*", kind="directory"),
    Rule("/sys/module/nvidia/version", texts.word),
    Rule("/sys/module/nouveau", kind="directory"),
    Rule("/sys/module/nova_core", kind="directory"),
    Rule("/lib/modules/{release}/build", kind="directory"),
    Rule("/lib/modules/{release}/modules.dep", _lines(r"^\S*nvidia\S*\.ko\S*:")),
    Rule("/var/lib/dkms/nvidia*/*/{release}", kind="directory"),
    Rule("/var/lib/dkms/nvidia*/[0-9]*", kind="directory"),
    Rule("/var/lib/dkms/nvidia/[0-9]*/source", kind="link"),
    Rule("/usr/src/nvidia-*", kind="directory"),
    Rule("/var/lib/nvidia/log", _lines(r"^\d{3}\.\d")),
    Rule("/var/lib/dkms/nvidia*/kernel-*", kind="link"),
    *(
        Rule(f"{folder}/{name}", texts.nothing)
        for folder in ("/usr/lib/*-linux-gnu", "/usr/lib/*-linux-gnu/nvidia", "/usr/lib/*-linux-gnu/nvidia/current",
                       "/usr/lib/*-linux-gnu/tegra", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib", "/lib/*-linux-gnu", "/lib64")
        for name in ("libcuda.so.*", "libnvidia-ml.so.*", "libcudnn.so.*")
    ),
    Rule("/var/log/dmesg", texts.kernel_log),
    Rule("/var/log/kern.log", texts.kernel_log),
)  # fmt: skip
_CUDA = (
    Rule("/usr/local/cuda*", kind="directory"),
    Rule("{prefix}/cuda/*", kind="directory"),
    Rule("/usr/lib/cuda", kind="directory"),
    Rule("/usr/lib/nvidia-cuda-toolkit", kind="directory"),
    Rule("/usr/bin/nvcc", stub=texts.nvcc),
    *(
        Rule(f"{base}/{name}", treat, stub=stub)
        for base in ("/usr/local/cuda*", "{prefix}/cuda/*", "/usr/lib/cuda", "/usr/lib/nvidia-cuda-toolkit")
        for name, treat, stub in (
            ("version.json", texts.toolkit_version, None),
            ("version.txt", _lines("^CUDA Version"), None),
            ("include/cuda.h", _lines("^#define CUDA_VERSION "), None),
            ("targets/*/include/cuda.h", _lines("^#define CUDA_VERSION "), None),
            ("bin/nvcc", None, texts.nvcc),
            ("lib64/libcudnn.so*", texts.nothing, None),
            ("lib/libcudnn.so*", texts.nothing, None),
        )
    ),
    *(
        Rule(f"{folder}/{name}", _lines("^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) "))
        for folder in ("/usr/include", "/usr/include/*-linux-gnu", "/usr/local/include", "/usr/local/cuda*/include")
        for name in ("cudnn_version_v*.h", "cudnn_version.h", "cudnn.h")
    ),
    Rule("/usr/local/lib/libcudnn.so*", texts.nothing),
    Rule("{prefix}/cudnn/*/lib/libcudnn.so*", texts.nothing),
    Rule("/etc/ld.so.cache", kind="cache"),
    Rule("/etc/ld.so.conf", _lines(r"^\s*(/|include\s)")),
    Rule("/etc/ld.so.conf.d/*.conf", _lines(r"^\s*(/|include\s)")),
    *(
        Rule(path, texts.shell)
        for path in ("/etc/environment", "/etc/profile", "/etc/profile.d/*.sh", "/etc/zsh/zshenv", "/etc/zsh/zprofile",
                     "/etc/zprofile")
    ),
    Rule("{prefix}/envs/*/current", kind="directory"),
    Rule("{prefix}/envs/*/*/pyvenv.cfg", _lines(r"^version(_info)?\s*=")),
    Rule("{prefix}/envs/*/*/.gpufleet-building", texts.nothing),
    Rule("{prefix}/envs/*/*/.complete", texts.nothing),
    Rule(f"{_SITE}/torch/version.py", _lines(r"^(__version__|cuda)\b")),
    Rule(f"{_SITE}/torch/lib/libtorch_python.so", stub=texts.torch_library),
    Rule(f"{_SITE}/nvidia_cudnn_cu*.dist-info", kind="directory"),
)  # fmt: skip
# Libraries of torch's and others of the same names: recorded only where LD_LIBRARY_PATH could take one for another.
_SHADOWS = (Rule(f"{_SITE}/torch/lib/*.so*", texts.nothing), Rule(f"{_SITE}/nvidia/*/lib/*.so*", texts.nothing))


class About(NamedTuple):
    """What of a node decides which files are read on it."""

    prefix: str
    release: str | None
    ld_library_path: list[str]
    pci_addresses: list[str]
    pci_device_ids: list[str]
    module_files: list[str]


def rules(about: About) -> Iterator[Rule]:
    """All of them for one node."""
    yield from (Rule(path, stub=texts.kernel_module) for path in about.module_files)
    names = partial(texts.pci_ids, device_ids=about.pci_device_ids)
    yield from (Rule("/" + path, names) for path in PCI_IDS_FILES if about.pci_device_ids)
    shadows = (*_SHADOWS, *(Rule(folder + "/lib*.so*", texts.nothing) for folder in about.ld_library_path))
    for rule in (*_SYSTEM, *_DRIVER, *_CUDA, *(shadows if about.ld_library_path else ())):
        for address in about.pci_addresses if "{pci}" in rule.pattern else [""]:
            if about.release is not None or "{release}" not in rule.pattern:
                fields = {"prefix": about.prefix, "release": about.release or "", "pci": address}
                yield rule._replace(pattern=_filled(rule.pattern, fields))


def _filled(pattern: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        pattern = pattern.replace("{" + name + "}", value)
    return pattern
