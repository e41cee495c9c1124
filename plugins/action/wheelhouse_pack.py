# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.wheelhouse_pack``: a portable wheelhouse for the nodes of the play."""

from __future__ import annotations

import os
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import wheelhouse_pack, wheelhouse_seal
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_locks import RunLocks
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_names import fold
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]


class ActionModule(ActionBase):
    """Plan every node from its kept facts, and fetch all that the plans name. Nothing is run on any node."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Row | None = None) -> Row:
        """See plugins/modules/wheelhouse_pack.py for the parameters."""
        result: Row = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "facts_directory": {"type": "path", "required": True},
                "more": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {"file": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
                },
                "key": {"type": "str", "default": "", "no_log": False},
                "indexes": {"type": "list", "elements": "str", "default": [], "no_log": True},
                "mirror": {"type": "str", "default": "", "no_log": True},
            }
        )
        variables: Row = task_vars or {}
        nodes = list(variables["ansible_play_hosts"])
        try:
            result.update(self._pack(args, nodes, variables["hostvars"]))
        except GpufleetError as error:
            result.update(failed=True, msg=str(error), error=error.as_dict())
        return result

    def _pack(self, args: Row, nodes: list[str], hostvars: Any) -> Row:
        check = self._task.check_mode
        locks = os.path.join(args["directory"], wheelhouse_seal.LOCKS)
        packer = wheelhouse_pack.Packer(
            args["facts_directory"], RunLocks(locks, write=not check, scratch=constants.DEFAULT_LOCAL_TMP)
        )
        for node in nodes:
            packer.pack(node, hostvars[node])
        if packer.refused:
            lines = [f"{fold(hosts)}: {reason}" for reason, hosts in packer.refused.items()]
            return {"failed": True, "msg": "\n".join(lines)}
        packer.take(args["more"])
        store, files = Store(args["directory"], constants.DEFAULT_LOCAL_TMP), list(packer.files.values())
        if check:
            absent = store.absent(files)
            size = sum(each["size"] or 0 for each in absent)
            return {"changed": bool(absent), "files": len(files), "bytes": size, "fetched": 0}
        return wheelhouse_pack.write(store, files, nodes, args["indexes"], args["key"], args["mirror"])
