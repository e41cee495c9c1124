"""The rules of the field, written down a second time and apart from the resolver, to judge its answers by.

The numbers are NVIDIA's and PyTorch's published ones; the catalog is read only for what a build contains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
# First and last driver branch, and the flavours of kernel modules, by compute capability.
BOTH = ("open", "proprietary")
DRIVERS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "3.0": (0, 470, ("proprietary",)),
    "3.5": (0, 470, ("proprietary",)),
    "3.7": (0, 470, ("proprietary",)),
    "5.0": (0, 580, ("proprietary",)),
    "5.2": (0, 580, ("proprietary",)),
    "6.0": (0, 580, ("proprietary",)),
    "6.1": (0, 580, ("proprietary",)),
    "7.0": (0, 580, ("proprietary",)),
    "7.5": (418, 999, BOTH),
    "8.0": (450, 999, BOTH),
    "8.6": (455, 999, BOTH),
    "8.9": (520, 999, BOTH),
    "9.0": (520, 999, BOTH),
    "10.0": (570, 999, ("open",)),
    "10.3": (580, 999, ("open",)),
    "12.0": (570, 999, ("open",)),
    "12.1": (580, 999, ("open",)),
}
OPEN_ONLY_IDS = {"10de:2342", "10de:2345", "10de:2348"}
FIRST_OPEN_BRANCH, LAST_PROPRIETARY_BRANCH = 515, 619
LEAST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
OWN_CODE = {"5.3", "6.2", "7.2", "8.7", "10.1", "11.0"}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+", maxsplit=1)[0].split("."))


def runs(compiled: list[str], capability: str) -> bool:
    if capability in compiled:
        return True
    major, minor = numbers(capability)
    return capability not in OWN_CODE and any(
        numbers(code)[0] == major and numbers(code)[1] <= minor for code in compiled
    )


def _only(rows: list[Row], **fields: Any) -> Row:
    """The one row with these values."""
    (found,) = [row for row in rows if all(row[name] == value for name, value in fields.items())]
    return found


def driver_serves(version: str, cuda: str) -> bool:
    """Minor version compatibility; a branch alone means its newest version."""
    least = LEAST_DRIVER[numbers(cuda)[0]]
    have = numbers(version)
    return have >= (least if len(have) > 1 else least[:1])


def faults(facts: Row, wanted: Row, answer: Row, catalog: Row) -> Iterator[str]:
    """Every rule that an answer breaks, in words."""
    if not answer["ok"]:
        yield from _conflict_faults(answer)
        return
    devices = [each for each in facts["gpu"]["devices"] if not each.get("passthrough")]
    stages = answer["stages"]
    driver = _driver(facts, stages["nvidia_driver"])
    yield from _driver_faults(devices, stages["nvidia_driver"])
    for environment in stages["pytorch"]["environments"]:
        yield from _environment_faults(facts, devices, driver, environment, catalog)
    yield from _toolkit_faults(devices, driver, stages, catalog)
    yield from _header_faults(facts, stages)
    yield from _wish_faults(wanted, stages)
    yield from _major_faults(wanted, stages)
    if not devices and stages["nvidia_driver"]["wanted"]:
        yield "a driver for a node without a GPU"


def _conflict_faults(answer: Row) -> Iterator[str]:
    if not answer["conflicts"]:
        yield "refused without a conflict"
    for conflict in answer["conflicts"]:
        if not conflict["because"] or not conflict["message"]:
            yield f"{conflict['code']} gives no reason"
        if not conflict["fixes"] and not conflict["advice"]:
            yield f"{conflict['code']} leaves the reader without a way out"


def _driver(facts: Row, stage: Row) -> str | None:
    there = facts["gpu"]["driver"]
    version: str | None = stage["version"] if stage["wanted"] else there["installed_version"] or there["loaded_version"]
    return version


def _driver_faults(devices: list[Row], stage: Row) -> Iterator[str]:
    if not stage["wanted"]:
        return
    branch, flavour = numbers(stage["version"])[0], stage["flavour"]
    if (flavour == "open" and branch < FIRST_OPEN_BRANCH) or (
        flavour == "proprietary" and branch > LAST_PROPRIETARY_BRANCH
    ):
        yield f"there are no {flavour} modules of branch {branch}"
    if not stage["packages"] and stage["source"] != "runfile":
        yield "a driver without packages"
    for device in devices:
        first, last, flavours = DRIVERS[device["compute_capability"]]
        flavours = ("open",) if device["pci_id"] in OPEN_ONLY_IDS else flavours
        if not first <= branch <= last:
            yield f"branch {branch} does not drive {device['name']}"
        if flavour not in flavours:
            yield f"{flavour} modules do not drive {device['name']}"


def _environment_faults(
    facts: Row, devices: list[Row], driver: str | None, environment: Row, catalog: Row
) -> Iterator[str]:
    node = facts["node"]
    mac = node["distribution"] == "MacOSX"
    platform = ("macos_" if mac else "") + node["architecture"]
    release = _only(catalog["torch"]["releases"], version=environment["torch"])
    build = _only(catalog["torch"]["builds"][release["series"]], variant=environment["variant"], platform=platform)
    label = f"torch {environment['torch']} {environment['variant']}"
    if environment["python"] not in release["pythons"][platform]:
        yield f"{label} has no wheel for Python {environment['python']}"
    floor = release["glibc_min"].get(node["architecture"])
    if not mac and node["glibc"] and floor and numbers(node["glibc"]) < numbers(floor):
        yield f"{label} needs glibc {floor}"
    if numbers(environment["torch"]) < (2, 3) and "numpy<2" not in environment["requirements"]:
        yield f"{label} without a bound for NumPy"
    if (environment["torch_index_url"] == "") != (build["index"] == "package"):
        yield f"{label} from the wrong index"
    if build["cuda"] is None:
        return
    for device in devices:
        if not runs(build["compiled_for"], device["compute_capability"]) and build["ptx"] is None:
            yield f"{label} has no code for {device['name']}"
    windows = facts["gpu"]["driver"]["source"] == "windows"
    if devices and driver is not None and not windows and not driver_serves(driver, build["cuda"]):
        yield f"{label} does not run under driver {driver}"


def _header_faults(facts: Row, stages: Row) -> Iterator[str]:
    """The C library says noexcept of functions that CUDA's headers declare too: sinpi from 2.41 on, rsqrt from 2.42 on."""
    glibc = numbers(facts["node"].get("glibc") or "0")
    least = (13, 2) if glibc >= (2, 42) else (13, 0) if glibc >= (2, 41) else (0, 0)
    for toolkit in stages["cuda_toolkit"]["toolkits"]:
        if numbers(toolkit["version"])[:2] < least:
            yield f"toolkit {toolkit['version']} does not compile with glibc {facts['node']['glibc']}"


