# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CUDA facts of a node, put together. Private to the collection."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    cuda_toolkits,
    cudnn_copies,
    packages,
    shell_variables,
    torch_installs,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot


def collect(sysroot: str = "/", prefix: str = "/opt/gpufleet") -> dict[str, Any]:
    """The facts ``gpufleet_cuda``, every key always there; no process is started but rpm, where there is one.

    :param sysroot: everything is read below it.
    :param prefix: where the collection installs, as the node sees it.
    """
    node, prefix = Sysroot(sysroot), prefix.rstrip("/")
    # rpm has to be started to be asked, so it is asked only where there is something to ask for.
    ask = bool(node.listing("/usr/local", "cuda-*")) or cudnn_copies.in_system(node)
    installed = packages.installed_versions(None, sysroot) if ask else packages.versions_on_file(sysroot)
    environment = shell_variables.read(node)
    toolkits = cuda_toolkits.find(node, prefix, installed)
    torches = torch_installs.find(node, prefix)
    errors = [
        {"code": "GF-TORCH-UNREADABLE", "message": f"{torch['path']}: torch/version.py names no version"}
        for torch in torches
        if torch["version"] is None
    ]
    return {
        "toolkits": toolkits,
        "cudnn": cudnn_copies.find(node, prefix, installed, toolkits, environment["ld_library_path"]),
        "environment": environment,
        "torch": torches,
        "shadowed": torch_installs.shadowed(node, torches, environment["ld_library_path"]),
        "errors": errors,
    }
