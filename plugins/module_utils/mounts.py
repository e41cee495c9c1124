# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kind of file system a path lies on. Private to the collection."""

from __future__ import annotations

import contextlib

from ansible_collections.gpufleet.stack.plugins.module_utils.removal_baseline import within

# Other nodes may use what lies on one of these.
SHARED = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "nfs",
        "nfs4",
        "panfs",
        "pvfs2",
        "smb3",
        "wekafs",
    ]
)


def file_system(path: str, root: str = "/") -> str:
    """The type of the file system that a path of the node lies on, by its longest mount point; empty where unknown."""
    found = ("", "")
    with contextlib.suppress(OSError), open(within(root, "/proc/self/mounts"), encoding="utf-8") as stream:
        for line in stream:
            _device, point, kind = line.split(" ", 3)[:3]
            point = point.replace("\\040", " ").rstrip("/")
            # Of two mounts on one point the later one is seen.
            if (path + "/").startswith(point + "/") and len(point) >= len(found[0]):
                found = (point, kind)
    return found[1]
