# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What calls an environment from outside: gpufleet-python and Jupyter's kernels. Private to the collection.

The link ``current`` is followed once, when the program starts: an upgrade then changes nothing under a job that runs.
"""

from __future__ import annotations

import json
import os
import shlex

from ansible_collections.gpufleet.stack.plugins.module_utils.login_environment import Changes, put, rights
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json

COMMAND = "/usr/local/bin/gpufleet-python"
KERNELS = "/usr/local/share/jupyter/kernels"
OURS = "gpufleet.stack"
WRAPPER = """\
#!/bin/sh
# Written by gpufleet.stack; the next run of the playbook writes it again.
# The Python of the environment GPUFLEET_ENVIRONMENT, "default" without it.
folder={prefix}/envs/"${{GPUFLEET_ENVIRONMENT:-default}}"
if ! path=$(readlink -e "$folder/current"); then
  echo "gpufleet-python: there is no environment $folder" >&2
  exit 127
fi
exec "$path/bin/python" "$@"
"""


def wrapper(prefix: str) -> str:
    """The program gpufleet-python."""
    return WRAPPER.format(prefix=shlex.quote(prefix))


def kernel(name: str, torch_version: str) -> str:
    """A kernel's specification, which Jupyter of any user finds."""
    document = {
        "argv": [COMMAND, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"PyTorch {torch_version} ({name})",
        "env": {"GPUFLEET_ENVIRONMENT": name},
        "language": "python",
        "metadata": {"debugger": True, "written_by": OURS},
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def apply(prefix: str, kernels: dict[str, str], root: str = "/", check_mode: bool = False) -> Changes:
    """Write the program and the kernels; kernels of ours that are not among them go.

    :param kernels: version of torch by environment, of those that Jupyter is to find.
    :raises GpufleetError: GF-RIGHTS
    """
    changes = Changes()
    folder = os.path.join(root, KERNELS.lstrip("/"))
    wanted = {os.path.join(folder, f"gpufleet-{name}", "kernel.json"): kernel(name, kernels[name]) for name in kernels}
    with rights():
        command = os.path.join(root, COMMAND.lstrip("/"))
        put(command, wrapper(prefix), changes, check_mode)
        if not check_mode:
            os.chmod(command, 0o755)
        for path, text in wanted.items():
            put(path, text, changes, check_mode)
        for path in sorted(set(_ours(folder)) - set(wanted)):
            put(path, None, changes, check_mode)
            if not check_mode and not os.listdir(os.path.dirname(path)):
                os.rmdir(os.path.dirname(path))
    return changes


def _ours(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    paths = [os.path.join(folder, name, "kernel.json") for name in names if name.startswith("gpufleet-")]
    return [path for path in paths if _is_ours(path)]


def _is_ours(path: str) -> bool:
    metadata = (read_json(path) or {}).get("metadata")
    return isinstance(metadata, dict) and metadata.get("written_by") == OURS
