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
from collections.abc import Callable
from typing import Any, NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils import nvml_check

LIBRARY = "libnvidia-ml.so.1"
WSL_LIBRARY = "/usr/lib/wsl/lib/libnvidia-ml.so.1"
# Where a recorded node keeps what NVML answered there: an Answer as a JSON object.
RECORD = ".gpufleet/nvml.json"
_MOST_OUTPUT = 1024 * 1024


class Answer(NamedTuple):
    """What NVML said: the driver's versions, the GPUs in NVML's order, and what went wrong."""

    system: dict[str, Any]
    devices: list[dict[str, Any]]
    errors: list[dict[str, str]]


def checked(system: Any, devices: list[Any], errors: list[Any]) -> Answer:
    """An answer in which every value is of its type and within sense."""
    found, problems = nvml_check.devices(devices)
    return Answer(nvml_check.system(system) if system else {}, found, nvml_check.errors([*errors, *problems]))


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
        # Only here: what never asks NVML needs no ctypes.
        from ansible_collections.gpufleet.stack.plugins.module_utils import nvml_query

        _detach(pipe)
        for record in nvml_query.records(library):
            os.write(pipe, json.dumps(record).encode() + b"\n")
        os.write(pipe, b'{"kind": "end"}\n')
    finally:
        # Never back into the parent's code: its exit handlers and its output belong to the parent.
        os._exit(0)


def _read(pipe: int, deadline: float) -> tuple[bytes, str | None]:
    """All that the child wrote, and why reading ended early: ``late``, ``flood`` or None."""
    chunks: list[bytes] = []
    size = 0
    while size <= _MOST_OUTPUT:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            return b"".join(chunks), "late"
        chunk = os.read(pipe, 65536)
        if not chunk:
            return b"".join(chunks), None
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks), "flood"


def _reap(child: int, deadline: float) -> int | None:
    """The child's wait status, or None where it can't be reaped: a process in the kernel ignores SIGKILL."""
    pause = 0.0002
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return status
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)  # it said all it had to say and does not end
            return None
        time.sleep(pause)
        pause = min(pause * 2, 0.01)


def _parse(output: bytes) -> tuple[Answer, bool]:
    """The records that the child wrote, and whether it came to its end."""
    system: dict[str, Any] = {}
    devices: list[Any] = []
    errors: list[Any] = []
    ended = garbled = False
    lines = output.split(b"\n")
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            # The last one may have been cut off in the middle, where the child was.
            garbled = garbled or (bool(line) and number < len(lines) - 1)
            continue
        kind = record.pop("kind", None) if isinstance(record, dict) else None
        if kind == "system":
            system.update(record)
        elif kind == "device":
            devices.append(record)
        elif kind == "error":
            errors.append(record)
        elif kind == "end":
            ended = True
        else:
            garbled = True
    if garbled:
        errors.append(nvml_check.absurd("NVML's process answered with lines that are no answer; they are left out"))
    return checked(system, devices, errors), ended


def _ending(early: str | None, ended: bool, status: int | None, timeout: float, known: int) -> dict[str, str] | None:
    if early == "late":
        message = f"NVML did not answer within {timeout:g} s and was abandoned; {known} GPUs had answered"
        return {"code": "GF-NVML-TIMEOUT", "message": message}
    if early == "flood":
        return nvml_check.absurd(f"NVML's process wrote more than {_MOST_OUTPUT} bytes and was ended")
    if ended:
        return None
    number = status & 0x7F if status is not None else 0
    how = f"signal {number}" if number else "an exception"
    return {"code": "GF-NVML-CRASH", "message": f"NVML's process ended with {how}; {known} GPUs had answered"}


def start(library: str = LIBRARY, timeout: float = 5.0) -> Callable[[], Answer]:
    """Asks NVML everything at once, in a process of its own; call what is returned for the answer.

    The answer is there within ``timeout`` seconds from now, whatever the driver does.
    """
    deadline = time.monotonic() + timeout
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(writer, library)
    os.close(writer)
    return lambda: _answer(child, reader, deadline, timeout)


def _answer(child: int, reader: int, deadline: float, timeout: float) -> Answer:
    # What is left at the end is for seeing the child die.
    patience = min(0.25, timeout / 10)
    try:
        output, early = _read(reader, deadline - patience)
    finally:
        os.close(reader)
    if early:
        os.kill(child, signal.SIGKILL)
    status = _reap(child, deadline)
    answer, ended = _parse(output)
    problem = _ending(early, ended, status, timeout, len(answer.devices))
    return answer._replace(errors=answer.errors + ([problem] if problem else []))


def ask(library: str = LIBRARY, timeout: float = 5.0) -> Answer:
    """Asks NVML and waits for its answer."""
    return start(library, timeout)()


def recorded(sysroot: str) -> Answer | None:
    """What NVML answered on the node that was recorded; None where nobody asked it."""
    path = os.path.join(sysroot, RECORD)
    try:
        with open(path, "rb") as stream:
            record = json.loads(stream.read(_MOST_OUTPUT))
        if not isinstance(record, dict):
            raise ValueError("no object")
        parts = [value if isinstance(value, list) else [] for value in (record.get("devices"), record.get("errors"))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return checked({}, [], [{"code": "GF-NVML-ERROR", "message": f"the record {RECORD} can't be read: {error}"}])
    return checked(record.get("system"), parts[0], parts[1])
