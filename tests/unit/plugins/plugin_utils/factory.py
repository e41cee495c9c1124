"""Facts of made-up nodes for the tests of the resolver."""

from __future__ import annotations

from typing import Any

GPUS = {
    "k80": ("Tesla K80", "Kepler", "3.7"),
    "v100": ("Tesla V100-SXM2-16GB", "Volta", "7.0"),
    "a100": ("NVIDIA A100-PCIE-40GB", "Ampere", "8.0"),
    "l4": ("NVIDIA L4", "Ada", "8.9"),
    "h100": ("NVIDIA H100 PCIe", "Hopper", "9.0"),
    "b200": ("NVIDIA B200", "Blackwell", "10.0"),
}
PYTHON = {"11": "3.9", "12": "3.11", "13": "3.13"}
GLIBC = {"11": "2.31", "12": "2.36", "13": "2.41"}


def facts(
    *gpus: str,
    version: str = "12",
    distribution: str = "Debian",
    architecture: str = "x86_64",
    driver: str | None = None,
    loaded: str | None = None,
    driver_source: str | None = None,
    virtualization: str = "bare",
    extra_pythons: tuple[str, ...] = (),
    root: bool = True,
    writable: bool = True,
    free_mib: int = 100_000,
    reboot_needed: bool = False,
    glibc: str | None = None,
) -> dict[str, Any]:
    """One node as the probe describes it."""
    devices = [
        {"name": name, "architecture": family, "compute_capability": capability}
        for name, family, capability in (GPUS[gpu] for gpu in gpus)
    ]
    distribution_python = PYTHON.get(version, "3.9")
    pythons = [
        {"version": distribution_python, "path": f"/usr/bin/python{distribution_python}", "provider": "distribution"}
    ]
    pythons += [
        {"version": each, "path": f"/usr/local/bin/python{each}", "provider": "installed"} for each in extra_pythons
    ]
    return {
        "gpu": {
            "present": bool(devices),
            "devices": devices,
            "virtualization": virtualization,
            "driver": {"installed_version": driver, "loaded_version": loaded, "source": driver_source},
            "kernel": {"release": "6.1.0-47-amd64", "headers": False},
            "reboot_needed": reboot_needed,
        },
        "cuda": {"torch": []},
        "node": {
            "distribution": distribution,
            "version": version,
            "architecture": architecture,
            "glibc": glibc or GLIBC.get(version, "2.31"),
            "pythons": pythons,
            "root": root,
            "prefix": {"path": "/opt/gpufleet", "writable": writable, "free_mib": free_mib},
        },
    }
