"""A package index on this machine, with tiny real wheels that stand in for the large ones.

The wheels are whole (METADATA, WHEEL, RECORD with digests), the index is PEP 503 with digests, and uv itself resolves
and installs. The server can be told to cut files off, to serve other files or to fail.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TORCH = {
    "torch/__init__.py": "from . import version\nfrom .version import __version__\n",
    "torch/version.py": "__version__ = '2.0.1+cu117'\ncuda = '11.7'\n",
}


def build_wheel(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, str],
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    build: str = "",
    wrong_record: bool = False,
) -> Path:
    """Write a wheel; ``wrong_record`` states digests that its files do not have."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    path = folder / f"{stem}{'-' + build if build else ''}-{tag}.whl"
    rows = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in content.items():
            stated = hashlib.sha256(text.encode() + (b"!" if wrong_record else b"")).digest()
            digest = base64.urlsafe_b64encode(stated).rstrip(b"=").decode()
            rows.append(f"{member},sha256={digest},{len(text)}\n")
            archive.writestr(member, text)
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return path


class Index:
    """The index and what goes wrong with it.

    :ivar mode: ``ok``, ``503``, ``short`` (the connection ends early), ``whole-but-short``, ``other`` (another file) or ``slow``.
    :ivar requests: paths that were asked for.
    :ivar kept: whether an answer may be used again without asking, as a mirror's may often not.
    :ivar late: seconds before a page of the index is answered.
    :ivar login: ``user:password`` without which nothing is served; empty serves everybody.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mode = "ok"
        self.requests: list[str] = []
        self.ranges = True
        self.kept = True
        self.login = ""
        self.late = 0.0
        self.url = ""

    @property
    def simple(self) -> str:
        return f"{self.url}/simple"

    def wheels(self, project: str) -> list[Path]:
        return [
            path for path in sorted(self.folder.glob("*.whl")) if path.name.split("-")[0].replace("_", "-") == project
        ]

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes, int]:
        """Status, body and the length that is claimed."""
        parts = handler.path.strip("/").split("/")
        if parts[0] == "builds":  # as the PyTorch project has them: /builds/<build>/<package>/
            parts = ["simple", *parts[2:]]
        kind, name = (*parts, "")[:2]
        self.requests.append(handler.path)
        if self.mode == "503":
            return 503, b"", 0
        login = base64.b64encode(self.login.encode()).decode()
        if self.login and handler.headers.get("Authorization") != f"Basic {login}":
            return 401, b"", 0
        if kind == "simple":
            time.sleep(self.late)
            links = [
                f'<a href="/files/{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
                for path in self.wheels(name)
            ]
            page = "".join(links).encode()
            return (200 if links else 404), page, len(page)
        body = (self.folder / name).read_bytes()
        if self.mode == "slow":
            time.sleep(5)
        if self.mode == "short":
            return 200, body[: len(body) // 2], len(body)
        if self.mode == "whole-but-short":
            return 200, body[: len(body) // 2], len(body) // 2
        if self.mode == "other":
            other = bytearray(body)
            other[10] ^= 1
            return 200, bytes(other), len(body)
        begin = handler.headers.get("Range", "").partition("=")[2].rstrip("-")
        if self.ranges and begin.isdigit():
            return 206, body[int(begin) :], len(body) - int(begin)
        return 200, body, len(body)


@contextmanager
def serve(folder: Path) -> Iterator[Index]:
    """Serve the wheels of a folder on a free port."""
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, length = index.answer(self)
            self.send_response(status)
            self.send_header(
                "Content-Type", "text/html" if not self.path.startswith("/files/") else "application/octet-stream"
            )
            self.send_header("Content-Length", str(length))
            if not index.kept:
                self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    index.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
