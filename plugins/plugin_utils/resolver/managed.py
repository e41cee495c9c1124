# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv's managed builds of CPython, for nodes without a Python that torch is published for. Private to the collection."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver import node
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.decision import Decision, Row
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

# torch.compile needs one at run time; the distribution's own Pythons bring it along too.
COMPILERS = {"apt": "g++", "dnf": "gcc-c++", "dnf-modular": "gcc-c++", "zypper": "gcc-c++"}
KEYS = ("version", "full_version", "release", "architecture", "sha256", "size")


def candidates(decision: Decision) -> list[Row]:
    """Each build for this architecture, the newest first. Each has a directory of its own below the prefix."""
    row, prefix = node.distribution(decision), decision.wanted["gpufleet_prefix"]
    if row is None or row["family"] not in COMPILERS:
        return []
    rows = [each for each in decision.catalog["python"]["managed"] if each["architecture"] == decision.architecture]
    return [
        {
            **{name: each[name] for name in KEYS},
            "provider": "managed",
            "packages": [COMPILERS[row["family"]]],
            "directory": _directory(each, prefix),
            "path": f"{_directory(each, prefix)}/{_name(each)}/bin/python{each['version']}",
        }
        for each in sorted(rows, key=lambda each: key(each["version"]), reverse=True)
    ]


def description(python: Row) -> Row:
    """What the role needs to bring it."""
    return {
        **{name: python[name] for name in KEYS},
        "path": python["directory"],
        "interpreter": python["path"],
    }


def _directory(row: Row, prefix: str) -> str:
    # The same CPython is built again for other reasons: a newer OpenSSL, a mended build.
    return f"{prefix}/python/{row['full_version']}-{row['release']}"


def _name(row: Row) -> str:
    """The directory that uv makes, which is also how it names the build."""
    return f"cpython-{row['full_version']}-linux-{row['architecture']}-gnu"
