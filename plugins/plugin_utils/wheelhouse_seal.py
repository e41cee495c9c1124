# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums and signature of a portable wheelhouse. Private to the collection.

``SHA256SUMS`` names every file, ``sha256sum -c`` understands it. It is signed with an SSH key: every controller has ``ssh-keygen``.
Whoever trusts the signature trusts the locks, and whoever trusts a lock trusts the wheels that it names.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable

from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.receipts import file_digest

SUMS, SIGNATURE, LOCKS, ABOUT = "SHA256SUMS", "SHA256SUMS.sig", "locks", "wheelhouse.json"
NAMESPACE, SIGNER = "gpufleet-wheelhouse", "gpufleet"
SECONDS = 60


def seal(directory: str, files: Iterable[str], key: str) -> None:
    """Write the checksums of these files (paths below the directory) and sign them.

    :param key: private SSH key, or the public one of a key that the SSH agent holds; empty leaves them without a signature.
    :raises GpufleetError: GF-WHEELHOUSE-KEY.
    """
    lines = [f"{_digest(directory, name)}  {name}\n" for name in sorted(files)]
    _write(os.path.join(directory, SUMS), "".join(lines))
    signature = os.path.join(directory, SIGNATURE)
    if os.path.exists(signature):
        os.unlink(signature)
    if not key:
        return
    path = os.path.expanduser(key)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", path, "-n", NAMESPACE, os.path.join(directory, SUMS)]
    code, said = _run(command, b"")
    if code != 0 or not os.path.exists(signature):
        raise GpufleetError(
            "GF-WHEELHOUSE-KEY",
            f"{path} cannot sign: {said}",
            "it is no SSH key, is not there, or asks for a passphrase, which nobody can type here",
            "load the key into the SSH agent and name its public part (….pub), or name a key without a passphrase",
        )


def _digest(directory: str, name: str) -> str:
    # A wheel lies below its own digest, and was compared with it when it came.
    folder = name.partition("/")[0]
    digest = folder if re.fullmatch(r"[0-9a-f]{64}", folder) else file_digest(os.path.join(directory, name))
    return str(digest)


def verify(directory: str, signer: str) -> None:
    """See that the directory is a sealed wheelhouse, signed by the one that is trusted, with its locks unchanged.

    Wheels are not read here: each is compared with its lock when it is copied, and again when it is unpacked.

    :param signer: public SSH key as text, or a file that holds one; empty takes any directory.
    :raises GpufleetError: GF-WHEELHOUSE-UNSEALED, GF-WHEELHOUSE-SIGNATURE.
    """
    sums = _sums(directory)
    if signer:
        _check_signature(directory, signer)
    locks = os.path.join(directory, LOCKS)
    there = (
        {f"{LOCKS}/{name}" for name in os.listdir(locks) if name.endswith(".toml")} if os.path.isdir(locks) else set()
    )
    named = {name for name in sums if name.startswith(f"{LOCKS}/")}
    wrong = [name for name in sorted(there | named) if file_digest(os.path.join(directory, name)) != sums.get(name)]
    if wrong:
        raise _unsealed(directory, f"{', '.join(wrong[:5])} is not what {SUMS} says")


def _sums(directory: str) -> dict[str, str]:
    try:
        with open(os.path.join(directory, SUMS), encoding="utf-8") as stream:
            rows = [line.rstrip("\n").split("  ", 1) for line in stream]
    except OSError as error:
        raise _unsealed(directory, f"{SUMS} cannot be read: {error.strerror}") from error
    return {name: digest for digest, name in (row for row in rows if len(row) == 2)}


def _check_signature(directory: str, signer: str) -> None:
    with tempfile.TemporaryDirectory(prefix="gpufleet-signer-") as folder:
        allowed = os.path.join(folder, "allowed_signers")
        _write(allowed, f"{SIGNER} {_public_key(signer)}\n")
        with open(os.path.join(directory, SUMS), "rb") as stream:
            content = stream.read()
        signature = os.path.join(directory, SIGNATURE)
        command = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", SIGNER, "-n", NAMESPACE, "-s", signature]
        code, said = _run(command, content)
    if code != 0:
        raise GpufleetError(
            "GF-WHEELHOUSE-SIGNATURE",
            f"{directory} is not signed by the key of gpufleet_wheelhouse_signer: {said}",
            "it was changed after it was signed, was signed with another key, or not at all",
            "fetch it anew from where it was made, and compare the key: ssh-keygen -lf on both sides",
        )


def _public_key(signer: str) -> str:
    if re.match(r"(ssh|ecdsa|sk)-", signer):
        return signer.strip()
    path = os.path.expanduser(signer)
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError as error:
        raise GpufleetError(
            "GF-WHEELHOUSE-SIGNATURE",
            f"gpufleet_wheelhouse_signer is no public key and no file that can be read: {path}: {error.strerror}",
            "the file is not there, or the variable is misspelt",
            "write the public key itself (ssh-ed25519 AAAA…), or the full path of its .pub file",
        ) from error


def _unsealed(directory: str, what: str) -> GpufleetError:
    return GpufleetError(
        "GF-WHEELHOUSE-UNSEALED",
        f"{directory} is no whole wheelhouse: {what}",
        "it is another directory, was not copied in full, or was changed after it was made",
        "name the directory that playbooks/wheelhouse.yml made, or make it anew",
    )


def _run(command: list[str], content: bytes) -> tuple[int, str]:
    environment = {**os.environ, "LC_ALL": "C", "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"}
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, check=False, timeout=SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return done.returncode, said[-1] if said else f"exit status {done.returncode}"


def _write(path: str, text: str) -> None:
    with open(path + ".part", "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(path + ".part", path)
