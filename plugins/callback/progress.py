# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: aggregate
short_description: How far a run is, and each failure once with all its nodes
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
description:
  - Shows on standard error which role is at work, how many nodes are done, running and failed, what was transferred, and how
    long the step will take yet where the nodes that finished it give ground to say so.
  - On a terminal that is one line at the bottom, drawn anew as things change. Elsewhere it is a line every so often.
  - At the end every failure is told once, with the folded names of its nodes, its cause and what mends it.
  - Standard output stays what the standard output callback writes, so that other tools can read it.
requirements:
  - enabled with C(callbacks_enabled = gpufleet.stack.progress) in C(ansible.cfg), or E(ANSIBLE_CALLBACKS_ENABLED)
options:
  style:
    description:
      - V(line) is the line that is drawn anew, V(lines) is one every so often.
      - V(auto) is V(line) where standard error is a terminal that knows how to clear a line, and no program such as
        C(ansible-runner) reads it.
      - V(none) is as if it were not enabled.
    type: str
    choices: [auto, line, lines, none]
    default: auto
    env:
      - name: GPUFLEET_PROGRESS_STYLE
    ini:
      - section: gpufleet_progress
        key: style
  interval:
    description:
      - Seconds between two lines of O(style=lines). After every five lines it doubles, up to sixteen times as many, so that a run of an
        hour writes no more than 25 lines.
    type: float
    default: 30
    env:
      - name: GPUFLEET_PROGRESS_INTERVAL
    ini:
      - section: gpufleet_progress
        key: interval
