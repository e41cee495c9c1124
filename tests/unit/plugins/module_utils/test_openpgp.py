# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys made by gpg itself, read by our own reader."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import openpgp

GPG = shutil.which("gpg")
pytestmark = pytest.mark.skipif(GPG is None, reason="gpg is not installed")


def gpg(home, *arguments):
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    return subprocess.run([*command, *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpg")
    folder.chmod(0o700)
    gpg(folder, "--quick-gen-key", "Stand-in One <one@example.org>", "rsa2048", "sign", "never")
    gpg(folder, "--quick-add-key", fingerprint(folder, "one@example.org"), "rsa2048", "sign", "1y")
    gpg(folder, "--quick-gen-key", "Stand-in Two <two@example.org>", "ed25519", "sign", "2030-01-01")
    yield folder
    subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=True)


def fingerprint(home, name):
    lines = gpg(home, "--with-colons", "--list-keys", name).decode().splitlines()
    return next(line.split(":")[9] for line in lines if line.startswith("fpr"))


@pytest.mark.parametrize("form", [[], ["--armor"]])
def test_full_fingerprints_as_gpg_gives_them(home, form):
    data = gpg(home, *form, "--export")
    assert {key.fingerprint for key in openpgp.keys(data)} == {
        fingerprint(home, "one@example.org"),
        fingerprint(home, "two@example.org"),
    }


def test_a_subkey_is_no_key_of_its_own(home):
    data = gpg(home, "--export", "one@example.org")
    (key,) = openpgp.keys(data)
    assert (key.start, key.end) == (0, len(data))


def test_expiry(home):
    (never,) = openpgp.keys(gpg(home, "--export", "one@example.org"))
    assert never.expires is None
    (dated,) = openpgp.keys(gpg(home, "--export", "two@example.org"))
    assert time.strftime("%Y-%m-%d", time.gmtime(dated.expires)) == "2030-01-01"


def test_the_newest_self_signature_says_when_a_key_expires(home, tmp_path):
    folder = tmp_path / "h"
    folder.mkdir(mode=0o700)
    gpg(folder, "--quick-gen-key", "Three <three@example.org>", "ed25519", "sign", "2030-01-01")
    time.sleep(1.1)  # signatures are dated by the second
    gpg(folder, "--quick-set-expire", fingerprint(folder, "three@example.org"), "2035-01-01")
    data = gpg(folder, "--export-options", "export-minimal", "--export", "three@example.org")
    subprocess.run(["gpgconf", "--homedir", str(folder), "--kill", "all"], check=True)
    assert time.strftime("%Y", time.gmtime(openpgp.keys(data)[0].expires)) == "2035"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>404</html>", "not an OpenPGP file"),
        (b"", "no OpenPGP public key"),
        (b"\x99\x01\x00abc", "middle of a packet"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n????\n-----END PGP PUBLIC KEY BLOCK-----\n", "damaged armor"),
    ],
)
def test_what_is_no_key_is_said(data, words):
    with pytest.raises(ValueError, match=words):
        openpgp.keys(data)


def test_a_key_of_version_6():
    # The sample certificate of RFC 9580, appendix A.3, and its fingerprint as printed there.
    armored = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""
    (key,) = openpgp.keys(armored)
    assert key.fingerprint == "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
