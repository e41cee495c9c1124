"""Nodes that reach the stand-in for NVIDIA's repository (tests/tools/vendor_repository), and a server that can fail."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .conftest import ROOT, Run, World, fresh

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOOL = ROOT / "tests/tools/vendor_repository"
RECORDED = {"node_recording": "debian12-a100", "gpufleet_gpu_sysroot": "/opt/recorded/a100"}
TORCH = "2.6.0"
# What the server sends for a path and its file's content; None ends the connection without an answer.
Spoil = Callable[[str, bytes], bytes | None]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files as they are, or as the server's ``spoil`` has them."""

    def do_GET(self) -> None:
        spoil: Spoil | None = self.server.spoil  # type: ignore[attr-defined]
        path = self.translate_path(self.path)
        if spoil is None or not os.path.isfile(path):
            return super().do_GET()
        with open(path, "rb") as stream:
            content = stream.read()
        sent = spoil(self.path, content)
        if sent is None:
            self.close_connection = True
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = len(sent) != len(content)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nobody's concern."""


@dataclass
class Vendor:
    """A world of nodes and the stand-in repository that they reach."""

    world: World
    folder: Path
    base: str
    server: http.server.ThreadingHTTPServer
    node: str = "node"

    def build(self, *fault: str) -> None:
        subprocess.run([sys.executable, str(TOOL), "build", str(self.folder), "--base", self.base, *fault], check=True)

    def wishes(self, **wanted: Any) -> dict[str, Any]:
        return {
            "pytorch_version": TORCH,
            "nvidia_driver_source": "nvidia",
            "gpufleet_catalog_overlay": str(self.folder / "overlay.yml"),
            **wanted,
        }

    def play(self, tags: str = "nvidia_driver", **wanted: Any) -> Run:
        return self.world.play(cmdline=f"--tags {tags}", **self.wishes(**wanted))

    def sh(self, command: str, *, check: bool = True) -> str:
        return self.world.sh(self.node, command, check=check)

    def on(self, node: str) -> Vendor:
        """The same world, speaking to another of its nodes."""
        return replace(self, node=node)

    @contextlib.contextmanager
    def spoiled(self, spoil: Spoil) -> Iterator[None]:
        """The server spoils what it sends."""
        self.server.spoil = spoil  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.server.spoil = None  # type: ignore[attr-defined]


@contextlib.contextmanager
def vendor_world(name: str, factory: pytest.TempPathFactory, *options: str, **variables: Any) -> Iterator[Vendor]:
    """A world like that of ``fresh``, with a built and served repository that its node named `node` reaches."""
    with fresh(name, factory.mktemp(name), *options, **{**RECORDED, **variables}) as world:
        address, folder = world.sh("node", "ip route show default").split()[2], factory.mktemp("repository")
        server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Handler, directory=str(folder)))
        server.spoil = None  # type: ignore[attr-defined]
        this = Vendor(world, folder, f"http://{address}:{server.server_address[1]}", server)
        this.build()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield this
        finally:
            server.shutdown()
            server.server_close()


def modules(vendor: Vendor) -> list[str]:
    """Version and licence of every NVIDIA module that the node has."""
    return vendor.sh(
        "find /lib/modules -name 'nvidia.ko*' | while read f; do modinfo -F version $f; modinfo -F license $f; done"
    ).split("\n")


def packages(vendor: Vendor) -> str:
    """Every package that left anything on the node, with its state."""
    return vendor.sh("dpkg-query -W -f '${binary:Package} ${Version} ${db:Status-Status}\\n'")
