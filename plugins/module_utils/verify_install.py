# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put gpufleet-verify on the node: a shell around it, the program, and what it has to know. Private to the collection."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
from typing import Any, Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    trees,
    verdict_store,
    verify_command,
    verify_prometheus,
)
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.login_environment import Changes, put, rights
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import read_json
from ansible_collections.gpufleet.stack.plugins.module_utils.verdict import How, expectations
from ansible_collections.gpufleet.stack.plugins.module_utils.verify_process import script_environment

# The Python may hang where its file system does, so the time is kept here, by what the shell has of itself.
WRAPPER = """\
#!/bin/sh
# Written by gpufleet.stack; the next run of the playbook writes it again.
# Whether this node is proved: exit status 0 proved, 1 failed, 2 not known. It ends in time, whatever hangs.
prefix={prefix}
limit={seconds}
former=
form=line
for word in "$@"; do
  case $word in
    --timeout=*) limit=${{word#--timeout=}} ;;
    --json) form=json ;;
  esac
  [ "$former" != --timeout ] || limit=$word
  former=$word
done

tell() {{
  if [ "$form" = json ]; then
    printf '{{"schema": 1, "status": "unknown", "exit": 2, "message": "%s"}}\\n' "$1"
  else
    echo "gpufleet-verify: not known: $1" >&2
  fi
  exit 2
}}

case $limit in
  '' | 0* | *[!0-9]*) tell "--timeout takes whole seconds, from 1 on" ;;
esac

ask() {{
  for folder in "$prefix"/envs/default "$prefix"/envs/*; do
    if [ -x "$folder/current/bin/python" ]; then
      exec "$folder/current/bin/python" -I -S -B {program} --state {state} "$@"
    fi
  done
  tell "there is no Python of an environment below $prefix/envs; run the playbook for this node"
}}

ask "$@" </dev/null &
child=$!
(
  trap 'kill "$sleeper"; exit' TERM
  sleep "$limit" &
  sleeper=$!
  wait "$sleeper"
  kill -USR1 $$
) </dev/null >/dev/null 2>&1 &
watch=$!
trap 'kill -KILL "$child"; tell "it did not end within $limit seconds"' USR1
trap 'kill -KILL "$child"; kill "$watch"; exit 2' HUP INT TERM
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""


def wrapper(prefix: str, state_dir: str) -> str:
    """The program's shell; it is the same on all nodes that share a prefix."""
    return WRAPPER.format(
        seconds=verify_command.MOST_SECONDS,
        prefix=shlex.quote(prefix),
        program=shlex.quote(program_path(prefix)),
        state=shlex.quote(state_dir),
    )


def command_path(prefix: str) -> str:
    """What is called."""
    return os.path.join(prefix, "bin", "gpufleet-verify")


def program_path(prefix: str) -> str:
    """What the shell has the environment's Python run."""
    return os.path.join(prefix, "libexec", "gpufleet_verify_node.py")


def settings_path(state_dir: str) -> str:
    """What the program has to know of this node."""
    return os.path.join(state_dir, verdict_store.SETTINGS)


def program() -> str:
    """The program's text: this collection's own module, which a zip archive may hold."""
    specification = importlib.util.find_spec(verify_command.__name__)
    text = specification.loader.get_source(verify_command.__name__) if specification and specification.loader else None  # type: ignore[attr-defined]
    if not text:
        raise GpufleetError(
            "GF-VERIFY-SCRIPT",
            "the program gpufleet-verify is not among the files of the module",
            "the collection on the controller is incomplete",
            "install the collection again",
        )
    return str(text)


def settings(environments: Iterable[dict[str, Any]], node: dict[str, Any], how: How, max_age: float) -> dict[str, Any]:
    """How the checks were run, so that the program runs them the same way."""
    return {
        "schema": 1,
        "script": how.script,
        "user": how.account.name if how.account is not None else None,
        "variables": script_environment(list(how.ld_library_path), "/", how.account),
        "max_age": max_age,
        "environments": [
            {
                "name": environment["name"],
                "interpreter": environment["interpreter"],
                "expect": expectations(environment, node),
            }
            for environment in environments
        ],
    }


def apply(prefix: str, state_dir: str, knows: dict[str, Any]) -> Changes:
    """Write the program and what it knows.

    :raises GpufleetError: GF-RIGHTS.
    """
    changes = Changes()
    former = (read_json(settings_path(state_dir)) or {}).get("prometheus")
    with rights():
        if former and former != knows.get("prometheus") and os.path.basename(former) == verify_prometheus.FILE_NAME:
            trees.remove(former)
        put(program_path(prefix), program(), changes, check_mode=False)
        put(command_path(prefix), wrapper(prefix, state_dir), changes, check_mode=False)
        os.chmod(command_path(prefix), 0o755)
        put(settings_path(state_dir), json.dumps(knows, indent=1, sort_keys=True) + "\n", changes, check_mode=False)
    return changes
