# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With which key DKMS signs, and whether the firmware trusts it. Private to the collection."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

from ansible_collections.gpufleet.stack.plugins.module_utils.driver_state import Run
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text

SETTINGS = "/etc/dkms/framework.conf.d/gpufleet-signing.conf"
# The pairs that DKMS makes for itself: its own, and the one of Ubuntu.
DEFAULT_PAIRS = (
    ("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"),
    ("/var/lib/shim-signed/mok/MOK.priv", "/var/lib/shim-signed/mok/MOK.der"),
)


class Pair(NamedTuple):
    """A private key and its certificate, as paths on the node."""

    key: str
    certificate: str


def settings(pair: Pair) -> str:
    """What DKMS 3 reads; it is a shell's text."""
    return (
        "# Written by gpufleet: the key that kernel modules are signed with.\n"
        f"mok_signing_key={shlex.quote(pair.key)}\n"
        f"mok_certificate={shlex.quote(pair.certificate)}\n"
    )


def _openssl(run: Run, command: list[str], what: str) -> str:
    code, out, err = run(["openssl", *command])
    if code != 0 or not out.strip():
        raise _unusable(f"{what} can't be read: {(err or out).strip()[:300]}")
    return out.strip()


def _unusable(message: str) -> GpufleetError:
    return GpufleetError(
        "GF-SIGNING-KEY",
        message,
        "the path is wrong, the key has a passphrase, or key and certificate are of two pairs",
        "set nvidia_driver_signing_key (PEM, without passphrase) and nvidia_driver_signing_cert (DER or PEM) to one "
        "pair on the node; nothing was changed",
    )


def check_pair(pair: Pair, run: Run, root: str = "/") -> None:
    """Whether both are there and belong together.

    :raises GpufleetError: GF-SIGNING-KEY.
    """
    key, certificate = (os.path.join(root, path.lstrip("/")) for path in pair)
    for path in (key, certificate):
        if not os.path.isfile(path):
            raise _unusable(f"{path} is not there")
    # An empty passphrase given, or openssl would wait for somebody to type one.
    of_key = _openssl(run, ["pkey", "-in", key, "-pubout", "-passin", "pass:"], f"the signing key {key}")
    of_certificate = _openssl(
        run, ["x509", "-in", certificate, "-inform", _form(certificate), "-noout", "-pubkey"], certificate
    )
    if of_key != of_certificate:
        raise _unusable(f"the certificate {certificate} is not that of the signing key {key}")


def _form(certificate: str) -> str:
    with open(certificate, "rb") as stream:
        return "PEM" if b"-----BEGIN" in stream.read(4096) else "DER"


def _identifier(certificate: str, run: Run) -> str | None:
    """The certificate's subject key identifier, in the form of /proc/keys."""
    code, out, _err = run(
        ["openssl", "x509", "-in", certificate, "-inform", _form(certificate), "-noout", "-ext", "subjectKeyIdentifier"]
    )
    lines = out.strip().splitlines()
    return lines[-1].strip().replace(":", "").lower() if code == 0 and len(lines) > 1 else None


def _in_keyrings(certificate: str, run: Run, root: str) -> bool:
    """Whether root's key rings of the kernel, which the firmware fills, hold the certificate."""
    identifier = _identifier(certificate, run)
    for line in (read_text(os.path.join(root, "proc/keys")) or "").splitlines():
        fields = line.split(None, 8)
        # Any user may put a key into a ring of his own: only root's count.
        trusted = len(fields) == 9 and fields[5] == "0" and fields[7] == "asymmetri"
        if trusted and identifier and f": {identifier}: " in fields[8]:
            return True
    return False


def enrolled(certificate: str, run: Run, root: str, scratch: str) -> bool:
    """Whether the firmware trusts a certificate; one that waits for its confirmation at the console is not yet.

    :param scratch: where a certificate in PEM is put in DER, which mokutil wants; removed again.
    """
    path = os.path.join(root, certificate.lstrip("/"))
    if _in_keyrings(path, run, root):
        return True
    if _form(path) == "DER":
        return _known_to_mokutil(path, run)
    binary = os.path.join(scratch, "gpufleet-certificate.der")
    try:
        run(["openssl", "x509", "-in", path, "-outform", "DER", "-out", binary])
        return _known_to_mokutil(binary, run)
    finally:
        if os.path.exists(binary):
            os.unlink(binary)


def _known_to_mokutil(path: str, run: Run) -> bool:
    # Its exit status means the opposite in some releases; its words do not.
    _code, out, err = run(["mokutil", "--test-key", path])
    return "is already enrolled" in out + err


def decide(given: Pair | None, required: bool, signed_packages: bool, run: Run, root: str, scratch: str) -> Pair | None:
    """The pair that DKMS signs with; None where nothing has to be signed.

    :param required: the kernel takes signed modules only.
    :param signed_packages: the planned modules come signed by the distribution.
    :raises GpufleetError: GF-SIGNING-KEY, GF-SECURE-BOOT-NOT-ENROLLED, GF-SECURE-BOOT-UNSIGNED.
    """
    if given is not None:
        check_pair(given, run, root)
        if required and not enrolled(given.certificate, run, root, scratch):
            raise _not_enrolled(given)
        return given
    if not required or signed_packages:
        return None
    for pair in (Pair(*paths) for paths in DEFAULT_PAIRS):
        there = all(os.path.isfile(os.path.join(root, path.lstrip("/"))) for path in pair)
        if there and enrolled(pair.certificate, run, root, scratch):
            return pair
    raise GpufleetError(
        "GF-SECURE-BOOT-UNSIGNED",
        "this kernel takes signed modules only, and the driver would be built without a key that the firmware trusts",
        "Secure Boot is on, and DKMS has no enrolled key on this node",
        "set nvidia_driver_signing_key and nvidia_driver_signing_cert to a pair whose certificate is enrolled, or switch "
        "Secure Boot off in the firmware; nothing was changed, the driver of now stays",
    )


def _not_enrolled(pair: Pair) -> GpufleetError:
    return GpufleetError(
        "GF-SECURE-BOOT-NOT-ENROLLED",
        f"the firmware does not trust {pair.certificate}, so the kernel would refuse what is signed with its key",
        "the certificate was never imported, or its import was not confirmed at the console",
        f"mokutil --import {shlex.quote(pair.certificate)} (choose a password; of a PEM file first: openssl x509 "
        "-in CERT -outform DER -out CERT.der); reboot; at the console choose Enroll MOK, Continue, Yes, and give that "
        "password; then run this play again; nothing was changed",
    )
