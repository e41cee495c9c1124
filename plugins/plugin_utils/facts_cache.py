# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the last probe of each node found, kept on the controller. Private to the collection.

One JSON file a node, readable by its owner only. A plan can be made from it without contacting the node.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.node import SCHEMA

Row = dict[str, Any]

PARTS = {"gpu": dict, "cuda": dict, "node": dict, "receipts": dict}
KEPT = ("schema", *PARTS, "verdict")
LONGEST_NAME = 150
# The same words for every node, so that nodes with the same trouble are told together.
LOOK_AGAIN = "look at the node again: ansible-playbook playbooks/plan.yml"


def file_of(directory: str, host: str) -> str:
    """The file of a node. A name from an inventory may hold anything; the file always lies in the directory."""
    name = quote(host, safe="[]:@+")
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 41]}-{hashlib.sha256(host.encode()).hexdigest()[:40]}"
    return os.path.join(os.path.expanduser(directory), f"{name}.json")


def keep(directory: str, host: str, probe: Row) -> None:
    """Write down what was found on the node; the file is whole at any time.

    :raises OSError: where the directory cannot be written to.
    """
    path = file_of(directory, host)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = {**{key: probe[key] for key in KEPT if key in probe}, "host": host, "read_at": at}
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(directory: str, host: str) -> Row:
    """The last probe of the node.

    :raises GpufleetError: GF-FACTS-MISSING, GF-FACTS-VERSION, GF-FACTS-INVALID.
    """
    path = file_of(directory, host)
    try:
        with open(path, encoding="utf-8") as stream:
            probe = json.load(stream)
    except FileNotFoundError as error:
        raise GpufleetError(
            "GF-FACTS-MISSING",
            "there are no cached facts of this node",
            f"{os.path.dirname(path)} has no file of it: it was not looked at yet, or its facts are kept elsewhere",
            LOOK_AGAIN,
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise invalid(f"{path} cannot be read: {error}") from error
    if not isinstance(probe, dict):
        raise invalid(f"{path} holds no facts")
    if probe.get("schema") != SCHEMA:
        found = probe.get("schema")
        raise GpufleetError(
            "GF-FACTS-VERSION",
            f"the cached facts are of schema {found if isinstance(found, int) else 'unknown'}, this version reads {SCHEMA}",
            "they were read by another version of the collection",
            LOOK_AGAIN,
        )
    for part, kind in PARTS.items():
        if not isinstance(probe.get(part), kind):
            raise invalid(f"{path} has no part {part!r}")
    return probe


def invalid(what: str) -> GpufleetError:
    """The error for facts that are not what a probe leaves."""
    return GpufleetError(
        "GF-FACTS-INVALID",
        "the cached facts of this node cannot be used",
        what,
        LOOK_AGAIN,
    )
