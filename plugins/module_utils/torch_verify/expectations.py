# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan says that this machine is. Private to the collection."""

from __future__ import annotations

import json
from typing import Any

DEFAULT_SEED = 0


class Expectations:
    """What the plan says. ``has`` tells an expectation of null from no expectation."""

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        wrong = sorted(key for key, kind in EXPECTATION_KINDS.items() if not self._is(key, kind))
        if wrong:
            raise ValueError("--expect: wrong type of value for {}".format(", ".join(wrong)))

    def _is(self, key: str, kind: Any) -> bool:
        value = self._given.get(key)
        return value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))

    def has(self, key: str) -> bool:
        return key in self._given

    def get(self, key: str, otherwise: Any = None) -> Any:
        value = self._given.get(key)
        return otherwise if value is None else value

    @property
    def seed(self) -> int:
        return int(self.get("seed", DEFAULT_SEED))

    @property
    def gpus(self) -> int | None:
        value = self.get("gpus")
        return None if value is None else int(value)

    @property
    def skip_reason(self) -> str | None:
        """Why no GPU is checked, or None."""
        if self.get("gpu_checks") != "skip":
            return None
        return str(self.get("gpu_skip_reason", "the plan says so and gives no reason"))

    @property
    def driver_pending(self) -> bool:
        return bool(self.get("driver_pending", False))


EXPECTATION_KINDS: dict[str, Any] = {
    "torch_version": str,
    "cuda": str,
    "cudnn": str,
    "torchvision": str,
    "torchaudio": str,
    "gpus": int,
    "compute_capabilities": list,
    "devices": list,
    "toolkit": str,
    "soak_seconds": int,
    "gpu_checks": str,
    "gpu_skip_reason": str,
    "driver_pending": bool,
    "seed": int,
}


def read(path: str | None) -> Expectations:
    """What stands in a file; nothing expected without one.

    :raises ValueError: where it holds something else.
    """
    if path is None:
        return Expectations()
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    if not isinstance(given, dict):
        raise ValueError(f"--expect: {path} does not hold a JSON object")  # it is the file that is wrong
    return Expectations(given)
