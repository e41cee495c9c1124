# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin behind ``gpufleet.stack.wheelhouse``: fetches on the controller, copies to where nodes find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.wheelhouse_store import Store

Row = dict[str, Any]
MODULE = "gpufleet.stack.wheelhouse"
# Small files are taken in together. What is cut off costs one such lot at most, or one wheel.
LOT_BYTES = 64 << 20


class ActionModule(ActionBase):
    """Fetch, or copy."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: Row | None = None) -> Row:
        """Carry out one state; see plugins/modules/wheelhouse.py for the parameters."""
        result: Row = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["fetched", "copied"], "required": True},
                "store": {"type": "path", "required": True},
                "files": {"type": "list", "elements": "dict", "required": True},
                "directory": {"type": "path", "default": ""},
                "indexes": {"type": "list", "elements": "str", "default": [], "no_log": True},
                "offline": {"type": "bool", "default": False},
                "host": {"type": "str", "default": ""},
                "shared": {"type": "bool", "default": False},
            }
        )
        # Every process of this run has the same scratch directory, and Ansible removes it at the end.
        store = Store(args["store"], constants.DEFAULT_LOCAL_TMP, args["offline"])
        try:
            if args["state"] == "fetched":
                result.update(self._fetch(store, args))
            else:
                result.update(self._copy(store, args, task_vars))
        except GpufleetError as error:
            result.update(failed=True, msg=str(error), error=error.as_dict())
        return result

    def _fetch(self, store: Store, args: Row) -> Row:
        if self._task.check_mode:
            absent = store.absent(args["files"])
            return {"changed": bool(absent), "bytes": sum(each["size"] or 0 for each in absent), "first": False}
        # The nodes wait here for the one that fetches.
        fetched = store.bring(args["files"], args["indexes"])
        return {"changed": fetched > 0, "bytes": fetched, "first": bool(args["host"]) and store.first(args["host"])}

    def _copy(self, store: Store, args: Row, task_vars: Row | None) -> Row:
        if not args["shared"]:
            return self._carry(store, args["directory"], args["files"], task_vars)
        where = f"{args['host']}:{args['directory']}"
        with store.alone("shared"):
            files = store.carried(where, args["files"])
            if not files:
                return {"changed": False, "bytes": 0}
            done = self._carry(store, args["directory"], files, task_vars)
            if not done.get("failed") and not self._task.check_mode:
                store.carry(where, files)
        return done

    def _carry(self, store: Store, directory: str, files: list[Row], task_vars: Row | None) -> Row:
        """Ask what is lacking, and bring it lot by lot."""
        there = self._ask(directory, files, "", task_vars)
        if there.get("failed") or there.get("unreachable"):
            return there
        lacking = [each for each in files if each["sha256"] in there["lacking"]]
        size = sum(each["size"] or 0 for each in lacking)
        if self._task.check_mode or not lacking:
            return {"changed": bool(lacking), "bytes": size}
        for lot in lots(lacking):
            done = self._bring(store, directory, lot, task_vars)
            if done.get("failed") or done.get("unreachable"):
                return done
        return {"changed": True, "bytes": size}

    def _bring(self, store: Store, directory: str, lot: list[Row], task_vars: Row | None) -> Row:
        incoming = self._make_tmp_path()
        try:
            for each in lot:
                self._transfer_file(store.path(each), self._connection._shell.join_path(incoming, each["sha256"]))
            return self._ask(directory, lot, incoming, task_vars)
        finally:
            self._remove_tmp_path(incoming, force=True)

    def _ask(self, directory: str, files: list[Row], incoming: str, task_vars: Row | None) -> Row:
        rows = [{key: each[key] for key in ("name", "sha256")} for each in files]
        module_args = {"directory": directory, "files": rows, "incoming": incoming}
        answer: Row = self._execute_module(module_name=MODULE, module_args=module_args, task_vars=task_vars)
        return answer


def lots(files: list[Row]) -> Iterator[list[Row]]:
    """The files in lots; a large one is a lot of its own."""
    lot: list[Row] = []
    filled = 0
    for each in sorted(files, key=lambda file: file["size"] or LOT_BYTES):
        size = each["size"] or LOT_BYTES
        if lot and filled + size > LOT_BYTES:
            yield lot
            lot, filled = [], 0
        lot.append(each)
        filled += size
    if lot:
        yield lot
