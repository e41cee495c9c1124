"""The modules driver_swap, driver_sign, gpu_idle and initramfs_check as Ansible calls them: arguments in, answer out, commands between."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import secure_boot
from ansible_collections.gpufleet.stack.plugins.modules import driver_sign, driver_swap, gpu_idle, initramfs_check

from .declared import Case, Command, check

KERNEL, OLD, NEW = "6.1.0-56-amd64", "535.261.03", "535.309.01"
MODULE = f"lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko"
LOADED = {
    "proc/sys/kernel/osrelease": KERNEL,
    MODULE: "",
    "sys/module/nvidia/version": OLD,
    "sys/module/nvidia/refcnt": "0",
}
SERVICES = (
    "dcgm-exporter", "nvidia-dcgm", "dcgm", "nvidia-powerd", "nvidia-imex", "nvidia-fabricmanager", "nvidia-persistenced",
)  # fmt: skip
IDLE = [Command(f"systemctl is-active --quiet {name}.service", rc=3) for name in SERVICES]
LOOK = [Command(f"modinfo -F version ROOT/{MODULE}", out=NEW + "\n")]
LOAD = [
    Command("modprobe nvidia", makes={"sys/module/nvidia/version": NEW, "sys/module/nvidia/refcnt": "0"}),
    Command("modprobe nvidia-uvm"),
]
JOB = {"proc/4711/comm": "python\n", "proc/4711/status": "Uid:\t1001\t1001\t1001\t1001\n"}
OPEN = {"proc/4711/fd/3": "/dev/nvidia0"}
SIGNED_ONLY = {"sys/module/module/parameters/sig_enforce": "Y\n"}
SETTINGS = secure_boot.SETTINGS.lstrip("/")


SWAP = [
    Case(
        "the wanted driver is loaded already",
        {"version": OLD},
        files=LOADED,
        says={"changed": False, "swapped": False, "loaded": OLD, "reboot_needed": False, "reason": None},
    ),
    Case(
        "a dry run tells what would be",
        {"version": NEW, "_ansible_check_mode": True},
        files=LOADED,
        commands=tuple(LOOK),
        says={"changed": True, "swapped": True, "loaded": NEW, "reboot_needed": False, "unloaded": []},
    ),
    Case(
        "exchanged, with the old one's persistence mode",
        {"version": NEW, "persistence": True},
        files=LOADED,
        commands=(
            *LOOK,
            *IDLE,
            Command("rmmod nvidia", takes=("sys/module/nvidia",)),
            *LOAD,
            Command("nvidia-smi -pm 1"),
        ),
        says={"changed": True, "swapped": True, "loaded": NEW, "unloaded": ["nvidia"], "reboot_needed": False},
    ),
    Case(
        "a job keeps its driver, and nothing is run",
        {"version": NEW},
        files={**LOADED, **JOB},
        links=OPEN,
        says={"changed": False, "swapped": False, "loaded": OLD, "reboot_needed": True, "stopped": []},
    ),
    Case(
        "a service that does not come back is an error with what was done",
        {"version": NEW},
        files=LOADED,
        commands=(
            *LOOK,
            *IDLE[:-1],
            Command("systemctl is-active --quiet nvidia-persistenced.service"),
            Command("systemctl stop nvidia-persistenced.service"),
            Command("rmmod nvidia", takes=("sys/module/nvidia",)),
            *LOAD,
            Command("systemctl start nvidia-persistenced.service", rc=1),
            Command("systemctl is-active --quiet nvidia-persistenced.service", rc=3),
        ),
        message="GF-DRIVER-SERVICE",
        says={"changed": True, "loaded": NEW, "stopped": ["nvidia-persistenced.service"], "started": []},
    ),
]

SIGN = [
    Case(
        "nothing is signed where the kernel does not ask for it",
        {},
        says={"changed": False, "required": False, "certificate": None, "settings": None},
    ),
    Case(
        "settings of a former wish go",
        {},
        files={SETTINGS: "old\n"},
        says={"changed": True, "settings": None},
        after={SETTINGS: None},
    ),
    Case(
        "a dry run leaves them",
        {"_ansible_check_mode": True},
        files={SETTINGS: "old\n"},
        says={"changed": True},
        after={SETTINGS: "old\n"},
    ),
    Case(
        "packages that come signed need no key",
        {"signed_packages": True},
        files=SIGNED_ONLY,
        says={"changed": False, "required": True, "certificate": None},
    ),
    Case(
        "a key that is not there is refused, and nothing is written",
        {"key": "/root/none.key", "certificate": "/root/none.der"},
        message="GF-SIGNING-KEY",
        says={"required": False},
        after={SETTINGS: None},
    ),
    Case(
        "signatures are asked for and there is no key",
        {},
        files=SIGNED_ONLY,
        message="GF-SECURE-BOOT-UNSIGNED",
        says={"required": True},
        after={SETTINGS: None},
    ),
]

IDLES = [
    Case("nobody uses a GPU", {}, files={"proc/1/comm": "init\n"}, says={"changed": False, "users": []}),
    Case("a user is named", {}, files=JOB, links=OPEN, message="GF-GPU-BUSY", says={"changed": False, "waited": 0.0}),
    Case(
        "a dry run does not wait",
        {"wait": 60, "_ansible_check_mode": True},
        files=JOB,
        links=OPEN,
        message="python (4711)",
        says={"waited": 0.0},
    ),
]


IMAGE = "boot/initrd.img-6.1.0-56-amd64"
LIST = f"lsinitramfs ROOT/{IMAGE}"
NOUVEAU = "usr/lib/modules/6.1.0-56-amd64/kernel/drivers/gpu/drm/nouveau/nouveau.ko\n"
BLACKLIST = "etc/modprobe.d/gpufleet-nvidia.conf\n"
IMAGES = [
    Case("no images", {}, says={"changed": False, "images": []}),
    Case(
        "an image without competitors",
        {},
        files={IMAGE: "", IMAGE + ".dpkg-bak": "", "boot/initramfs-0-rescue-1.img": ""},
        commands=(Command(LIST, out="usr/bin/kmod\n"),),
    ),
    Case("a competitor that is kept out", {}, files={IMAGE: ""}, commands=(Command(LIST, out=NOUVEAU + BLACKLIST),)),
    Case(
        "a competitor that would be loaded",
        {},
        files={IMAGE: ""},
        commands=(Command(LIST, out=NOUVEAU),),
        message="holds nouveau without /etc/modprobe.d/gpufleet-nvidia.conf",
    ),
    Case(
        "a damaged image",
        {},
        files={IMAGE: ""},
        commands=(Command(LIST, rc=1),),
        message="GF-INITRAMFS-DRIVER",
    ),
    Case(
        "dracut's long lines",
        {},
        files={"boot/initramfs-6.12.0-1.el10.x86_64.img": ""},
        commands=(
            Command(
                "lsinitrd ROOT/boot/initramfs-6.12.0-1.el10.x86_64.img",
                out="-rw-r--r--   1 root     root      1 Jan  1  1970 usr/lib/modules/x/nova-core.ko.xz\n"
                "-rw-r--r--   1 root     root      1 Jan  1  1970 etc/modprobe.d/gpufleet-nvidia.conf\n",
            ),
        ),
    ),
]


@pytest.mark.parametrize(
    ("module", "case"),
    [(driver_swap, case) for case in SWAP]
    + [(driver_sign, case) for case in SIGN]
    + [(gpu_idle, case) for case in IDLES]
    + [(initramfs_check, case) for case in IMAGES],
    ids=lambda value: value.name if isinstance(value, Case) else value.__name__.rsplit(".", 1)[-1],
)
def test_a_module(
    module: object, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(case, module, tmp_path, capsys, monkeypatch)


def test_a_case_fails_where_a_command_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("one too much", {}, commands=(Command("true"),))
    with pytest.raises(AssertionError, match="not run: \\['true'\\]"):
        check(case, gpu_idle, tmp_path, capsys, monkeypatch)
