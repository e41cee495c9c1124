# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_components
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

WANTED = ["contrib", "non-free", "non-free-firmware"]
DEB822 = """\
# the node's own
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
"""


@pytest.fixture
def node(tmp_path):
    """A root with no sources; call it with name=text to write files below etc/apt."""

    def write(**files):
        folder = tmp_path / "etc/apt/sources.list.d"
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".") if name != "main" else folder.parent / "sources.list").write_text(text)
        return str(tmp_path)

    return write


def plan(root, components=None):
    return apt_components.plan_file(root, "bookworm", components or WANTED)[0]


def test_one_line_sources_get_the_three_components(node):
    root = node(
        main="deb http://mirror.example/debian bookworm main\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb http://mirror.example/debian bookworm-updates main # comment\n"
    )
    assert plan(root) == apt_components.HEADER + (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n"
        "Components: contrib non-free non-free-firmware\n"
    )


def test_deb822_sources_keep_their_keys(node):
    text = plan(node(debian__sources=DEB822))
    assert text.count("Types: deb\n") == 2
    assert "Suites: bookworm bookworm-updates\nComponents: contrib non-free non-free-firmware\nSigned-By: /usr" in text
    assert "Suites: bookworm-security\nComponents: contrib non-free non-free-firmware\nSigned-By:\n -----BEGIN" in text
    assert " .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n" in text


def test_what_is_rendered_is_read_again_unchanged(node):
    text, added = apt_components.plan_file(node(debian__sources=DEB822), "bookworm", WANTED)
    assert apt_components.parse_deb822(text) == added


def test_options_of_one_line_sources_are_kept(node):
    root = node(
        main="deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main\n"
    )
    text = plan(root)
    assert "Architectures: amd64 arm64\n" in text
    assert "Signed-By: /usr/share/keyrings/a.gpg\n" in text


def test_mixed_sources_get_only_what_each_archive_lacks(node):
    root = node(
        main="deb http://mirror.example/debian bookworm main contrib\n",
        extra__list="deb http://mirror.example/debian/ bookworm non-free\n",
        security__sources="Types: deb\nURIs: http://m.example/security\nSuites: bookworm-security\nComponents: main\n",
    )
    text = plan(root)
    assert "Suites: bookworm\nComponents: non-free-firmware\n" in text
    assert "Suites: bookworm-security\nComponents: contrib non-free non-free-firmware\n" in text


def test_nothing_is_written_where_everything_is_there(node):
    assert plan(node(main="deb http://mirror.example/debian bookworm main contrib non-free non-free-firmware\n")) == ""


def test_repositories_of_third_parties_are_left_alone(node):
    root = node(
        main="deb http://mirror.example/debian bookworm main\n",
        # trusted=yes as vendors' instructions have it: the text is only read, and no apt takes anything from there.
        vendor__list="deb [trusted=yes] http://vendor.example/apt bookworm stable\ndeb http://vendor.example/x ./\n",
    )
    assert "vendor" not in plan(root)


@pytest.mark.parametrize(
    "text",
    [
        "deb http://vendor.example/apt bookworm stable\n",
        "deb http://mirror.example/debian trixie main\n",
        "# deb http://mirror.example/debian bookworm main\n",
        "",
    ],
)
def test_no_source_of_the_release_is_an_error(node, text):
    with pytest.raises(GpufleetError) as caught:
        plan(node(main=text))
    assert caught.value.code == "GF-APT-SOURCES"
    assert "bookworm" in caught.value.message


def test_disabled_sources_do_not_count(node):
    root = node(
        main="deb http://m.example/debian bookworm main\n",
        off__sources="Enabled: no\nTypes: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: contrib\n",
    )
    assert "Components: contrib" in plan(root, ["contrib"])


def test_our_own_file_does_not_hide_what_is_missing(node):
    root = node(main="deb http://mirror.example/debian bookworm main\n")
    text = plan(root)
    root = node(**{"gpufleet-components__sources": text})
    assert plan(root) == text


def test_a_second_role_with_fewer_components_undoes_nothing(node):
    root = node(main="deb http://mirror.example/debian bookworm main\n")
    text = plan(root)
    node(**{"gpufleet-components__sources": text})
    assert plan(root, ["contrib"]) == text


def test_the_name_stable_counts_where_apt_says_what_it_means(node, tmp_path):
    root = node(main="deb http://mirror.example/debian stable main\n")
    lists = tmp_path / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "mirror.example_debian_dists_stable_InRelease").write_text(
        "Origin: Debian\nSuite: stable\nCodename: bookworm\n"
    )
    assert "Suites: stable\n" in plan(root)


def test_files_that_apt_ignores_are_ignored(node):
    root = node(
        main="deb http://mirror.example/debian bookworm main\n", old__list__save="deb http://x.example bookworm main\n"
    )
    assert "x.example" not in plan(root)


def test_codename_is_read_from_os_release(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert apt_components.codename_of(str(tmp_path)) == "bookworm"
