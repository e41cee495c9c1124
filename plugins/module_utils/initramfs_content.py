# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the images that kernels start from hold of drivers that compete for the GPU. Private to the collection."""

from __future__ import annotations

import glob
import os
import re

from ansible_collections.gpufleet.stack.plugins.module_utils.commands import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

# Images as Debian and as the RHEL family name them, each with the tool that lists it.
LISTS = (("initrd.img-*", "lsinitramfs"), ("initramfs-*.img", "lsinitrd"))
COMPETITOR = re.compile(r"(?:^|/)(nouveau|nova[_-]core)\.ko(?:\.\w+)?$", re.MULTILINE)
MISSING = 127


def images(root: str = "/") -> dict[str, str]:
    """``{image: tool that lists it}``; not the images of rescue systems and of crash dumps, which are not ours."""
    boot = glob.escape(os.path.join(root, "boot"))
    return {
        path: tool
        for pattern, tool in LISTS
        for path in sorted(glob.glob(os.path.join(boot, pattern)))
        if not re.search(r"rescue|kdump|\.(?:new|dpkg-bak|old-dkms)$", path)
    }


def check(run: Run, settings: str, root: str = "/") -> list[str]:
    """See that no image loads a competing driver: it has none, or has the settings that keep it from being loaded.

    :param settings: the file that blacklists the competing drivers.
    :returns: the images that were looked into.
    :raises GpufleetError: GF-INITRAMFS-DRIVER
    """
    seen = []
    for image, tool in images(root).items():
        code, out, _err = run([tool, image])
        if code == MISSING:
            continue
        seen.append(image)
        held = sorted({match.rpartition("/")[2] for match in COMPETITOR.findall(out)}) if code == 0 else []
        named = re.search(rf"(?:^|\s|/){re.escape(settings.lstrip('/'))}$", out, re.MULTILINE)
        if code == 0 and not (held and not named):
            continue
        raise GpufleetError(
            "GF-INITRAMFS-DRIVER",
            f"{image} holds {', '.join(held)} without {settings}" if held else f"{image} cannot be listed",
            "a hook leaves the settings of modules out of the image, or the image is damaged",
            f"{tool} {image} shows it; mend /etc/initramfs-tools or /etc/dracut.conf.d, then run the playbook again",
        )
    return seen
