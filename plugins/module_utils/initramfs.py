# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that kernels start from: they hold settings of modules, and have to be made anew with those. Private to the collection.

Images are compared by age with the settings, so that a run that was cut off after the settings were written still has them
made anew by the next one.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Images as Debian and as the RHEL family name them; not those of a rescue system, which has no modules of ours.
PATTERNS = ("initrd.img-*", "initramfs-*.img")
TOOLS = (["update-initramfs", "-u", "-k", "all"], ["dracut", "--force", "--regenerate-all"])
MISSING = 127


def older(settings: Iterable[str], root: str = "/") -> list[str]:
    """The images that are older than one of the files with settings, as the node names them."""
    times = [os.stat(path).st_mtime for path in (_inside(root, each) for each in settings) if os.path.exists(path)]
    if not times:
        return []
    boot = glob.escape(os.path.join(root, "boot"))
    found = [path for pattern in PATTERNS for path in glob.glob(os.path.join(boot, pattern))]
    images = [path for path in found if "rescue" not in os.path.basename(path) and "kdump" not in path]
    return sorted("/" + os.path.relpath(path, root) for path in images if os.stat(path).st_mtime < max(times))


def _inside(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/"))


def rebuild(run: Run) -> bool:
    """Have all images made anew with the tool that the node has; False where it has none.

    :raises GpufleetError: GF-INITRAMFS
    """
    for command in TOOLS:
        code, out, err = run(command)
        if code == 0:
            return True
        if code != MISSING:
            raise GpufleetError(
                "GF-INITRAMFS",
                f"the images that the kernels start from could not be made anew: {err.strip() or out.strip()}",
                "/boot is full, or a kernel's modules are not complete",
                f"df -h /boot; then on the node: {' '.join(command)}",
            )
    return False
