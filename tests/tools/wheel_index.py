#!/usr/bin/env python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A package index with stand-ins for torch and what comes with it, and the real uv. It counts what it sends, and to whom.

    tests/tools/wheel_index.py --build DIR [--mib 40]                    makes the wheels
    tests/tools/wheel_index.py DIR ADDRESS [--port N] [--counts FILE]    serves them until it is ended

The torch is a module that says its version and carries a payload that cannot be compressed, so that bytes on the network
mean something. It computes nothing: only the stages python and pytorch can be run with it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# On a node it lies alone.
ROOT = Path(__file__).resolve().parents[min(2, len(Path(__file__).resolve().parents) - 1)]
BLOCK = 1 << 16
VERSIONS = {"torchvision": "0.15.2", "torchaudio": "2.0.2", "numpy": "1.26.4", "pip": "24.0", "setuptools": "69.5.1"}
TORCH = {
    "torch/__init__.py": "from . import version\nfrom .version import __version__\n",
    "torch/version.py": "__version__ = '2.0.1+cu117'\ncuda = '11.7'\n",
}


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> Path:
    """A whole wheel, with a record that states every digest."""
    stem, info = f"{name}-{version}", f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in content.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{member},sha256={digest},{len(data)}\n")
            # A fixed date: the same wheel each time.
            archive.writestr(zipfile.ZipInfo(member, (2026, 1, 1, 0, 0, 0)), data)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD", (2026, 1, 1, 0, 0, 0)), "".join(rows) + f"{info}/RECORD,,\n")
    return path


def build(folder: Path, mib: int = 40, copies: int = 3) -> None:
    """torch, some large packages that it needs (as the real one needs NVIDIA's), the small ones, and the real uv."""
    folder.mkdir(parents=True, exist_ok=True)
    payload = random.Random(0)  # noqa: S311 - ballast, no secret
    needs = tuple(f"payload_{number}" for number in range(copies))
    for name in needs:
        wheel(folder, name, "1.0", {f"{name}/data.bin": payload.randbytes(mib << 20), f"{name}/__init__.py": b""})
    content = {name: text.encode() for name, text in TORCH.items()}
    wheel(folder, "torch", "2.0.1", {**content, "torch/lib.bin": payload.randbytes(mib << 20)}, needs)
    for name, version in VERSIONS.items():
        wheel(folder, name, version, {f"{name}/__init__.py": f"__version__ = {version!r}\n".encode()})
    bring_uv(folder)


def bring_uv(folder: Path) -> None:
    """The uv that the controller has, from the tools' own index; kept in .cache."""
    kept = ROOT / ".cache" / "wheels"
    kept.mkdir(parents=True, exist_ok=True)
    version = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("uv=="))
    if not list(kept.glob(f"uv-{version[4:]}-*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            str(kept),
        ]
        subprocess.run([*command, version], check=True)
    for path in kept.glob(f"uv-{version[4:]}-*.whl"):
        target = folder / path.name
        if not target.exists():
            os.link(path, target) if path.stat().st_dev == folder.stat().st_dev else target.write_bytes(
                path.read_bytes()
            )


def metadata(path: Path) -> bytes:
    """What PEP 658 has an index serve beside a wheel, so that nobody fetches the wheel to read it."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


class Index(http.server.ThreadingHTTPServer):
    """The server.

    :ivar sent: bytes of files by the address that asked.
    :ivar asked: every request, as ``(client, path, first byte)``.
    :ivar cut: a file whose name begins so is cut off after its first half, once.
    """

    daemon_threads = True

    def __init__(self, folder: Path, address: str, port: int = 0) -> None:
        self.folder = folder
        self.sent: Counter[str] = Counter()
        self.asked: list[tuple[str, str, int]] = []
        self.cut: str | None = None
        self.counts: Path | None = None
        self.digests: dict[Path, str] = {}
        super().__init__((address, port), Handler)

    @property
    def simple(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/simple"

    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(path.stat().st_size for path in self.folder.glob("*.whl"))

    def write_counts(self) -> None:
        if self.counts:
            self.counts.write_text(json.dumps(self.sent), encoding="utf-8")

    def digest(self, path: Path) -> str:
        if path not in self.digests:
            self.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self.digests[path]


class Handler(http.server.BaseHTTPRequestHandler):
    """PEP 503 with digests, PEP 658, and ranges."""

    server: Index

    def do_GET(self) -> None:
        parts = unquote(self.path).strip("/").split("/")
        # /simple/ is a package index; the PyTorch project's has its builds' names there (/cpu/).
        if parts[0] != "files" and len(parts) == 2:
            return self._page(parts[1])
        path = self.server.folder / parts[-1]
        if path.suffix == ".metadata":
            return self._text(metadata(path.with_suffix("")))
        return self._file(path) if parts[0] == "files" and path.is_file() else self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _page(self, package: str) -> None:
        found = [
            p for p in sorted(self.server.folder.glob("*.whl")) if p.name.split("-")[0].replace("_", "-") == package
        ]
        links = [
            f'<a href="/files/{p.name}#sha256={self.server.digest(p)}" data-core-metadata="true">{p.name}</a>'
            for p in found
        ]
        self._text("\n".join(links).encode(), 200 if found else 404)

    def _text(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, path: Path) -> None:
        size = path.stat().st_size
        said = self.headers.get("Range", "").partition("=")[2].rstrip("-")
        first = int(said) if said.isdigit() else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        if self.command != "GET":
            return
        client = self.client_address[0]
        self.server.asked.append((client, path.name, first))
        end = size
        if self.server.cut and path.name.startswith(self.server.cut):
            end = first + (size - first) // 2
            self.close_connection = True
        with path.open("rb") as stream:
            stream.seek(first)
            while first < end:
                block = stream.read(min(BLOCK, end - first))
                self.wfile.write(block)
                self.server.sent[client] += len(block)
                first += len(block)
        self.server.write_counts()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("address", nargs="?", default="127.0.0.1")
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--counts", type=Path, help="file for the bytes of wheels sent, by client")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mib", type=int, default=40)
    said = parser.parse_args()
    if said.build:
        build(said.folder, said.mib)
        return
    index = Index(said.folder, said.address, said.port)
    index.counts = said.counts
    index.write_counts()
    print(json.dumps({"simple": index.simple, "bytes": index.size()}), flush=True)
    index.serve_forever()


if __name__ == "__main__":
    main()
