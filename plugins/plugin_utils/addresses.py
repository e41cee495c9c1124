# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of indexes without their passwords, and the passwords kept apart. Private to the collection.

A plan is shown, kept in variables and hashed, and a lock is committed: both have the address alone. User and password are
put back in where an index is asked, on the controller and in this process only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

# The wishes that are addresses of an index.
WISHES = ("pytorch_index_url", "pytorch_builds_index_url")
SITE_INDEXES = "pytorch_site_indexes"


def without_credentials(url: str) -> str:
    """The URL without user and password: what may be written down and shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Addresses:
    """What was said about user and password, by address."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def learn(self, url: str) -> str:
        """Keep the user and password of an address; answers the address without them."""
        bare = without_credentials(url)
        if bare != url:
            self._known[bare.rstrip("/")] = urlsplit(url).netloc.rpartition("@")[0]
        return bare

    def login(self, url: str) -> tuple[str, str] | None:
        """User and password for an address: those of the index above it, else those of an index of the same server."""
        said = self._said(url)
        if said is None:
            return None
        user, _colon, password = said.partition(":")
        return unquote(user), unquote(password)

    def whole(self, url: str) -> str:
        """The address with user and password, where there are any."""
        said = self._said(url)
        parts = urlsplit(url)
        return (
            url if said is None or "@" in parts.netloc else urlunsplit(parts._replace(netloc=f"{said}@{parts.netloc}"))
        )

    def _said(self, url: str) -> str | None:
        above = [known for known in self._known if f"{url}/".startswith(f"{known}/")]
        server = [known for known in self._known if _server(known) == _server(url)]
        best = max(above, key=len, default=server[0] if server else None)
        return self._known[best] if best is not None else None


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def take_out(wanted: dict[str, Any], addresses: Addresses) -> dict[str, Any]:
    """The wishes without any password, which ``addresses`` then knows."""
    clean = dict(wanted)
    for name in WISHES:
        if isinstance(clean.get(name), str):
            clean[name] = addresses.learn(clean[name])
    if isinstance(clean.get(SITE_INDEXES), list):
        clean[SITE_INDEXES] = list(_sites(clean[SITE_INDEXES], addresses))
    return clean


def _sites(rows: list[Any], addresses: Addresses) -> Iterable[Any]:
    for row in rows:
        known = isinstance(row, dict) and isinstance(row.get("url"), str)
        yield {**row, "url": addresses.learn(row["url"])} if known else row
