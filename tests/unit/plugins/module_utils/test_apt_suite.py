# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import apt_suite
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

MAIN = "deb [signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian trixie main\n"
SOURCES = "etc/apt/sources.list.d/gpufleet-suite-driver.sources"
PIN = "etc/apt/preferences.d/gpufleet-suite-driver"
COMPONENTS = ["non-free", "contrib"]


@pytest.fixture
def node(tmp_path):
    """A root of Debian 13; call it with the text of sources.list."""

    def write(text, **files):
        folder = tmp_path / "etc/apt/sources.list.d"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/os-release").write_text("VERSION_CODENAME=trixie\n")
        (folder.parent / "sources.list").write_text(text)
        for name, content in files.items():
            (folder / f"{name}.list").write_text(content)
        return str(tmp_path)

    return write


def plan(root, suite="trixie-backports", name="driver"):
    return apt_suite.plan_files(root, name, suite, ["nvidia-graphics-drivers", "nvidia-modprobe"], COMPONENTS)


def test_a_suite_that_is_not_served_is_added_from_the_archive_of_main(node):
    files = plan(node(MAIN + "deb http://security.example/debian-security trixie-security main\n"))
    assert files[SOURCES].split("\n", 1)[1] == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie-backports\nComponents: contrib non-free\n"
        "Signed-By: /usr/share/keyrings/a.gpg\n"
    )
    assert "Package: src:nvidia-graphics-drivers src:nvidia-modprobe\nPin: release n=trixie-backports\n" in files[PIN]


@pytest.mark.parametrize("suite", ["trixie", "trixie-backports"])
def test_a_suite_that_is_served_needs_the_pin_alone(node, suite):
    root = node(MAIN, backports="deb http://mirror.example/debian trixie-backports main\n")
    files = plan(root, suite)
    assert files[SOURCES] == ""
    assert f"Pin: release n={suite}\nPin-Priority: 1001\n" in files[PIN]


def test_our_own_file_does_not_count_as_the_nodes(node, tmp_path):
    root = node(MAIN)
    text = plan(root)[SOURCES]
    (tmp_path / SOURCES).write_text(text)
    assert plan(root)[SOURCES] == text


def test_two_mirrors_are_two_sources_and_one_twice_is_one(node):
    root = node(MAIN + "deb http://other.example/debian trixie main\ndeb http://mirror.example/debian/ trixie main\n")
    assert plan(root)[SOURCES].count("URIs: ") == 2


def test_no_source_of_the_release_is_an_error(node):
    with pytest.raises(GpufleetError) as caught:
        plan(node("deb http://mirror.example/debian bookworm main\n"))
    assert caught.value.code == "GF-APT-SOURCES"


def test_leaving_a_suite_leads_back_to_the_releases_own(node, tmp_path):
    root = node(MAIN)
    for path, text in plan(root).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    files = apt_suite.plan_return(root, "driver")
    assert files[SOURCES] == ""
    assert [line for line in files[PIN].splitlines() if line.startswith("Pin:")] == [
        f"Pin: release n={suite}" for suite in ("trixie", "trixie-updates", "trixie-security")
    ]
    assert files[PIN].count("Package: src:nvidia-graphics-drivers src:nvidia-modprobe\n") == 3


def test_without_a_suite_there_is_nothing_to_leave(node):
    assert apt_suite.plan_return(node(MAIN), "driver") == {SOURCES: "", PIN: ""}


@pytest.mark.parametrize(("suite", "name"), [("trixie\nPin: x", "driver"), ("trixie-backports", "../driver")])
def test_what_would_not_fit_into_the_files_is_refused(node, suite, name):
    with pytest.raises(GpufleetError) as caught:
        plan(node(MAIN), suite, name)
    assert caught.value.code == "GF-APT-SUITE"
