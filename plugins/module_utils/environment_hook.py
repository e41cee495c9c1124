# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every Python of an environment does when it starts. Private to the collection.

Two files in ``site-packages``, which ``site`` runs. They are there for two things that wheels get wrong:

- cuDNN 8 and cuBLAS load their own parts by bare name, and the loader then asks ``LD_LIBRARY_PATH`` before the directory
  that the library lies in. With a toolkit on it torch gets parts of two versions. So before torch is imported, its own
  copies of whatever ``LD_LIBRARY_PATH`` has too are loaded by their full path: the loader never looks for them then.
- ``python -m venv --system-site-packages`` means the packages of the interpreter behind an environment, never those
  of the environment itself. A virtual environment that a user makes from this one is to see these.
"""

from __future__ import annotations

import glob
import os
import struct

from ansible_collections.gpufleet.stack.plugins.module_utils import elf

HOOK = "_gpufleet.py"
HOOKS = {"gpufleet.pth": "import _gpufleet\n"}
# Beside ``pyvenv.cfg``: one path a line below site-packages, each after those that it needs.
LIBRARIES = "libraries.txt"
NEEDED, END = 1, 0

HOOKS[HOOK] = '''\
"""Written by gpufleet.stack; the next run of the playbook writes it again."""

import os
import sys

SITE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(SITE)))


class Finder:
    """Looks on when torch and venv are imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch" and os.environ.get("LD_LIBRARY_PATH"):
            load_own_libraries(os.environ["LD_LIBRARY_PATH"])
        return amended_venv(path) if name == "venv" else None


def load_own_libraries(search_path):
    """Load our copy of each library that the search path has as well, before the loader finds the other one."""
    others = set()
    for folder in search_path.replace(";", ":").split(":"):
        try:
            others.update(os.listdir(folder) if folder else ())
        except OSError:
            continue
    try:
        with open(os.path.join(ROOT, "libraries.txt"), encoding="utf-8") as stream:
            own = [line for line in stream.read().splitlines() if os.path.basename(line) in others]
    except OSError:
        return
    if own:
        import ctypes
    for each in own:
        try:
            ctypes.CDLL(os.path.join(SITE, each))
        except OSError:
            continue


def amended_venv(path):
    """The module venv, whose environments with system site-packages get those of this environment too."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("venv", path)
    if spec is None or spec.loader is None:
        return spec
    load = spec.loader.exec_module

    def exec_module(module):
        load(module)
        configure = module.EnvBuilder.create_configuration

        def create_configuration(self, context):
            configure(self, context)
            if self.system_site_packages:
                put_on_top(context.env_dir)

        module.EnvBuilder.create_configuration = create_configuration

    spec.loader.exec_module = exec_module
    return spec


def put_on_top(folder):
    """Let an environment of a user's find our packages after its own."""
    current = os.path.join(os.path.dirname(ROOT), "current")
    # An upgrade of the environment must not take the ground away from it.
    root = current if os.path.realpath(current) == os.path.realpath(ROOT) else ROOT
    below = os.path.relpath(SITE, ROOT)
    site = os.path.join(folder, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
    with open(os.path.join(site, "gpufleet-below.pth"), "w", encoding="utf-8") as stream:
        stream.write("import site; site.addsitedir(%r)\\n" % os.path.join(root, below))


sys.meta_path.insert(0, Finder)
'''


def write(path: str, site: str) -> None:
    """Put both files into an environment, and the list that they need."""
    for name, text in {**{os.path.join(site, name): text for name, text in HOOKS.items()}, **_list(path, site)}.items():
        # Never through a link that another environment has too.
        if os.path.lexists(name):
            os.unlink(name)
        with open(name, "w", encoding="utf-8") as handle:
            handle.write(text)


def _list(path: str, site: str) -> dict[str, str]:
    return {os.path.join(path, LIBRARIES): "".join(f"{name}\n" for name in load_order(site))}


def problems(path: str, site: str | None) -> list[str]:
    """What is not as ``write`` leaves it."""
    found = []
    for name, text in HOOKS.items() if site else ():
        place = os.path.join(str(site), name)
        if _read(place) != text:
            found.append(f"{place} was edited, is older than this release or is gone")
    if site and _read(os.path.join(path, LIBRARIES)) is None:
        found.append(f"{os.path.join(path, LIBRARIES)} is gone")
    return found


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except (OSError, ValueError):
        return None


def load_order(site: str) -> list[str]:
    """NVIDIA's libraries of an environment, relative to ``site``, each after those that it needs."""
    patterns = ("nvidia/*/lib/*.so*", "cusparselt/lib/*.so*", "torch/lib/libcu*.so*", "torch/lib/libnv*.so*")
    found = sorted({each for pattern in patterns for each in glob.glob(os.path.join(glob.escape(site), pattern))})
    by_name: dict[str, str] = {}
    for each in found:
        by_name.setdefault(os.path.basename(each), each)
    needs = {name: [each for each in needed(path) if each in by_name] for name, path in by_name.items()}
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        for each in needs[name]:
            if each not in order and each not in above:
                visit(each, (*above, name))
        if name not in order:
            order.append(name)

    for name in sorted(by_name):
        visit(name, ())
    return [os.path.relpath(by_name[name], site) for name in order]


def needed(path: str) -> list[str]:
    """The libraries that one asks for by name (``DT_NEEDED``); none where the file is no ELF file of 64 bits."""
    try:
        entries, names = elf.section(path, ".dynamic"), elf.section(path, ".dynstr")
    except OSError:
        return []
    found = []
    for tag, value in struct.iter_unpack("<qQ", entries[: len(entries) // 16 * 16]) if entries and names else ():
        if tag == END:
            break
        if tag == NEEDED and names and value < len(names):
            found.append(names[value : names.index(b"\0", value)].decode("utf-8", "replace"))
    return found
