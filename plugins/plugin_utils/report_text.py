# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts from anywhere, made harmless for the file that they go into. Private to the collection.

Names of hosts come from an inventory, names of devices from firmware, messages from programs on the nodes: none of it is ours.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import ESCAPES

LONGEST = 1000
NAMELESS = "(no name)"
NOTHING = "–"
# A spreadsheet takes a cell that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@")
# What means something in Markdown; the colon ends what would be made a link.
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$])")
LINKS = re.compile(r"(?i)(://|www\.|@)")


def clean(value: Any) -> str:
    """One line of text without control characters, terminal sequences and marks that turn the direction of writing."""
    text = ESCAPES.sub("", str(value))
    if not text.isprintable():
        # Controls, bidirectional and zero-width marks, what no font shows, line ends, and spaces that are none to a shell.
        text = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def shown(host: Any) -> str:
    """A node's name as it is shown; one that is nothing but marks is told as such."""
    return clean(host) or NAMELESS


def known(value: Any) -> str | None:
    """The same; nothing stays nothing."""
    return clean(value) if value not in (None, "") else None


def cell(value: Any) -> Any:
    """A cell of a CSV file: a text never begins like a formula."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return value
    text = clean(value)
    # Compatibility forms: a fullwidth equals sign is one to some programs.
    return f"'{text}" if unicodedata.normalize("NFKC", text[:1]).startswith(FORMULA) else text


def markdown(value: Any) -> str:
    """A text inside a paragraph, list entry or table cell of Markdown: no markup, no HTML, no link, no mention."""
    text = MARKDOWN.sub(r"\\\1", clean(value)) or NOTHING
    # At the beginning of a line these make lists, rules and, under another line, headings.
    text = f"\\{text}" if text.startswith(("-", "+", "=")) else text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return LINKS.sub(lambda found: f"{found.group()[:-1]}&#{ord(found.group()[-1])};", text)
