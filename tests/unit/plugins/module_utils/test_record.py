# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record gives the facts of the node it was made of, and nothing that tells whose it is."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import cuda, gpu, loader_cache, node, record

ROOT = Path(__file__).resolve().parents[4]
NODES = sorted(path.parent for path in (ROOT / "tests/fixtures/nodes").glob("*/expected.json"))


def write(root: Path, path: str, content: str | bytes = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def facts(root: Path) -> dict[str, Any]:
    return {
        "gpu": gpu.collect(str(root)),
        "cuda": cuda.collect(str(root)),
        "node": node.collect(sysroot=str(root)),
    }


def recorded(source: Path, target: Path) -> Path:
    archive = target / "node.tar.gz"
    record.write(record.gather(str(source)), str(archive))
    with tarfile.open(archive) as members:
        members.extractall(target / "node", filter="fully_trusted")  # noqa: S202  # an archive of our own
    return target / "node"


@pytest.mark.parametrize("source", NODES, ids=lambda path: path.name)
def test_a_record_gives_the_same_facts_as_the_node(source: Path, tmp_path: Path) -> None:
    assert facts(recorded(source, tmp_path)) == facts(source)


_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened.append(arguments[0])


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that is opened while this is in use."""
    global _opened  # noqa: PLW0603  # an audit hook can't be taken back
    if not getattr(_watch, "hooked", False):
        sys.addaudithook(_watch)
        _watch.hooked = True  # type: ignore[attr-defined]
    _opened = []
    yield _opened
    _opened = None


def is_of_another_maker(path: Path) -> bool:
    return path.name == "vendor" and path.read_text().strip() != "0x10de"


@pytest.mark.parametrize("source", NODES, ids=lambda path: path.name)
def test_no_file_that_the_facts_read_is_missing(source: Path, opened: list[str]) -> None:
    facts(source)
    read = {str(Path(path).relative_to(source)) for path in opened if path.startswith(f"{source}/")}
    # Of other makers' devices nothing but the maker is read, to pass them over.
    read = {path for path in read if (source / path).is_file() and not is_of_another_maker(source / path)}
    assert read - set(record.gather(str(source))) == set()
    assert "proc/sys/kernel/osrelease" in read


TOKEN = "hf_ThisIsATokenOfSomebodys"  # noqa: S105  # of nobody
SECRETS = [
    TOKEN, "pa55word", "alice", "cluster7", "gpu042", "example.org", "SN0123456789", "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
    "52:54:00:12:34:56", "10.20.30.40", "2001:db8:85a3::8a2e:370:7334", "acme-internal-tool",
]  # fmt: skip


@pytest.fixture
def talkative(tmp_path: Path) -> Path:
    """A node whose every file tells more than it should."""
    root = tmp_path / "talkative"
    write(root, "etc/hostname", "gpu042.cluster7.example.org\n")
    write(root, "etc/hosts", "127.0.0.1 localhost\n10.20.30.40 gpu042.cluster7.example.org gpu042\n")
    write(root, "etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    write(root, "sys/class/dmi/id/product_serial", "SN0123456789\n")
    write(root, "sys/class/dmi/id/sys_vendor", "Supermicro SN0123456789\n")
    write(root, "etc/os-release", f'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\nSECRET={TOKEN}\n')
    write(root, "proc/sys/kernel/osrelease", "6.1.0-47-amd64\n")
    write(root, "proc/cpuinfo", "processor : 0\nmodel name : x\nflags : fpu hypervisor\nserial : SN0123456789\n")
    write(root, "proc/1/environ", f"container=docker\0HF_TOKEN={TOKEN}\0")
    write(
        root,
        "etc/environment",
        f'HF_TOKEN="{TOKEN}"\nPIP_INDEX_URL=https://alice:pa55word@pypi.example.org/simple\nPATH=/usr/bin:/home/alice/bin\n',
    )
    write(
        root,
        "etc/profile.d/cuda.sh",
        f"# gpu042 belongs to alice\nBASE=/home/alice/cuda\nexport TOKEN={TOKEN}\n"
        "export LD_LIBRARY_PATH=$BASE/lib:https://alice:pa55word@x/y\nexport CUDA_HOME=$BASE\n",
    )
    write(root, "home/alice/cuda/lib/libcudnn.so.8")
    write(root, "home/alice/cuda/lib/libalice_secret.py")
    write(root, "etc/ld.so.cache", loader_cache.build([("libcudnn.so.8", "/home/alice/cuda/lib/libcudnn.so.8")]))
    write(root, "etc/ld.so.conf.d/x.conf", "# 10.20.30.40\n/home/alice/cuda/lib\n")
    stanza = "Package: {}\nStatus: install ok {}\nMaintainer: Alice <alice@example.org>\nVersion: 1\nDescription: on gpu042\n"
    status = [stanza.format("acme-internal-tool", "installed"), stanza.format("nvidia-kernel-dkms", "installed")]
    write(root, "var/lib/dpkg/status", "\n".join([*status, stanza.format("acme-internal-tool-data", "unpacked")]))
    for name, value in (("vendor", "0x10de"), ("class", "0x030200"), ("device", "0x20f1")):
        write(root, f"sys/bus/pci/devices/0000:3b:00.0/{name}", value + "\n")
    write(
        root,
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  x\nalice@gpu042\n",
    )
    information = "Model: \t NVIDIA A100\nGPU UUID: \t GPU-0a1b2c3d-4e5f-6789-abcd-ef0123456789\nDevice Minor: \t 0\n"
    write(root, "proc/driver/nvidia/gpus/0000:3b:00.0/information", information)
    write(root, "proc/4711/comm", "alice_training\n")
    (root / "proc/4711/fd").mkdir()
    (root / "proc/4711/fd/7").symlink_to("/dev/nvidia0")
    said = "on gpu042.cluster7.example.org, 52:54:00:12:34:56, 10.20.30.40, 2001:db8:85a3::8a2e:370:7334, Serial Number: XYZ987"
    device = {"index": 0, "pci_address": "0000:3b:00.0", "uuid": "GPU-0a1b2c3d-4e5f-6789-abcd-ef0123456789"}
    answer = {"system": {}, "devices": [device], "errors": [{"code": "GF-NVML-ERROR", "message": said}]}
    write(root, ".gpufleet/nvml.json", json.dumps(answer))
    xid = "Nov 1 gpu042 sshd: alice\nNov 1 gpu042 kernel: NVRM: Xid (PCI:0000:3b:00): 13, pid=4711, name=python3, by alice\n"
    write(root, "var/log/kern.log", xid)
    return root


def test_nothing_in_a_record_tells_whose_it_is(talkative: Path) -> None:
    entries = record.gather(str(talkative))
    for path, entry in entries.items():
        text = path + (entry.decode("utf-8", "replace") if isinstance(entry, bytes) else entry or "")
        assert [secret for secret in [*SECRETS, "XYZ987"] if secret.lower() in text.lower()] == [], path


def test_what_the_facts_say_of_such_a_node_stays(talkative: Path, tmp_path: Path) -> None:
    before, after = facts(talkative), facts(recorded(talkative, tmp_path))
    assert after["gpu"]["driver"] == before["gpu"]["driver"]
    assert after["gpu"]["devices"][0]["name"] == before["gpu"]["devices"][0]["name"]
    assert after["gpu"]["devices"][0]["uuid"] == "GPU-00000000-0000-0000-0000-000000000001"
    assert after["gpu"]["virtualization"] == before["gpu"]["virtualization"] == "container"
    assert after["gpu"]["busy"] == [{"pid": 4711, "name": "process"}]
    assert [(xid["code"], xid["count"]) for xid in after["gpu"]["health"]["xid"]] == [(13, 1)]
    assert after["cuda"]["environment"]["cuda_home"] == "/home/user1/cuda"
    assert after["cuda"]["environment"]["set_by"] == before["cuda"]["environment"]["set_by"]
    assert after["node"]["packages_interrupted"] is True
    assert after["node"]["cpu"] == before["node"]["cpu"] == {"model": "x", "threads": 1}


def test_an_archive_is_the_same_each_time_and_nobody_elses_to_read(tmp_path: Path) -> None:
    for name in ("one", "other"):
        record.write(record.gather(str(NODES[0])), str(tmp_path / name))
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "one") as one, tarfile.open(tmp_path / "other") as other:
        assert [member.get_info() for member in one] == [member.get_info() for member in other]


def test_this_machine_can_be_recorded_by_python_alone(tmp_path: Path) -> None:
    archive = tmp_path / "node.tar.gz"
    command = [sys.executable, "-I", "-c", "import sys; sys.path[:0] = [sys.argv.pop(1)]; "
               "from ansible_collections.gpufleet.stack.plugins.module_utils import record; sys.exit(record.main())"]  # fmt: skip
    arguments = [str(ROOT / "collections"), "--output", str(archive)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    with tarfile.open(archive) as members:
        members.extractall(tmp_path / "node", filter="fully_trusted")  # noqa: S202  # an archive of our own
    live, replayed = facts(Path("/")), facts(tmp_path / "node")
    for of in (live, replayed):
        of["node"]["prefix"].pop("free_mib")  # it changes while tests run
        of["node"].pop("boot_id")  # replaced
        of["gpu"].pop("health")  # its source is a file in a record
        of["gpu"].pop("busy")
    assert replayed["node"] == live["node"]
    assert replayed["cuda"] == live["cuda"]
    assert replayed["gpu"]["kernel"] == live["gpu"]["kernel"]
    assert replayed["gpu"]["count"] == live["gpu"]["count"]


def run_module(dest: Path, **arguments: Any) -> dict[str, Any]:
    """The module as Ansible would run it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "plugins/modules/record_node.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {"dest": str(dest), "sysroot": str(NODES[0]), **arguments}}),
        env={"PYTHONPATH": str(ROOT / "collections"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_module_writes_the_archive_and_says_what_is_in_it(tmp_path: Path) -> None:
    answer = run_module(tmp_path / "node.tar.gz")
    with tarfile.open(tmp_path / "node.tar.gz") as members:
        assert members.getnames() == answer["entries"]
    assert "etc/os-release" in answer["entries"]
    assert run_module(tmp_path / "checked.tar.gz", _ansible_check_mode=True)["changed"] is True
    assert not (tmp_path / "checked.tar.gz").exists()


def test_a_place_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    answer = run_module(tmp_path / "nowhere/node.tar.gz")
    assert (answer["failed"], answer["error"]["code"]) == (True, "GF-RECORD-UNWRITABLE")
    assert "No such file or directory" in answer["msg"]
