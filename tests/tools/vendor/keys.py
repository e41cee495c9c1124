"""Throw-away keys, and the programs that the stand-ins are made with."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# An expired key was good once.
THEN = ("--faked-system-time", "20200101T000000!")


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}exit status {done.returncode}")
    return done.stdout


class Keys:
    """A keyring of its own. Keys that a site's catalog or an image names are kept in ``folder`` over several builds."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder

    def gpg(self, *arguments: str) -> str:
        return run("gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", *arguments)

    def make(self, name: str, *options: str, until: str = "never") -> str:
        """A key's fingerprint."""
        self.gpg(*options, "--passphrase", "", "--quick-gen-key", f"{name}@example.invalid", "rsa2048", "sign", until)
        return self.fingerprint(name)

    def kept(self, name: str) -> str:
        """The same key in every build into this folder."""
        path = self.folder / f"{name}.key"
        if path.exists():
            self.gpg("--import", str(path))
            return self.fingerprint(name)
        key = self.make(name)
        path.write_text(
            self.gpg("--passphrase", "", "--pinentry-mode", "loopback", "--armor", "--export-secret-keys", key),
            encoding="utf-8",
        )
        return key

    def fingerprint(self, name: str) -> str:
        lines = self.gpg("--with-colons", "--list-keys", f"{name}@example.invalid").splitlines()
        return next(line for line in lines if line.startswith("fpr")).split(":")[9]

    def public(self, key: str) -> str:
        return self.gpg("--armor", "--export", key)


@contextlib.contextmanager
def keyring(folder: Path) -> Iterator[Keys]:
    # The agent's socket needs a short path.
    home = Path(tempfile.mkdtemp(prefix="vk", dir="/tmp"))
    try:
        yield Keys(home, folder)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)
