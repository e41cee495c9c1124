# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one kind of error that a user of the collection meets. Private to the collection."""

from __future__ import annotations


class GpufleetError(Exception):
    """Something a user can mend: what is wrong, why it usually happens, and the command that mends it.

    :param code: stable identifier, ``GF-…``; explained in docs/errors.md.
    :param message: what is wrong, with the name of the thing that is wrong.
    :param cause: the likely cause, one sentence.
    :param fix: the command or setting that mends it.
    """

    def __init__(self, code: str, message: str, cause: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.code}: {self.message}\n  cause: {self.cause}\n  mend:  {self.fix}"

    def as_dict(self) -> dict[str, str]:
        """The error as plain data, for callers that read results as JSON."""
        return {"code": self.code, "message": self.message, "cause": self.cause, "fix": self.fix}
