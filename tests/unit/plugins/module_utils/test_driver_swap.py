# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The swap of the loaded driver, against a stand-in for the kernel: NVIDIA's modules can't be loaded here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_swap import Swap
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.gpu_holders import Look

KERNEL, OLD, NEW = "6.1.0-56-amd64", "535.261.03", "535.309.01"
IDLE = Look([], [], 0, [])
BUSY = Look([{"pid": 4711, "name": "python", "user": "alice", "devices": ["/dev/nvidia0"]}], [], 0, [])
PERSISTENCE, FABRIC = "nvidia-persistenced.service", "nvidia-fabricmanager.service"
# What each module builds on.
BELOW = {
    "nvidia_uvm": ["nvidia"],
    "nvidia_modeset": ["nvidia"],
    "nvidia_drm": ["nvidia_modeset"],
    "nvidia_peermem": ["nvidia"],
}


class Node:
    """A kernel, systemd and modinfo in a directory: refuses what the real ones refuse, and keeps what was run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.active = {PERSISTENCE, FABRIC}
        self.version, self.signer = NEW, ""
        self.seen: list[str] = []
        self.refuses: set[str] = set()
        self.write("proc/sys/kernel/osrelease", KERNEL)
        self.write(f"lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko", "")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text + "\n")

    def add(self, name: str, version: str = OLD, uses: int = 0) -> None:
        (self.root / f"sys/module/{name}/holders").mkdir(parents=True)
        self.write(f"sys/module/{name}/version", version)
        self.write(f"sys/module/{name}/refcnt", str(uses))
        for below in BELOW.get(name, []):
            (self.root / f"sys/module/{below}/holders/{name}").mkdir()
            self.use(below, 1)

    def use(self, name: str, more: int) -> None:
        path = self.root / f"sys/module/{name}/refcnt"
        path.write_text(f"{int(path.read_text()) + more}\n")

    def remove(self, name: str) -> tuple[int, str, str]:
        if int((self.root / f"sys/module/{name}/refcnt").read_text()):
            return 1, "", f"rmmod: ERROR: Module {name} is in use"
        for below in BELOW.get(name, []):
            (self.root / f"sys/module/{below}/holders/{name}").rmdir()
            self.use(below, -1)
        shutil.rmtree(self.root / "sys/module" / name)
        return 0, "", ""

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        line = " ".join(command)
        if command[:2] == ["systemctl", "is-active"]:
            return (0 if command[-1] in self.active else 3), "", ""
        if command[0] == "modinfo":
            return 0, {"version": self.version, "signer": self.signer}[command[2]] + "\n", ""
        self.seen.append(line)
        if line in self.refuses:
            return 1, "", "refused"
        if command[:2] == ["systemctl", "stop"]:
            self.active.discard(command[2])
        elif command[:2] == ["systemctl", "start"]:
            self.active.add(command[2])
        elif command[0] == "rmmod":
            return self.remove(command[1])
        elif command[0] == "modprobe":
            name = command[1].replace("-", "_")
            if any(not (self.root / "sys/module" / below).exists() for below in BELOW.get(name, [])):
                return 1, "", "modprobe: ERROR: could not insert"
            if not (self.root / "sys/module" / name).exists():
                self.add(name, self.version)
        return 0, "", ""

    def swap(self, *looks: Look) -> Swap:
        """The last look is repeated."""
        left = list(looks or (IDLE,))
        return Swap(NEW, self, str(self.root), lambda: left.pop(0) if len(left) > 1 else left[0], lambda _seconds: None)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    for name in ("nvidia", "nvidia_modeset", "nvidia_drm", "nvidia_uvm"):
        made.add(name)
    return made


def test_the_driver_is_swapped_between_stop_and_start(node: Node) -> None:
    swap = node.swap()
    assert swap.swap() is None
    assert swap.loaded() == NEW
    assert node.seen == [
        f"systemctl stop {FABRIC}",
        f"systemctl stop {PERSISTENCE}",
        "rmmod nvidia_uvm",
        "rmmod nvidia_drm",
        "rmmod nvidia_modeset",
        "rmmod nvidia",
        "modprobe nvidia",
        "modprobe nvidia-uvm",
        "modprobe nvidia-modeset",
        "modprobe nvidia-drm",
        f"systemctl start {PERSISTENCE}",
        f"systemctl start {FABRIC}",
    ]
    assert swap.started == [PERSISTENCE, FABRIC]


def test_what_builds_on_a_module_goes_first(node: Node) -> None:
    node.add("nvidia_peermem")
    (node.root / "sys/module/nvidia_uvm/holders/nvidia_peermem").mkdir()
    order = node.swap().unload_order()
    assert order.index("nvidia_peermem") < order.index("nvidia_uvm") < order.index("nvidia")


def prepare(node: Node, case: str) -> None:
    if case == "desktop":
        node.use("nvidia_drm", 1)
    elif case == "foreign":
        (node.root / "sys/module/nvidia/holders/gdrdrv").mkdir()
    elif case == "mig":
        (node.root / "proc/driver/nvidia/capabilities/gpu0/mig/gi1").mkdir(parents=True)
    elif case == "unsigned":
        node.write("sys/module/module/parameters/sig_enforce", "Y")
    elif case == "other module":
        node.version = "550.90.07"
    elif case == "no module":
        (node.root / f"lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko").unlink()
    elif case == "console":
        node.write("sys/class/graphics/fb0/name", "nvidia-drmdrmfb")
    else:
        node.add("nouveau", "", 1)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("desktop", "holds nvidia_drm"),
        ("foreign", "gdrdrv builds on nvidia"),
        ("mig", "MIG instances"),
        ("unsigned", "is not signed"),
        ("other module", "is 550.90.07"),
        ("no module", "has no NVIDIA module"),
        ("console", "shown by nvidia-drmdrmfb"),
        ("nouveau", "holds nouveau"),
    ],
)
def test_what_shows_beforehand_stops_no_service(node: Node, case: str, why: str) -> None:
    prepare(node, case)
    reason = node.swap().swap()
    assert reason is not None
    assert why in reason
    assert node.seen == []


def test_a_signed_module_is_taken(node: Node) -> None:
    prepare(node, "unsigned")
    node.signer = "site key"
    assert node.swap().swap() is None


def test_users_stop_it_before_anything(node: Node) -> None:
    reason = node.swap(BUSY).swap()
    assert reason is not None
    assert "python (4711) of alice" in reason
    assert node.seen == []
    assert "hide" in (node.swap(Look([], [], 2, [])).swap() or "")


def test_a_job_that_comes_meanwhile_keeps_its_driver_and_the_services_come_back(node: Node) -> None:
    swap = node.swap(IDLE, BUSY)
    reason = swap.swap()
    assert reason is not None
    assert "came to use" in reason
    assert not [line for line in node.seen if line.startswith("rmmod")]
    assert node.active == {PERSISTENCE, FABRIC}
    assert swap.loaded() == OLD


def test_a_holder_that_nobody_named_is_waited_for_and_then_left(node: Node) -> None:
    node.use("nvidia", 1)
    swap = node.swap()
    assert swap.swap() == "nvidia is still in use"
    assert swap.unloaded == []
    assert node.active == {PERSISTENCE, FABRIC}


@pytest.mark.parametrize("refused", ["rmmod nvidia", "modprobe nvidia", f"systemctl stop {PERSISTENCE}"])
def test_after_any_failure_the_services_are_started_again(node: Node, refused: str) -> None:
    node.refuses.add(refused)
    swap = node.swap()
    assert "refused" in (swap.swap() or "")
    assert node.active == {PERSISTENCE, FABRIC}
    assert swap.started == swap.stopped[::-1]


def test_what_was_unloaded_in_vain_is_loaded_again(node: Node) -> None:
    node.refuses.add("rmmod nvidia_modeset")
    node.swap().swap()
    assert (node.root / "sys/module/nvidia_uvm").exists()
    assert (node.root / "sys/module/nvidia_drm").exists()
    node.refuses |= {"modprobe nvidia-uvm"}
    assert (node.swap().swap() or "").endswith("not loaded again: nvidia_uvm")


def test_a_monitor_that_looks_in_between_is_waited_for(node: Node) -> None:
    """It came after the last look, and holds nvidia when nvidia_uvm is gone already."""
    swap = node.swap()
    swap.sleep = lambda _seconds: node.use("nvidia", -1)
    node.refuses.clear()
    unload = node.remove

    def remove(name: str) -> tuple[int, str, str]:
        if name == "nvidia_modeset" and (node.root / "sys/module/nvidia_modeset").exists():
            answer = unload(name)
            node.use("nvidia", 1)
            return answer
        return unload(name)

    node.remove = remove  # type: ignore[method-assign]
    assert swap.swap() is None
    assert node.seen.count("rmmod nvidia") == 2
    assert swap.loaded() == NEW


def test_persistence_mode_without_a_daemon_is_said_again(node: Node) -> None:
    node.active.discard(PERSISTENCE)
    swap = node.swap()
    swap.persistence = True
    assert swap.swap() is None
    assert "nvidia-smi -pm 1" in node.seen
    assert swap.forgotten is None


def test_persistence_mode_that_is_lost_is_told(node: Node) -> None:
    node.active.discard(PERSISTENCE)
    node.refuses.add("nvidia-smi -pm 1")
    swap = node.swap()
    swap.persistence = True
    assert swap.swap() is None
    assert "refused" in (swap.forgotten or "")


def test_the_daemon_says_it_itself(node: Node) -> None:
    swap = node.swap()
    swap.persistence = True
    assert swap.swap() is None
    assert "nvidia-smi -pm 1" not in node.seen


def test_a_service_that_does_not_come_back_is_an_error(node: Node) -> None:
    node.refuses.add(f"systemctl start {FABRIC}")
    swap = node.swap()
    with pytest.raises(GpufleetError) as caught:
        swap.swap()
    assert caught.value.code == "GF-DRIVER-SERVICE"
    assert FABRIC in caught.value.message
    assert swap.loaded() == NEW
    assert swap.started == [PERSISTENCE]


def test_an_unused_nouveau_makes_room(tmp_path: Path) -> None:
    made = Node(tmp_path)
    made.active.clear()
    made.add("nouveau", "")
    swap = made.swap()
    assert swap.swap() is None
    assert made.seen == ["rmmod nouveau", "modprobe nvidia", "modprobe nvidia-uvm"]
    assert swap.loaded() == NEW
