"""By which interface and address a node meets the others, from the kernel's own files."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import fleet_look, fleet_network
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eno1\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
ib0\t0000010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wlan0\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0
"""
IPV6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000242acfffe110002 02 40 20 80     eno1
20010db8000000000000000000000005 02 40 00 80     eno1
"""
IPV4 = [("lo", "127.0.0.1"), ("eno1", "10.0.0.5"), ("ib0", "10.1.0.5"), ("usb0", "169.254.3.4")]


@pytest.fixture(name="proc")
def _proc(tmp_path: Path) -> str:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "route").write_text(ROUTES, encoding="ascii")
    (tmp_path / "net" / "if_inet6").write_text(IPV6, encoding="ascii")
    return str(tmp_path)


def test_addresses_are_those_that_others_can_reach(proc: str) -> None:
    assert fleet_network.addresses(proc, IPV4) == [
        ("eno1", "10.0.0.5"),
        ("ib0", "10.1.0.5"),
        ("eno1", "2001:db8::5"),
    ]


def test_the_kernel_knows_this_machines_addresses() -> None:
    """Whatever they are: asked in another way, they are the same."""
    known = {address for _interface, address in fleet_network.addresses()}
    found = {str(row[4][0]) for row in socket.getaddrinfo(socket.gethostname(), None)}
    assert {address for address in found if not address.startswith(("127.", "::1", "fe80"))} <= known


def test_default_interface_is_the_one_that_costs_least(proc: str, tmp_path: Path) -> None:
    assert fleet_network.default_interface(proc) == "eno1"
    assert fleet_network.default_interface(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize(
    ("wanted", "default", "expected"),
    [("", "eno1", "10.0.0.5"), ("ib0", "eno1", "10.1.0.5"), ("", None, "10.0.0.5"), ("eth9", "eno1", None)],
)
def test_choice_of_an_address(proc: str, wanted: str, default: str | None, expected: str | None) -> None:
    chosen = fleet_network.choose(fleet_network.addresses(proc, IPV4), wanted, default)
    assert (chosen[1] if chosen else None) == expected


def test_interface_towards_a_target_is_that_of_the_own_address() -> None:
    assert fleet_network.interface_towards("127.0.0.1", 9, [("lo0", "127.0.0.1")]) == "lo0"
    assert fleet_network.interface_towards("127.0.0.1", 9, [("eno1", "10.0.0.5")]) is None
    assert fleet_network.interface_towards("not a name", 9, []) is None


def test_a_port_on_which_something_listens_is_not_free() -> None:
    with socket.socket() as door:
        door.bind(("", 0))
        door.listen(1)
        assert not fleet_network.port_is_free(door.getsockname()[1])
        port = door.getsockname()[1]
    assert fleet_network.port_is_free(port)


# ---- what has to be known before ------------------------------------------------------------------------------------


def environment(folder: Path, text: str = "__version__ = '2.0.1+cu117'\n") -> str:
    site = folder / "lib" / "python3.11" / "site-packages" / "torch"
    site.mkdir(parents=True)
    (site / "version.py").write_text(text, encoding="utf-8")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def test_the_torch_that_lies_there(tmp_path: Path) -> None:
    assert fleet_look.installed(environment(tmp_path / "a")) == {"torch": "2.0.1+cu117", "python": "3.11"}
    typed = environment(tmp_path / "b", "from typing import Optional\n__version__: str = '2.6.0'\n")
    assert fleet_look.installed(typed)["torch"] == "2.6.0"
    assert fleet_look.installed(str(tmp_path / "c" / "bin" / "python")) == {"torch": None, "python": None}
    Path(typed).unlink()
    assert fleet_look.installed(typed)["torch"] is None


def test_an_address_of_ones_own_counts(tmp_path: Path) -> None:
    found = fleet_look.look(environment(tmp_path), 0, "", "n1.example.org")
    assert (found["address"], found["interface"], found["port_free"]) == ("n1.example.org", None, True)


def test_an_interface_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError) as caught:
        fleet_look.look(environment(tmp_path), 0, "ib99", "")
    assert caught.value.code == "GF-FLEET-INTERFACE"
