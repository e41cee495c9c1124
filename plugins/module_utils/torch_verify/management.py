# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks, their limits and NVLink of a GPU that works, from NVIDIA's management library. Private to the collection."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from typing import Any, Iterator

LIBRARY = "libnvidia-ml.so.1"
SM_CLOCK = 1
MOST_LINKS = 18
SAMPLE_SECONDS = 0.2
# Reasons for a lower clock that mean a fault (nvml.h, nvmlClocksThrottleReason*). A power cap, an idle GPU or a setting of
# the site are none.
FAULTS = {
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}


class Management:
    """One GPU in the management library; what it does not tell is None."""

    def __init__(self, address: str, library: Any = None) -> None:
        """:raises OSError: without the library, or where it does not know the GPU."""
        self.library = library or ctypes.CDLL(LIBRARY)
        self.handle = ctypes.c_void_p()
        if self.library.nvmlInit_v2() != 0:
            raise OSError(f"{LIBRARY} does not start")
        name = address.encode("ascii")
        if self.library.nvmlDeviceGetHandleByPciBusId_v2(ctypes.c_char_p(name), ctypes.byref(self.handle)) != 0:
            raise OSError(f"{LIBRARY} does not know the GPU at {address}")

    def _ask(self, function: str, kind: Any, *arguments: Any) -> int | None:
        value = kind()
        call = getattr(self.library, function, None)  # an older library lacks what is newer
        if call is None or call(self.handle, *arguments, ctypes.byref(value)) != 0:
            return None
        return int(value.value)

    def faults(self) -> list[str]:
        """Why the clocks are lower than they could be, as far as that is a fault."""
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return [name for bit, name in FAULTS.items() if reasons & bit]

    def clock(self) -> int | None:
        """Of the multiprocessors, in MHz."""
        return self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_uint(SM_CLOCK))

    def highest_clock(self) -> int | None:
        """The highest that the GPU has, in MHz."""
        return self._ask("nvmlDeviceGetMaxClockInfo", ctypes.c_uint, ctypes.c_uint(SM_CLOCK))

    def links(self) -> list[bool]:
        """Whether each NVLink of the GPU is up; none on a GPU without any."""
        states = [
            self._ask("nvmlDeviceGetNvLinkState", ctypes.c_uint, ctypes.c_uint(link)) for link in range(MOST_LINKS)
        ]
        return [bool(state) for state in states if state is not None]


class Samples:
    """What was seen while the GPU worked."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.clocks: list[int] = []

    def take(self, gpu: Management) -> None:
        """Look once."""
        self.faults.update(gpu.faults())
        clock = gpu.clock()
        if clock is not None:
            self.clocks.append(clock)


@contextlib.contextmanager
def watched(gpu: Management, seconds: float = SAMPLE_SECONDS) -> Iterator[Samples]:
    """Look at the GPU every so often for as long as the work inside takes."""
    samples, done = Samples(), threading.Event()

    def look() -> None:
        while not done.wait(seconds):
            samples.take(gpu)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def links_outcome(links: list[bool]) -> tuple[bool, str]:
    """A GPU none of whose links is up is one without a bridge; one with some up and some down has lost them."""
    up = sum(links)
    good = up in (0, len(links))
    return good, "" if good else f"{len(links) - up} of {len(links)} NVLinks are down"