def _toolkit_faults(devices: list[Row], driver: str | None, stages: Row, catalog: Row) -> Iterator[str]:
    majors = set()
    for toolkit in stages["cuda_toolkit"]["toolkits"]:
        row = [row for row in catalog["cuda"]["toolkits"] if row["series"] == toolkit["version"]][-1]
        majors.add(numbers(toolkit["version"])[0])
        for device in devices:
            if not runs(row["targets"], device["compute_capability"]):
                yield f"nvcc {toolkit['version']} does not compile for {device['name']}"
        if devices and driver and stages["nvidia_driver"]["wanted"] and not driver_serves(driver, toolkit["version"]):
            yield f"toolkit {toolkit['version']} does not run under driver {driver}"
    for cudnn in stages["cudnn"]["cudnns"]:
        row = _only(catalog["cudnn"]["cudnn"], version=cudnn["version"], cuda_major=cudnn["cuda_major"])
        if majors and cudnn["cuda_major"] not in majors:
            yield f"cuDNN for CUDA {cudnn['cuda_major']} beside a toolkit of CUDA {majors}"
        for device in devices:
            low, high = row["compute_capability_min"] or "0.0", row["compute_capability_max"] or "99.0"
            if not numbers(low) <= numbers(device["compute_capability"]) <= numbers(high):
                yield f"cuDNN {cudnn['version']} does not run on {device['name']}"


def _major_faults(wanted: Row, stages: Row) -> Iterator[str]:
    """A toolkit that nobody chose is of the CUDA that torch uses."""
    torch = [numbers(each["cuda"])[0] for each in stages["pytorch"]["environments"] if each["cuda"]]
    chosen = wanted.get("cuda_toolkit_version", "auto") != "auto"
    for toolkit in [] if chosen else stages["cuda_toolkit"]["toolkits"]:
        if numbers(toolkit["version"])[0] != torch[0]:
            yield f"toolkit {toolkit['version']} beside a torch of CUDA {torch[0]}"


def _in_series(version: str, wish: str) -> bool:
    return numbers(version)[: len(numbers(wish))] == numbers(wish)


def _wish_faults(wanted: Row, stages: Row) -> Iterator[str]:
    """Wishes are respected or refused, never bent."""
    version, variant = wanted.get("pytorch_version", "2.0.1"), wanted.get("pytorch_cuda", "auto")
    if "pytorch_environments" not in wanted:
        for environment in stages["pytorch"]["environments"]:
            if version != "auto" and not _in_series(environment["torch"], version):
                yield f"torch {version} was asked for, {environment['torch']} is planned"
            if variant not in ("auto", environment["variant"]):
                yield f"{variant} was asked for, {environment['variant']} is planned"
    python = wanted.get("python_version", "auto")
    if python != "auto" and not _in_series(stages["python"]["version"], python):
        yield f"Python {python} was asked for"
    driver = stages["nvidia_driver"]
    if driver["wanted"]:
        for part in ("version", "source", "flavour"):
            wish = wanted.get(f"nvidia_driver_{part}", "auto")
            # Of a branch the newest is planned by its number; an installer brings one exact version of it.
            same = (
                _in_series(wish, driver["version"])
                or (driver["source"] == "runfile" and _in_series(driver["version"], wish))
                if part == "version" and wish[:1].isdigit()
                else wish == driver[part]
            )
            if wish != "auto" and not same:
                yield f"nvidia_driver_{part} {wish} was asked for, {driver[part]} is planned"
    toolkit = wanted.get("cuda_toolkit_version", "auto")
    if (
        isinstance(toolkit, str)
        and toolkit[:1].isdigit()
        and not any(
            _in_series(each["version"], ".".join(toolkit.split(".")[:2])) for each in stages["cuda_toolkit"]["toolkits"]
        )
    ):
        yield f"toolkit {toolkit} was asked for"
