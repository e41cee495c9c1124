# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stages the tags of a run leave out. Private to the collection."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import ROLES

BECAUSE = "this run's tags leave it out"


def left_out(run: Iterable[str] | None, skip: Iterable[str] | None) -> frozenset[str]:
    """The stages that ``--tags`` and ``--skip-tags`` keep this run from carrying out.

    Each role bears its name as tag. A tag that is no role's name is somebody's own: it may stand for any role, so nothing is
    concluded from it.

    :param run: Ansible's ``ansible_run_tags``.
    :param skip: Ansible's ``ansible_skip_tags``.
    """
    asked = set(run or ()) - {"always"}
    known = bool(asked) and asked <= set(ROLES)
    skipped = set(skip or ()) & set(ROLES)
    return frozenset(skipped | (set(ROLES) - asked if known else set()))