"""

import atexit
import sys
import threading
import time
from typing import Any

from ansible import context
from ansible.playbook.block import Block
from ansible.plugins.callback import CallbackBase
from ansible_collections.gpufleet.stack.plugins.plugin_utils import progress_failures as ended
from ansible_collections.gpufleet.stack.plugins.plugin_utils import progress_text
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress import Progress
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_screen import Screen, on_terminal

# Where a result says what was transferred. Others are not looked into: a copy of a result is what costs time here.
SIZES = {
    "gpufleet.stack.cuda_wheels": "fetched_bytes",
    "gpufleet.stack.cudnn_install": "fetched_bytes",
    "gpufleet.stack.pytorch_environment": "fetched_bytes",
    "gpufleet.stack.runfile": "fetched_bytes",
    "gpufleet.stack.wheelhouse": "bytes",
}
# Somebody is typing there.
PROMPTS = ("ansible.builtin.pause", "pause")


class CallbackModule(CallbackBase):
    """Hands what Ansible tells to ``Progress``, and what that says to standard error."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "gpufleet.stack.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._progress = Progress(time.monotonic())
        self._pace = progress_text.Pace(30, self._progress.began)
        self._screen: Screen | None = None
        self._over = threading.Event()
        self._asking = False
        self._included: dict[str, set[str]] = {}
        self._stopped: set[str] = set()

    # --- writing ---

    def _begin(self) -> None:
        style = self.get_option("style")
        if style == "line" or (style == "auto" and on_terminal() and not context.CLIARGS.get("step")):
            self._screen = Screen(self._display)
        atexit.register(self._end)
        # Ansible may be given several playbooks; each has its own.
        self._over = threading.Event()
        threading.Thread(target=self._watch, args=(self._over,), name="gpufleet-progress", daemon=True).start()

    def _watch(self, over: threading.Event) -> None:
        """In a thread: a download of minutes is no reason to look dead."""
        try:
            while not over.wait(0.25 if self._screen else 0.5):
                self._tick(time.monotonic())
        except (OSError, ValueError):  # standard error was closed
            return

    def _tick(self, now: float) -> None:
        if self._asking or self._progress.current is None:
            return
        if self._screen is not None:
            with self._lock:
                text = progress_text.line(self._progress, now, self._screen.width())
            self._screen.draw(text)
        elif self._pace.ask(now):
            with self._lock:
                text = progress_text.line(self._progress, now)
            self._say(text)

    def _say(self, text: str) -> None:
        self._display.display(text, stderr=True)
        sys.stderr.flush()

    def _end(self) -> None:
        self._over.set()
        if self._screen is not None:
            self._screen.close()

    # --- what Ansible tells ---

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if self.get_option("style") == "none":
            self.disabled = True
            return
        ended.SEEN.clear()
        now = time.monotonic()
        self._progress = Progress(now)
        self._pace = progress_text.Pace(self.get_option("interval"), now)
        self._begin()

    def v2_playbook_on_vars_prompt(self, *_arguments: Any, **_more: Any) -> None:
        self._asking = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        variables = play.get_variable_manager().get_vars(play=play)
        stages = [role.get_name(include_role_fqcn=False) for role in play.roles]
        self._asking = False
        self._included = {}
        with self._lock:
            self._progress.begin_play(variables["ansible_play_batch"], variables["ansible_play_hosts_all"], stages)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        hosts = self._included.setdefault(included_file._task._uuid, set())
        hosts.update(host.get_name() for host in included_file._hosts)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._asking = task.action in PROMPTS
        if self._asking and self._screen is not None:
            self._screen.erase()
        with self._lock:
            self._progress.begin_step(task._uuid, _stage(task), str(task.name or task.action), self._total(task))

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        with self._lock:
            self._progress.begin_step(task._uuid, _stage(task), str(task.name or task.action), None)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._stopped.discard(host.get_name())
        with self._lock:
            self._progress.start(task._uuid, host.get_name(), time.monotonic())

    def v2_runner_on_ok(self, result: Any) -> None:
        key = None if result.task.check_mode else SIZES.get(result.task.action)
        fetched = _sum(result.result, key) if key else 0
        self._finish(result, fetched)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._finish(result, skipped=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        # The argument is Ansible's: a task's own ignore_errors. What a playbook ignores is no failure of its run.
        if not ignore_errors:
            ended.SEEN[result.host.get_name()] = ended.failure(result.result)
            if result.task.any_errors_fatal or result.task.run_once:
                self._stopped |= self._progress.in_batch
        self._finish(result, lost=not ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        ended.SEEN[result.host.get_name()] = ended.failure(result.result, unreachable=True)
        self._finish(result, lost=True)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._stopped |= self._progress.in_batch

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end()
        failed, unreachable = set(stats.failures), set(stats.dark)
        found = {host: ended.SEEN.get(host, ended.UNTOLD) for host in failed | unreachable}
        nodes = set(stats.processed)
        if len(nodes) < 2 and not found and not self._pace.count:
            return
        stopped = (self._stopped & nodes) - failed - unreachable
        seconds = time.monotonic() - self._progress.began
        numbers = (len(nodes), len(failed - unreachable), len(unreachable), len(stopped))
        for line in [ended.end_line(ended.End(*numbers, seconds, self._progress.fetched)), *ended.failure_lines(found)]:
            self._say(line)

    # --- reading it ---

    def _finish(self, result: Any, fetched: int = 0, skipped: bool = False, lost: bool = False) -> None:
        with self._lock:
            self._progress.fetched += fetched
            self._progress.finish(result.task._uuid, result.host.get_name(), time.monotonic(), skipped, lost)

    def _total(self, task: Any) -> int | None:
        """How many nodes come to a task at most; None in a rescue, to which only those come that failed."""
        if task.run_once is True:
            return 1
        child, parent = task, task._parent
        while parent is not None:
            if isinstance(parent, Block) and child._uuid in {each._uuid for each in parent.rescue}:
                return None
            if parent._uuid in self._included:
                return len(self._included[parent._uuid])
            child, parent = parent, parent._parent
        return self._progress.batch


def _stage(task: Any) -> str:
    """The role of the playbook to which the task belongs, through the roles that it includes."""
    role = task._role
    while role is not None and role.get_parents():
        role = role.get_parents()[0]
    return "" if role is None else str(role.get_name(include_role_fqcn=False))


def _sum(result: Any, key: str) -> int:
    items = result.get("results")
    return sum(int(each.get(key) or 0) for each in (items if isinstance(items, list) else [result]))
