# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML, asked in a process of its own. Private to the collection.

A broken driver can make NVML hang for ever, even beyond the reach of SIGKILL, or crash. So a forked child asks,
and the parent waits no longer than it was told to; a hang or a crash is a finding like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import nvml_query

LIBRARY = "libnvidia-ml.so.1"
WSL_LIBRARY = "/usr/lib/wsl/lib/libnvidia-ml.so.1"


class Answer(NamedTuple):
    """What NVML said: the driver's versions, the GPUs in NVML's order, and what went wrong."""

    system: dict[str, Any]
    devices: list[dict[str, Any]]
    errors: list[dict[str, str]]


def _detach(keep: int) -> None:
    """Leaves the child with nothing of the parent's but the pipe.

    A child that hangs in the kernel outlives the module. Did it hold the module's output open, then whoever
    reads that, ssh or Ansible, would wait for it.
    """
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed by now
                os.close(int(name))


def _child(pipe: int, library: str) -> None:
    try:
        _detach(pipe)
        for record in nvml_query.records(library):
            os.write(pipe, json.dumps(record).encode() + b"\n")
        os.write(pipe, b'{"kind": "end"}\n')
    finally:
        # Never back into the parent's code: its exit handlers and its output belong to the parent.
        os._exit(0)


def _read(pipe: int, deadline: float) -> tuple[bytes, bool]:
    """All that the child wrote, and whether it closed the pipe before the deadline."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return b"".join(chunks), False
        chunk = os.read(pipe, 65536)
        if not chunk:
            return b"".join(chunks), True
        chunks.append(chunk)


def _reap(child: int, patience: float) -> int | None:
    """The child's wait status, or None where it can't be reaped: a process in the kernel ignores SIGKILL."""
    deadline = time.monotonic() + patience
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def _parse(output: bytes) -> tuple[Answer, bool]:
    answer, ended = Answer({}, [], []), False
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break  # cut off in the middle of a line
        kind = record.pop("kind")
        if kind == "system":
            answer.system.update(record)
        elif kind == "device":
            answer.devices.append(record)
        elif kind == "error":
            answer.errors.append(record)
        ended = ended or kind == "end"
    return answer, ended


def ask(library: str = LIBRARY, timeout: float = 5.0) -> Answer:
    """Asks NVML everything at once and returns within ``timeout`` and a little, whatever the driver does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, library)
    os.close(writer)
    try:
        output, closed = _read(reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
    if not closed:
        os.kill(child, signal.SIGKILL)
    status = _reap(child, 0.5)
    answer, ended = _parse(output)
    if not closed:
        message = f"NVML did not answer within {timeout:g} s and was abandoned; {len(answer.devices)} GPUs had answered"
        answer.errors.append({"code": "GF-NVML-TIMEOUT", "message": message})
    elif not ended:
        number = status & 0x7F if status is not None else 0
        how = f"signal {number}" if number else "an exception"
        answer.errors.append({"code": "GF-NVML-CRASH", "message": f"NVML's process ended with {how}"})
    return answer
