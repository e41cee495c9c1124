"""Facts of made-up nodes for the tests of the resolver."""

from __future__ import annotations

from typing import Any

# Name, architecture, compute capability, PCI id.
GPUS = {
    "gtx680": ("GeForce GTX 680", "Kepler", "3.0", "10de:1180"),
    "k40": ("Tesla K40m", "Kepler", "3.5", "10de:1023"),
    "k80": ("Tesla K80", "Kepler", "3.7", "10de:102d"),
    "m60": ("Tesla M60", "Maxwell", "5.2", "10de:13f2"),
    "p100": ("Tesla P100-PCIE-16GB", "Pascal", "6.0", "10de:15f8"),
    "gtx1080": ("NVIDIA GeForce GTX 1080", "Pascal", "6.1", "10de:1b80"),
    "v100": ("Tesla V100-SXM2-16GB", "Volta", "7.0", "10de:1db1"),
    "t4": ("Tesla T4", "Turing", "7.5", "10de:1eb8"),
    "a100": ("NVIDIA A100-PCIE-40GB", "Ampere", "8.0", "10de:20f1"),
    "a10": ("NVIDIA A10", "Ampere", "8.6", "10de:2236"),
    "rtx4090": ("NVIDIA GeForce RTX 4090", "Ada", "8.9", "10de:2684"),
    "l4": ("NVIDIA L4", "Ada", "8.9", "10de:27b8"),
    "h100": ("NVIDIA H100 PCIe", "Hopper", "9.0", "10de:2331"),
    "gh200": ("NVIDIA GH200 480GB", "Hopper", "9.0", "10de:2342"),
    "b200": ("NVIDIA B200", "Blackwell", "10.0", "10de:2901"),
    "b300": ("NVIDIA B300 SXM6 AC", "Blackwell", "10.3", "10de:3182"),
    "rtx5090": ("NVIDIA GeForce RTX 5090", "Blackwell", "12.0", "10de:2b85"),
    "gb10": ("NVIDIA GB10", "Blackwell", "12.1", "10de:2e12"),
}
PYTHON = {
    ("Debian", "11"): "3.9",
    ("Debian", "12"): "3.11",
    ("Debian", "13"): "3.13",
    ("Ubuntu", "20.04"): "3.8",
    ("Ubuntu", "22.04"): "3.10",
    ("Ubuntu", "24.04"): "3.12",
    ("Ubuntu", "26.04"): "3.14",
}
GLIBC = {
    ("Debian", "11"): "2.31",
    ("Debian", "12"): "2.36",
    ("Debian", "13"): "2.41",
    ("Ubuntu", "20.04"): "2.31",
    ("Ubuntu", "22.04"): "2.35",
    ("Ubuntu", "24.04"): "2.39",
    ("Ubuntu", "26.04"): "2.43",
}


def device(gpu: str, **changes: Any) -> dict[str, Any]:
    """One GPU as the facts describe it."""
    name, architecture, capability, pci_id = GPUS[gpu]
    return {
        "name": name,
        "architecture": architecture,
        "compute_capability": capability,
        "pci_id": pci_id,
        "passthrough": False,
        "vgpu": None,
        "mig": {"enabled": False, "instances": []},
        **changes,
    }


def facts(
    *gpus: str,
    version: str = "12",
    distribution: str = "Debian",
    architecture: str = "x86_64",
    driver: str | None = None,
    loaded: str | None = None,
    driver_source: str | None = None,
    driver_cuda: str | None = None,
    flavour: str | None = None,
    competitor: str | None = None,
    virtualization: str = "bare",
    nvswitches: int = 0,
    secure_boot: bool | None = None,
    extra_pythons: tuple[str, ...] = (),
    root: bool = True,
    writable: bool = True,
    free_mib: int = 100_000,
    reboot_needed: bool = False,
    glibc: str | None = None,
) -> dict[str, Any]:
    """One node as the probe describes it."""
    devices = [device(gpu) for gpu in gpus]
    distribution_python = PYTHON.get((distribution, version), "3.9")
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
            "driver": {
                "installed_version": driver,
                "loaded_version": loaded,
                "source": driver_source,
                "cuda_version": driver_cuda,
                "flavour": flavour,
                "competitor": competitor,
            },
            "fabric": {"nvswitches": nvswitches},
            "kernel": {"release": "6.1.0-47-amd64", "headers": False, "secure_boot": secure_boot},
            "reboot_needed": reboot_needed,
        },
        "cuda": {"torch": []},
        "node": {
            "distribution": distribution,
            "version": version,
            "architecture": architecture,
            "glibc": glibc or GLIBC.get((distribution, version)),
            "package_manager": "apt" if distribution in ("Debian", "Ubuntu") else "dnf",
            "pythons": pythons,
            "root": root,
            "prefix": {"path": "/opt/gpufleet", "writable": writable, "free_mib": free_mib},
        },
    }
