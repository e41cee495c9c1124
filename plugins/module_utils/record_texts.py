# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a record keeps of each kind of file: only what the facts read in it. Private to the collection.

Every function takes the file's content and gives that of the record. They keep what is known and needed; whatever else
stands in a file, a comment or a token, is left behind because nobody asked for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection

from ansible_collections.gpufleet.stack.plugins.module_utils import (
    driver_module,
    elf,
    gpu_health,
    loader_cache,
    packages,
    record_elf,
    shell_variables,
    torch_arch,
)

PACKAGES = re.compile(r"nvidia|cuda|cudnn|^(lib)?python3|^gcc|^g\+\+|^dkms$|^libc6$|^glibc$|^kmod-|^kernel(-devel)?$")
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH")
_LIBRARIES = re.compile(r"^lib(cudnn|cuda|nvidia)")
_XID_LINE = re.compile(rb"NVRM: Xid \(.*")
_OS_RELEASE = ("ID", "ID_LIKE", "NAME", "VERSION_ID", "VERSION_CODENAME")


def lines(content: bytes, pattern: str) -> bytes:
    """The lines in which the pattern is found."""
    text = content.decode("utf-8", "replace")
    return "".join(line + "\n" for line in text.splitlines() if re.search(pattern, line)).encode()


def os_release(content: bytes) -> bytes:
    """The fields that say which distribution it is."""
    return lines(content, rf"^({'|'.join(_OS_RELEASE)})=")


def nothing(_content: bytes) -> bytes:
    """That the file is there is all that counts."""
    return b""


def word(content: bytes) -> bytes:
    """A short value, as sysfs has them."""
    return content[:256]


def cpuinfo(content: bytes) -> bytes:
    """Which processor it is, how many threads it has, and whether it says that it is a virtual one."""
    kept = lines(content, r"^(processor|model name|CPU implementer|CPU part)\s*:")
    flags = re.search(rb"^flags\s*:(.*)$", content, re.MULTILINE)
    if flags is None:
        return kept
    return kept + b"flags\t\t: fpu" + (b" hypervisor" if b"hypervisor" in flags.group(1).split() else b"") + b"\n"


def process_environment(content: bytes) -> bytes:
    """The variable by which a container tells itself."""
    return b"".join(b"container=1\0" for part in content.split(b"\0")[:4096] if part.startswith(b"container="))[:12]


def shell(content: bytes) -> bytes:
    """The assignments of the variables that count, and of those whose values go into theirs."""
    found = shell_variables.written(content.decode("utf-8", "replace"))
    wanted = set(_VARIABLES)
    for name, value in reversed(found):
        if name in wanted:
            wanted.update(re.findall(r"\$\{?(\w+)", value))
    kept = [(name, value) for name, value in found if name in wanted]
    return "".join(f"{name}={value}\n" for name, value in kept).encode()


def toolkit_version(content: bytes) -> bytes:
    """The toolkit's version out of the list of all its parts."""
    try:
        version = str(json.loads(content)["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return b""
    return json.dumps({"cuda": {"version": version}}).encode() + b"\n"


def dpkg_status(content: bytes) -> bytes:
    """The packages that concern a GPU machine, and whether anything was left half done."""
    kept = []
    for stanza in content.decode("utf-8", "replace").split("\n\n"):
        name = re.search(r"^Package: (\S+)$", stanza, re.MULTILINE)
        state = re.search(r"^Status: (\S+ \S+ (\S+))$", stanza, re.MULTILINE)
        if name is None or state is None:
            continue
        if PACKAGES.search(name.group(1)):
            fields = re.findall(r"^(?:Package|Status|Version): .*$", stanza, re.MULTILINE)
            maker = "nvidia.com" if re.search(r"^Maintainer:.*nvidia\.com", stanza, re.MULTILINE) else "distribution"
            kept.append("\n".join([*fields, f"Maintainer: somebody <somebody@{maker}>"]))
        elif state.group(2) in packages.UNFINISHED_STATES:
            kept.append(f"Package: left-unfinished\nStatus: {state.group(1)}\nVersion: 0")
    return ("\n\n".join(kept) + "\n").encode() if kept else b""


def loader(content: bytes, scrub: Callable[[str], str]) -> bytes:
    """The loader's cache with the libraries of NVIDIA's alone; its paths are scrubbed before it is built."""
    rows = loader_cache.entries(content)
    return loader_cache.build([(name, scrub(path)) for name, path in rows if _LIBRARIES.match(name)])


def pci_ids(content: bytes, device_ids: Collection[str]) -> bytes:
    """NVIDIA's rows for the devices on the bus, out of the list of all makers' devices."""
    kept, ours = [], False
    for line in content.decode("utf-8", "replace").splitlines():
        if re.match(r"#\s+(Version|Date):", line):
            kept.append(line)
        elif line[:1] not in ("\t", "#", ""):
            ours = line.startswith("10de ")
            kept += [line] if ours else []
        elif ours and line[:1] == "\t" and line[1:5] in device_ids:
            kept.append(line)
    return ("\n".join(kept) + "\n").encode()


def kernel_log(content: bytes) -> bytes:
    """The lines in which NVIDIA's driver reports an error of a GPU."""
    return b"".join(found + b"\n" for found in _XID_LINE.findall(content[-gpu_health.LIMIT :]))


def kernel_module(path: str) -> bytes:
    """Version, licence and signature of a kernel module, which itself has 60 MB."""
    try:
        information = (elf.section(path, ".modinfo") or b"").split(b"\0")
        if information == [b""]:
            with open(path, "rb") as stream:
                information = stream.read(1024 * 1024).split(b"\0")
    except OSError:
        return b""
    kept = [part + b"\0" for part in information if re.match(rb"(version|license)=[\x20-\x7e]*$", part)]
    signature = b"~Module signature appended~\n" if driver_module.inspect(path).signed else b""
    return b"".join(kept) + signature


def torch_library(path: str) -> bytes:
    """The one constant of libtorch_python.so that is asked for."""
    flags = torch_arch.flags(path)
    return record_elf.build(".rodata", b"\0" + flags + b"\0") if flags else b""


def nvcc(path: str) -> bytes:
    """The compiler's version, which stands as a text in its file."""
    try:
        with open(path, "rb") as stream:
            match = re.search(rb"release \d+\.\d+, V\d+\.\d+\.\d+", stream.read(64 * 1024 * 1024))
    except OSError:
        return b""
    return match.group() if match else b""
