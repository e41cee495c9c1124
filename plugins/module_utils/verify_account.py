# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user that the checks run as: who that is, and becoming that user. Private to the collection."""

from __future__ import annotations

import os
import pwd
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError


class Account(NamedTuple):
    """A user of the node with its groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def become(self) -> None:
        """Give up every right that this user has not; for the new process alone, before its program starts."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)


def own_name() -> str:
    """Who this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def find(name: str) -> Account | None:
    """The account of this name; None where nothing has to be given up, since that user is who runs this.

    :raises GpufleetError: GF-VERIFY-USER.
    """
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise GpufleetError(
            "GF-VERIFY-USER",
            f"the checks are to run as {name}, and this node has no such user",
            "verify_user is misspelt, or the directory service (LDAP, SSSD) does not answer on this node",
            f"look at: getent passwd {name}; then correct verify_user, or leave it empty",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise GpufleetError(
            "GF-VERIFY-USER",
            f"the checks are to run as {name}, and {own_name()} can't become another user",
            "the play runs without root",
            "run with become: true, or leave verify_user empty",
        )
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Account(name, entry.pw_uid, entry.pw_gid, groups)


def give(path: str, account: Account | None) -> None:
    """Make a file or directory that account's own."""
    if account is not None:
        os.chown(path, account.uid, account.gid)
