"""Compares a node with what its scenario expects of it; runs on the node, and prints every difference.

What can be expected (all keys may be left out):

    module: {version, license}      of every kernel's nvidia module, and of the library that programs get; null: there is none
    built_by: dkms | precompiled    where these modules come from
    packages, absent: [names]       installed, and not even half there
    held: [names]                   by apt or by dnf's versionlock
    quiet: [services]               enabled, and skipped on a node without a loaded driver; no unit of the node has failed
    toolkit: "12.6"                 behind /usr/local/cuda, said by nvcc and found by a login shell
    repository: true | false        an entry for NVIDIA's repository
    receipts: [roles]               that left one
    python: path                    where the interpreter of the environment lies
    environments: {name: version}   what torch says of itself in each
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys


def said(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode("utf-8", "replace").strip()


def rpm_family() -> bool:
    return os.path.exists("/etc/yum.repos.d")


def installed() -> set[str]:
    if rpm_family():
        return set(said("rpm", "-qa", "--qf", "%{NAME}\n").split())
    lines = said("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n").splitlines()
    return {line.split()[1] for line in lines if line.split()[0] != "not-installed" and " " in line}


def modules() -> list[str]:
    # The main module: those beside it (drm, uvm, peermem) bear other licences, one of them no version, and the kernel has
    # modules of its own whose names begin alike (nvidia-wmi-ec-backlight).
    found = said("find", "/lib/modules/", "-name", "nvidia*.ko*").split()
    return [path for path in found if re.match(r"nvidia(-current(-open)?|-tesla-\d+)?\.ko", os.path.basename(path))]


def check_modules(wanted: dict[str, str], built_by: str | None) -> list[str]:
    found = modules()
    wrong = [] if found else ["no kernel has an nvidia module"]
    for path in found:
        for field, value in wanted.items():
            has = said("modinfo", "-F", field, path)
            if has != value:
                wrong.append(f"{path}: {field} is {has!r}, expected {value!r}")
        if built_by and ("/updates/dkms/" in path) != (built_by == "dkms"):
            wrong.append(f"{path} is not {built_by}'s")
    for folder in glob.glob("/lib/modules/*/build/Makefile"):
        release = folder.split("/")[3]
        if not any(path.startswith(f"/lib/modules/{release}/") for path in found):
            wrong.append(f"kernel {release} has headers and no nvidia module")
    target = re.search(r"libcuda\.so\.1 .*x86-64.* => (\S+)", said("ldconfig", "-p"))
    library = os.path.basename(os.path.realpath(target.group(1))) if target else "none"
    if not library.endswith("." + wanted["version"]):
        wrong.append(f"the loader gives {library} for libcuda.so.1, expected {wanted['version']}")
    return wrong


def check_held(names: list[str]) -> list[str]:
    locks = said("dnf", "-q", "versionlock", "list") if rpm_family() else said("apt-mark", "showhold")
    return [f"{name} is not held" for name in names if name not in locks]


def check_quiet(names: list[str]) -> list[str]:
    wrong = []
    for name in names:
        start = said("systemctl", "start", f"{name}.service")
        shown = said("systemctl", "show", f"{name}.service", "-p", "UnitFileState,ConditionResult,ActiveState")
        state = dict(line.split("=", 1) for line in shown.splitlines())
        if state != {"UnitFileState": "enabled", "ConditionResult": "no", "ActiveState": "inactive"}:
            wrong.append(f"{name} is {state} {start}")
    system = said("systemctl", "is-system-running")
    return (
        wrong
        if system == "running"
        else [*wrong, f"systemd is {system}: {said('systemctl', '--failed', '--no-legend')}"]
    )


def check_toolkit(version: str) -> list[str]:
    wrong = []
    if not os.path.realpath("/usr/local/cuda").endswith(version):
        wrong.append(f"/usr/local/cuda leads to {os.path.realpath('/usr/local/cuda')}")
    for command in (["/usr/local/cuda/bin/nvcc", "--version"], ["bash", "-lc", "nvcc --version"]):
        if f"release {version}" not in said(*command):
            wrong.append(f"{' '.join(command)} says {said(*command)}")
    return wrong


def check_repository(wanted: bool) -> list[str]:
    there = glob.glob("/etc/apt/sources.list.d/gpufleet-nvidia*") + glob.glob("/etc/yum.repos.d/gpufleet-nvidia*")
    return [] if bool(there) == wanted else [f"entries for NVIDIA's repository: {there}"]


def check_receipts(roles: list[str]) -> list[str]:
    return [f"no receipt of {role}" for role in roles if not os.path.exists(f"/var/lib/gpufleet/receipts/{role}.json")]


def check_python(path: str) -> list[str]:
    found = os.path.realpath("/opt/gpufleet/envs/default/current/bin/python")
    return [] if found.startswith(path) else [f"the environment rests on {found}"]


def check_environments(wanted: dict[str, str]) -> list[str]:
    ask = "import torch; print(torch.__version__)"
    found = {name: said(f"/opt/gpufleet/envs/{name}/current/bin/python", "-c", ask) for name in wanted}
    return [
        f"environment {name} says {found[name]}, expected {wanted[name]}"
        for name in wanted
        if found[name] != wanted[name]
    ]


def main() -> None:
    expected = json.loads(sys.argv[1])
    there = installed()
    wrong = [f"{name} is not installed" for name in expected.get("packages", []) if name not in there]
    wrong += [f"{name} is installed" for name in expected.get("absent", []) if name in there]
    if expected.get("module"):
        wrong += check_modules(expected["module"], expected.get("built_by"))
    elif "module" in expected and modules():
        wrong.append(f"there are modules: {modules()}")
    wrong += check_held(expected.get("held", []))
    if "quiet" in expected:
        wrong += check_quiet(expected["quiet"])
    if "toolkit" in expected:
        wrong += check_toolkit(expected["toolkit"])
    if "repository" in expected:
        wrong += check_repository(expected["repository"])
    wrong += check_receipts(expected.get("receipts", []))
    if "python" in expected:
        wrong += check_python(expected["python"])
    wrong += check_environments(expected.get("environments", {}))
    if not expected:
        wrong.append("nothing is expected, so nothing was checked")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
