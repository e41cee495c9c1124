# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text of a stranger's making, fit to be shown. Private to the collection.

Names of cards and processes, kernel messages and what a broken library answers end up on terminals and in JSON: a
control character there could move the cursor, colour the screen or write what nobody said.
"""

from __future__ import annotations

import re

LIMIT = 128
# Control characters (C0, DEL, C1), what turns the direction of writing, line separators, and halves of characters.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def clean(text: str, limit: int = LIMIT) -> str:
    """The text without surrounding blanks, every unsafe character replaced, no longer than ``limit``."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text[: limit * 4].strip())[:limit]


def clean_or_none(value: object, limit: int = LIMIT) -> str | None:
    """The cleaned text; None for what is no text or has nothing in it."""
    return (clean(value, limit) or None) if isinstance(value, str) else None
