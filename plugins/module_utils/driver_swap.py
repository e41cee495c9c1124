# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the installed driver in place of the loaded one, where nobody uses it. Private to the collection.

All that can be known beforehand is asked before the first service is stopped: half a swap is worse than none.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import driver_state, gpu_holders, kernel
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

# What belongs to the driver. Others that build on it (nvidia_fs, gdrdrv) are not ours to load again.
FAMILY = ("nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia_peermem", "nvidia")
# Those who need another one first: they are stopped in this order and started in the other direction.
SERVICES = (
    "dcgm-exporter.service",
    "nvidia-dcgm.service",
    "dcgm.service",
    "nvidia-powerd.service",
    "nvidia-imex.service",
    "nvidia-fabricmanager.service",
    "nvidia-persistenced.service",
)
# A service that ends lets go of the devices a moment later.
PATIENCE = 10.0


class Swap:
    """One swap on one node: what was done so far, so that it can be told and put back.

    :param wanted: the version that shall be loaded.
    :param run: runs a command on the node.
    :param root: the node's root, another directory in tests.
    :param look: who uses a GPU now.
    :param persistence: whether the driver was told to stay initialised, which it forgets when it goes.
    """

    def __init__(
        self,
        wanted: str,
        run: driver_state.Run,
        root: str = "/",
        look: Callable[[], gpu_holders.Look] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        persistence: bool = False,
    ) -> None:
        self.wanted = wanted
        self.run = run
        self.root = root
        self.look = look or (lambda: gpu_holders.look(root))
        self.sleep = sleep
        self.persistence = persistence
        self.forgotten: str | None = None
        self.stopped: list[str] = []
        self.started: list[str] = []
        self.unloaded: list[str] = []

    def loaded(self) -> str | None:
        """Version of the loaded driver."""
        version: str | None = driver_state.loaded_modules(self.root)["version"]
        return version

    def obstacle(self) -> str | None:
        """Why the driver can't be swapped, as far as that shows without touching anything; None: it can be tried."""
        seen = self.look()
        if seen.users:
            return f"processes use the GPU: {gpu_holders.named(seen.users)}"
        if seen.unseen:
            return f"{seen.unseen} processes hide their open files, so nobody can say whether the GPU is in use"
        return self._not_loadable() or self._display() or self._foreign() or self._partitions()

    def swap(self) -> str | None:
        """Swap the driver; why that was not possible, or None where the wanted version is loaded now.

        :raises GpufleetError: GF-DRIVER-SERVICE where a service that was running does not start again.
        """
        reason = self.obstacle()
        if reason:
            return reason
        try:
            reason = self._stop_services() or self._settle() or self._unload() or self._load()
            if reason and self.unloaded:
                reason += self._put_back()
        finally:
            lost = self._start_services()
        if lost:
            raise GpufleetError(
                "GF-DRIVER-SERVICE",
                f"services that ran before do not start again: {', '.join(lost)}; the loaded driver is {self.loaded()}",
                reason or "the service is of another version than the driver, or its configuration is wrong",
                f"journalctl -u {lost[0]} -b; upgrade its package to the driver's version {self.wanted}, then: "
                f"systemctl start {' '.join(lost)}",
            )
        return reason

    # What can be known beforehand.

    def _not_loadable(self) -> str | None:
        """Whether the kernel would take the new module: there is no way back once the old one is gone."""
        running = kernel.release(self.root) or os.uname().release
        path = driver_state.module_file(running, self.root)
        if path is None:
            return f"the running kernel {running} has no NVIDIA module"
        version = self._modinfo("version", path)
        if version != self.wanted:
            return f"the module of the running kernel {running} is {version or 'of no known version'}"
        if signatures_required(kernel.facts(self.root)) and not self._modinfo("signer", path):
            return f"the kernel takes signed modules only, and {path} is not signed"
        return None

    def _modinfo(self, field: str, path: str) -> str:
        code, out, _err = self.run(["modinfo", "-F", field, path])
        return out.strip() if code == 0 else ""

    def _display(self) -> str | None:
        """Whether a display or the console hangs on the driver."""
        for name in ("nvidia_drm", *driver_state.COMPETITORS):
            if self._users_of(name) > 0:
                return f"a display manager or the console holds {name}"
        for path in sorted(glob.glob(os.path.join(self.root, "sys/class/graphics/fb*/name"))):
            shown = read_text(path) or ""
            if shown.startswith(("nouveau", "nova", "nvidia-drm")):
                return f"the console is shown by {shown}"
        return None

    def _foreign(self) -> str | None:
        known = {*FAMILY, *driver_state.COMPETITORS}
        for name in sorted(known):
            for holder in self._holders(name):
                if holder not in known:
                    return f"module {holder} builds on {name} and is not part of the driver"
        return None

    def _partitions(self) -> str | None:
        """MIG instances are forgotten when the driver goes; whoever made them shall decide when."""
        if glob.glob(os.path.join(self.root, "proc/driver/nvidia/capabilities/gpu*/mig/gi*")):
            return "the GPUs are divided into MIG instances, which unloading the driver would delete"
        return None

    # The modules, as the kernel shows them.

    def _present(self, name: str) -> bool:
        return os.path.isdir(os.path.join(self.root, "sys/module", name))

    def _holders(self, name: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self.root, "sys/module", name, "holders")))
        except OSError:
            return []

    def _users_of(self, name: str) -> int:
        """How often a module is in use, other modules that build on it not counted."""
        count = read_text(os.path.join(self.root, "sys/module", name, "refcnt")) or ""
        # One that is built into the kernel has no such file and can't be unloaded.
        if not count.lstrip("-").isdigit():
            return 1 if self._present(name) else 0
        return int(count) - len(self._holders(name))

    def unload_order(self) -> list[str]:
        """The loaded modules of the driver and of its competitors, each after all that build on it."""
        order: list[str] = []

        def add(name: str) -> None:
            if name in order or not self._present(name):
                return
            for holder in self._holders(name):
                add(holder)
            order.append(name)

        for name in (*FAMILY, *driver_state.COMPETITORS):
            add(name)
        return order

    # The steps, each of which answers why it failed.

    def _stop_services(self) -> str | None:
        for unit in SERVICES:
            if self.run(["systemctl", "is-active", "--quiet", unit])[0] != 0:
                continue
            # Noted before: a stop that fails half way may have stopped it.
            self.stopped.append(unit)
            code, out, err = self.run(["systemctl", "stop", unit])
            if code != 0:
                return f"{unit} can't be stopped: {(err or out).strip()}"
        return None

    def _settle(self) -> str | None:
        """Waits until nothing holds a module, for a job that came meanwhile would lose half of its driver."""
        waited = 0.0
        while True:
            seen = self.look()
            if seen.users:
                return f"processes came to use the GPU: {gpu_holders.named(seen.users)}"
            held = [name for name in self.unload_order() if self._users_of(name) > 0]
            if not held and not seen.services:
                return None
            if waited >= PATIENCE:
                by = f" ({gpu_holders.named(seen.services)})" if seen.services else ""
                return f"{', '.join(held) or 'the driver'} is still in use{by}"
            self.sleep(0.5)
            waited += 0.5

    def _unload(self) -> str | None:
        for name in self.unload_order():
            reason = self._unload_one(name)
            if reason:
                return reason
            self.unloaded.append(name)
        return None

    def _unload_one(self, name: str) -> str | None:
        """Half of a driver is worse than a moment's wait: a monitor that looks at the GPU lets go again."""
        waited = 0.0
        while True:
            # rmmod and not modprobe -r: the latter runs what distributions configured for removal, in their order.
            code, out, err = self.run(["rmmod", name])
            if not self._present(name):
                return None
            if waited >= PATIENCE or self._users_of(name) == 0:
                return f"{name} can't be unloaded: {(err or out).strip() or f'it stays loaded (status {code})'}"
            self.sleep(0.5)
            waited += 0.5

    def _load(self) -> str | None:
        try:
            driver_state.load(self.run)
        except GpufleetError as error:
            return error.message
        # uvm and nvidia are there already; the rest only where it was before.
        for name in reversed(self.unloaded):
            if name in driver_state.COMPETITORS or self._present(name):
                continue
            code, out, err = self.run(["modprobe", name.replace("_", "-")])
            if code != 0:
                return f"{name} does not load: {(err or out).strip()}"
        if self.loaded() != self.wanted:
            return f"driver {self.loaded() or 'none'} is loaded after the swap, not {self.wanted}"
        self._keep_initialised()
        return None

    def _keep_initialised(self) -> None:
        """Say again what was said without the daemon, which says it itself when it starts."""
        if not self.persistence or "nvidia-persistenced.service" in self.stopped:
            return
        code, out, err = self.run(["nvidia-smi", "-pm", "1"])
        if code != 0:
            self.forgotten = f"persistence mode is off since the driver was exchanged: {(err or out).strip()}"

    def _put_back(self) -> str:
        """Loads again what was unloaded, from the new files: the old ones are gone. What did not come back."""
        lost = []
        for name in reversed(self.unloaded):
            if not self._present(name) and self.run(["modprobe", name.replace("_", "-")])[0] != 0:
                lost.append(name)
        return f"; not loaded again: {', '.join(lost)}" if lost else ""

    def _start_services(self) -> list[str]:
        """Starts what was stopped; those that did not come up."""
        lost = []
        for unit in reversed(self.stopped):
            self.run(["systemctl", "start", unit])
            # A service may start and end at once, as a fabric manager of another version does.
            if self.run(["systemctl", "is-active", "--quiet", unit])[0] == 0:
                self.started.append(unit)
            else:
                lost.append(unit)
        return lost


def signatures_required(facts: dict[str, Any]) -> bool:
    """Whether the kernel refuses modules without a signature that it trusts; ``facts`` as kernel.facts gives them."""
    return bool(
        facts["secure_boot"]
        or facts["module_signatures_enforced"]
        or facts["lockdown"] in ("integrity", "confidentiality")
    )
