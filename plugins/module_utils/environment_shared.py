# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An environment in a directory that many nodes share: one builds it, the others use it. Private to the collection.

Most nodes often may only read that directory. They wait until a node that may write has completed the environment.
"""

from __future__ import annotations

import os
import time

from ansible_collections.gpufleet.stack.plugins.module_utils.environment_layout import Wanted
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_proof import prove
from ansible_collections.gpufleet.stack.plugins.module_utils.environment_survey import Survey, survey

PAUSE = 1.0


def used(wanted: Wanted) -> Survey | None:
    """The environment as another node has built it; None where this node has to, or may not wait any longer."""
    if not wanted.shared:
        return None
    deadline = time.monotonic() + wanted.lock_wait
    while not is_there(wanted):
        if may_write(os.path.dirname(wanted.link)) or time.monotonic() >= deadline:
            return None
        time.sleep(PAUSE)
    return proved(wanted)


def is_there(wanted: Wanted) -> bool:
    """Whether it is complete and active."""
    return survey(wanted).action() == "none"


def proved(wanted: Wanted) -> Survey:
    """It is imported on this node too, whose libraries and interpreter are its own."""
    prove(wanted.name, wanted.path, wanted.torch_version, wanted.cuda, wanted.companions)
    return survey(wanted)


def may_write(path: str) -> bool:
    """Whether this node may write where the path lies, or would lie."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK)
