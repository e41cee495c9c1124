# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key that DKMS signs with, with the real openssl; mokutil, which needs a firmware, is a stand-in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_state, secure_boot
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.secure_boot import Pair

KEYS = "1b2c3d4e I------     1 perm 1f030000     {uid}     0 asymmetri site key: {identifier}: X509.rsa 5b8e []\n"


class Programs:
    """Runs openssl; answers for mokutil."""

    def __init__(self, mokutil: str = "") -> None:
        self.mokutil = mokutil

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        if command[0] == "mokutil":
            return 0, self.mokutil, ""
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr


def make(root: Path, name: str, form: str = "PEM", folder: str = "mok") -> Pair:
    (root / folder).mkdir(parents=True, exist_ok=True)
    key, certificate = f"/{folder}/{name}.key", f"/{folder}/{name}.pub"
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
         "-keyout", f"{root}{key}", "-out", f"{root}{certificate}", "-outform", form],
        check=True, capture_output=True,
    )  # fmt: skip
    return Pair(key, certificate)


def decide(root: Path, given: Pair | None, run: Programs, required: bool = True, signed: bool = False) -> Pair | None:
    return secure_boot.decide(given, required, signed, run, str(root), str(root))


def code(root: Path, given: Pair | None, run: Programs) -> str:
    with pytest.raises(GpufleetError) as caught:
        decide(root, given, run)
    return caught.value.code


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_a_pair_is_taken_once_it_is_enrolled(tmp_path: Path, form: str) -> None:
    pair = make(tmp_path, "site", form)
    assert decide(tmp_path, pair, Programs("site.der is already enrolled\n")) == pair
    for answer in ("site.der is not enrolled\n", "site.der is already in the enrollment request\n", ""):
        assert code(tmp_path, pair, Programs(answer)) == "GF-SECURE-BOOT-NOT-ENROLLED"
    assert decide(tmp_path, pair, Programs(), required=False) == pair
    assert not (tmp_path / "gpufleet-certificate.der").exists()


@pytest.mark.parametrize(("uid", "trusted"), [(0, True), (1001, False)])
def test_the_kernels_key_rings_are_asked(tmp_path: Path, uid: int, trusted: bool) -> None:
    pair = make(tmp_path, "site", "DER")
    command = ["openssl", "x509", "-inform", "DER", "-in", f"{tmp_path}{pair.certificate}", "-noout", "-text"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    identifier = text.split("Subject Key Identifier:")[1].split()[0].replace(":", "").lower()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/keys").write_text(KEYS.format(uid=uid, identifier=identifier))
    assert secure_boot.enrolled(pair.certificate, Programs(), str(tmp_path), str(tmp_path)) is trusted


def test_keys_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pair, other = make(tmp_path, "site"), make(tmp_path, "other")
    known = Programs("is already enrolled")
    assert code(tmp_path, Pair(pair.key, other.certificate), known) == "GF-SIGNING-KEY"
    assert code(tmp_path, Pair("/mok/none.key", pair.certificate), known) == "GF-SIGNING-KEY"
    assert code(tmp_path, Pair(pair.key, ""), known) == "GF-SIGNING-KEY"
    locked = f"{tmp_path}/mok/locked.key"
    command = ["openssl", "pkey", "-in", f"{tmp_path}{pair.key}", "-aes256", "-passout", "pass:word", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    assert code(tmp_path, Pair("/mok/locked.key", pair.certificate), known) == "GF-SIGNING-KEY"


def test_without_a_key_only_an_enrolled_one_of_dkms_will_do(tmp_path: Path) -> None:
    known = Programs("mok.pub is already enrolled")
    assert code(tmp_path, None, known) == "GF-SECURE-BOOT-UNSIGNED"
    assert decide(tmp_path, None, known, signed=True) is None
    assert decide(tmp_path, None, known, required=False) is None
    pair = make(tmp_path, "mok", "DER", "var/lib/dkms")
    assert decide(tmp_path, None, known) == pair
    assert code(tmp_path, None, Programs("mok.pub is not enrolled")) == "GF-SECURE-BOOT-UNSIGNED"


def test_a_shell_reads_the_settings_as_they_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "settings.conf"
    path.write_text(secure_boot.settings(Pair("/a b/$HOME's.key", "/c.der")))
    script = f'. {path}; printf "%s|%s" "$mok_signing_key" "$mok_certificate"'
    assert subprocess.check_output(["bash", "-c", script], text=True) == "/a b/$HOME's.key|/c.der"


def test_a_reboot_that_brought_another_driver_is_said() -> None:
    driver_state.require_loaded("535.309.01", "535.309.01", None)
    with pytest.raises(GpufleetError) as caught:
        driver_state.require_loaded("535.309.01", "535.261.03", "an old one")
    assert caught.value.code == "GF-REBOOT-UNPROVED"
    assert "535.261.03" in caught.value.message
