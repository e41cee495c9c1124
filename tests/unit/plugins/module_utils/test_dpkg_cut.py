"""What a dpkg that was cut off left is made ready to be removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import dpkg_cut

MERGE = ["sh", "-c", "dpkg --set-selections </dev/null"]


class Node:
    """A root with dpkg's records; a dpkg that writes takes the journal over, as the real one does."""

    def __init__(self, root: Path) -> None:
        self.root, self.commands = root, []
        (root / "var/lib/dpkg/updates").mkdir(parents=True)
        (root / "var/cache/apt/archives").mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_text("Package: patch\nStatus: install ok unpacked\nVersion: 2.7.6-7\n\n")

    def run(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        if command == MERGE:
            for entry in sorted((self.root / "var/lib/dpkg/updates").iterdir()):
                with (self.root / "var/lib/dpkg/status").open("a") as status:
                    status.write(entry.read_text() + "\n")
                entry.unlink()
        return 0, "", ""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def cut_off(node: Node) -> None:
    (node.root / "var/lib/dpkg/updates/0003").write_text(
        "Package: headers\nStatus: install reinstreq half-installed\nVersion: 1:6.1-2\n"
    )


def test_what_only_the_journal_names_is_unpacked_again_from_the_cache(node: Node) -> None:
    cut_off(node)
    deb = node.root / "var/cache/apt/archives/headers_1%3a6.1-2_all.deb"
    deb.touch()
    dpkg_cut.settle(node.run, str(node.root))
    assert node.commands == [MERGE, ["dpkg", "--unpack", "--force-depends", str(deb)]]


def test_without_the_file_the_journal_is_taken_over_all_the_same(node: Node) -> None:
    cut_off(node)
    dpkg_cut.settle(node.run, str(node.root))
    assert node.commands == [MERGE]


def test_where_nothing_was_cut_off_dpkg_is_left_alone(node: Node) -> None:
    (node.root / "var/lib/dpkg/status").write_text("Package: patch\nStatus: install ok installed\nVersion: 2.7.6-7\n\n")
    dpkg_cut.settle(node.run, str(node.root))
    assert node.commands == []
