# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entries of a vendor's repository are taken out of apt's and dnf's files; everything else stays to the letter."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import vendor_sources

URL = "https://vendor.example.org/cuda/ubuntu2404/x86_64"
OTHER = "deb [signed-by=/k.gpg] https://other.example.org/ubuntu noble main # ours\n"


def put(root, path, text):
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        f"deb {URL}/ /\n",
        f"deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] {URL}/ /\n",
        f"deb {URL.replace('https', 'http')} /\n",
        # Options as people write them by hand: the line is only read, and no apt takes anything from there.
        f"deb-src [trusted=yes arch=amd64] {URL}/ /\n",
    ],
)
def test_lines_of_a_list(tmp_path, line):
    put(tmp_path, "/etc/apt/sources.list", OTHER + line)
    put(tmp_path, "/etc/apt/sources.list.d/cuda.list", "# by cuda-keyring\n" + line)
    found = vendor_sources.without("apt", [URL], str(tmp_path))
    assert found == {"/etc/apt/sources.list": OTHER, "/etc/apt/sources.list.d/cuda.list": ""}


def test_another_directory_of_the_same_host_stays(tmp_path):
    put(tmp_path, "/etc/apt/sources.list", f"deb {URL.replace('2404', '2204')}/ /\n# deb {URL}/ /\n{OTHER}")
    assert vendor_sources.without("apt", [URL], str(tmp_path)) == {}


def test_a_user_in_the_address_makes_no_other_place(tmp_path):
    put(tmp_path, "/etc/apt/sources.list", f"deb {URL.replace('https://', 'https://me:secret@')}/ /\n")
    assert vendor_sources.without("apt", [URL], str(tmp_path)) == {"/etc/apt/sources.list": ""}


def test_stanzas(tmp_path):
    mine = "Types: deb\nURIs: https://other.example.org/ubuntu\nSuites: noble\nComponents: main\n"
    theirs = f"Types: deb\nURIs: {URL}/\nSuites: /\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n"
    put(tmp_path, "/etc/apt/sources.list.d/all.sources", f"{mine}\n{theirs}")
    put(tmp_path, "/etc/apt/sources.list.d/cuda.sources", theirs)
    found = vendor_sources.without("apt", [URL], str(tmp_path))
    assert found == {"/etc/apt/sources.list.d/all.sources": mine + "\n", "/etc/apt/sources.list.d/cuda.sources": ""}


def test_a_stanza_of_two_addresses_keeps_the_other(tmp_path):
    text = f"Types: deb\nURIs: {URL}/\n https://mirror.example.org/x\nSuites: /\n"
    put(tmp_path, "/etc/apt/sources.list.d/two.sources", text)
    found = vendor_sources.without("apt", [URL], str(tmp_path))
    assert found == {
        "/etc/apt/sources.list.d/two.sources": "Types: deb\nURIs: https://mirror.example.org/x\nSuites: /\n"
    }


def test_sections_of_a_repo_file(tmp_path):
    own = "[base]\nname=Base\nbaseurl=https://other.example.org/el9\n\n"
    theirs = f"[cuda-rhel9-x86_64]\nname=cuda\nbaseurl={URL}\nenabled=1\n"
    put(tmp_path, "/etc/yum.repos.d/site.repo", own + theirs)
    put(tmp_path, "/etc/yum.repos.d/cuda-rhel9.repo", theirs)
    found = vendor_sources.without("dnf", [URL + "/"], str(tmp_path))
    assert found == {"/etc/yum.repos.d/site.repo": own, "/etc/yum.repos.d/cuda-rhel9.repo": ""}


def test_our_own_file_is_left_out(tmp_path):
    put(tmp_path, "/etc/yum.repos.d/ours.repo", f"[x]\nbaseurl={URL}\n")
    assert vendor_sources.without("dnf", [URL], str(tmp_path), "/etc/yum.repos.d/ours.repo") == {}
