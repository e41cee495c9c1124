# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_state
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

KERNEL = "6.1.0-56-amd64"
VERSION = "535.309.01"
# dkms 3.0.10 (Debian 12) and dkms 2.8.4 (Debian 11)
DKMS_STATUS = "nvidia-current/535.309.01, 6.1.0-56-amd64, x86_64: installed\n"
DKMS_STATUS_OLD = "nvidia-current, 470.256.02, 5.10.0-30-amd64, x86_64: installed\n"
DKMS_ADDED = "nvidia-current/535.309.01: added\n"


@pytest.fixture
def node(tmp_path):
    """A Debian 12 root on which the driver is installed and built."""
    base = tmp_path / "lib/modules" / KERNEL
    (base / "updates/dkms").mkdir(parents=True)
    (base / "updates/dkms/nvidia-current.ko").touch()
    (base / "updates/dkms/nvidia-current-drm.ko").touch()
    (base / "build").mkdir()
    (base / "build/Makefile").touch()
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu/nvidia/current"
    libraries.mkdir(parents=True)
    for name in ("libcuda.so." + VERSION, "libnvidia-ml.so." + VERSION, "libcuda.so.1"):
        (libraries / name).touch()
    return tmp_path


class Commands:
    """Stands for the programs of a node: answers by the first two words, keeps what was run."""

    def __init__(self, answers, effect=None):
        self.answers = answers
        self.effect = effect
        self.seen = []

    def __call__(self, command):
        self.seen.append(" ".join(command))
        if self.effect:
            self.effect(command)
        return self.answers.get(" ".join(command[:2]), (0, VERSION + "\n", ""))


def measured(root, commands=None):
    state = driver_state.kernels(str(root))
    driver_state.measure_versions(state, commands or Commands({}))
    return state


def test_a_whole_driver_has_one_version(node):
    assert driver_state.check(measured(node), driver_state.library_versions(str(node))) == VERSION


def test_libraries_are_known_by_their_names(node):
    assert driver_state.library_versions(str(node)) == {"libcuda.so": [VERSION], "libnvidia-ml.so": [VERSION]}


def test_other_library_version_is_a_mismatch(node):
    folder = node / "usr/lib/x86_64-linux-gnu"
    (folder / "libcuda.so.550.90.07").touch()
    with pytest.raises(GpufleetError) as caught:
        driver_state.check(measured(node), driver_state.library_versions(str(node)))
    assert caught.value.code == "GF-DRIVER-MISMATCH"
    assert "550.90.07" in caught.value.message


def test_other_module_version_is_a_mismatch(node):
    state = measured(node, Commands({"modinfo -F": (0, "535.261.03\n", "")}))
    with pytest.raises(GpufleetError) as caught:
        driver_state.check(state, driver_state.library_versions(str(node)))
    assert caught.value.code == "GF-DRIVER-MISMATCH"
    assert "535.261.03" in caught.value.message


def test_missing_library_is_a_mismatch(node):
    with pytest.raises(GpufleetError) as caught:
        driver_state.check(measured(node), {"libcuda.so": [VERSION]})
    assert caught.value.code == "GF-DRIVER-MISMATCH"
    assert "libnvidia-ml.so" in caught.value.message


def test_no_headers_at_all_is_an_error(tmp_path):
    with pytest.raises(GpufleetError) as caught:
        driver_state.check(driver_state.kernels(str(tmp_path)), {})
    assert caught.value.code == "GF-DKMS-FAILED"


def test_build_runs_only_for_kernels_that_lack_the_module(node):
    commands = Commands({"dkms status": (0, DKMS_STATUS, "")})
    assert driver_state.build(driver_state.kernels(str(node)), commands, KERNEL, str(node)) == ([], {})
    assert commands.seen == []


def test_build_installs_for_the_headers_kernel(node):
    module = node / "lib/modules" / KERNEL / "updates/dkms/nvidia-current.ko"
    module.unlink()
    commands = Commands(
        {"dkms status": (0, DKMS_ADDED, "")}, lambda command: module.touch() if command[1] == "install" else None
    )
    state = driver_state.kernels(str(node))
    assert driver_state.build(state, commands, KERNEL, str(node)) == ([KERNEL], {})
    assert commands.seen == ["dkms status", f"dkms install --force nvidia-current/{VERSION} -k {KERNEL}"]


@pytest.mark.parametrize("there", [True, False])
def test_a_source_that_dkms_forgot_is_added_again(node, there):
    """Of one version the other flavour came, and the former one's script took the version out of DKMS."""
    module = node / "lib/modules" / KERNEL / "extra/nvidia.ko"
    (node / "lib/modules" / KERNEL / "updates/dkms/nvidia-current.ko").unlink()
    module.parent.mkdir()
    if there:
        (node / "usr/src/nvidia-570.211.01").mkdir(parents=True)
        (node / "usr/src/nvidia-570.211.01/dkms.conf").touch()
    commands = Commands(
        {"dkms status": (0, "", "")}, lambda command: module.touch() if command[1] == "install" else None
    )
    state = driver_state.kernels(str(node))
    if there:
        assert driver_state.build(state, commands, KERNEL, str(node)) == ([KERNEL], {})
        assert commands.seen[1:] == [
            "dkms add nvidia/570.211.01",
            f"dkms install --force nvidia/570.211.01 -k {KERNEL}",
        ]
        return
    with pytest.raises(GpufleetError) as caught:
        driver_state.build(state, commands, KERNEL, str(node))
    assert "has no source" in str(caught.value)


def test_failed_build_shows_the_end_of_the_log(node):
    (node / "lib/modules" / KERNEL / "updates/dkms/nvidia-current.ko").unlink()
    log = node / "var/lib/dkms/nvidia-current" / VERSION / "build"
    log.mkdir(parents=True)
    (log / "make.log").write_text(
        "\n".join(f"line {number}" for number in range(40)) + "\n" + "-I. " * 99 + "\nerror: boom\n"
    )
    commands = Commands({"dkms status": (0, DKMS_ADDED, ""), "dkms install": (10, "", "Bad return status")})
    with pytest.raises(GpufleetError) as caught:
        driver_state.build(driver_state.kernels(str(node)), commands, KERNEL, str(node))
    assert caught.value.code == "GF-DKMS-FAILED"
    assert "error: boom" in caught.value.message
    assert "line 3\n" not in caught.value.message
    assert "-I." not in caught.value.message
    assert f"dkms install --force nvidia-current/{VERSION} -k {KERNEL}" in caught.value.fix


OLD = "6.1.0-9-amd64"


def with_kernel(node, release, image=True):
    """Another kernel with headers and without the module."""
    (node / "lib/modules" / release / "build").mkdir(parents=True)
    (node / "lib/modules" / release / "build/Makefile").touch()
    if image:
        (node / "boot").mkdir(exist_ok=True)
        (node / "boot" / f"vmlinuz-{release}").touch()


@pytest.mark.parametrize(
    ("running", "failing", "fatal"),
    [
        ("6.1.0-60-amd64", [OLD], False),
        (OLD, [OLD], True),
        (KERNEL, ["6.1.0-60-amd64", OLD], True),  # the newest: the next boot takes it
        ("6.18.1-host", [OLD], False),  # a container: its kernel is its host's
    ],
)
def test_a_kernel_that_fails_keeps_no_other_from_its_module(node, running, failing, fatal):
    for release in (OLD, "6.1.0-60-amd64"):
        with_kernel(node, release)

    def effect(command):
        if command[1] == "install" and command[-1] not in failing:
            (node / "lib/modules" / command[-1] / "updates/dkms").mkdir(parents=True)
            (node / "lib/modules" / command[-1] / "updates/dkms/nvidia-current.ko").touch()

    commands = Commands({"dkms status": (0, DKMS_ADDED, ""), "dkms install": (0, "", "no such symbol")}, effect)
    state = driver_state.kernels(str(node))
    if fatal:
        with pytest.raises(GpufleetError, match="not built for kernel " + failing[0]) as caught:
            driver_state.build(state, commands, running, str(node))
        assert caught.value.code == "GF-DKMS-FAILED"
        return
    built = driver_state.build(state, commands, running, str(node))
    assert built.kernels == ["6.1.0-60-amd64"]
    assert "no such symbol" in built.failed[OLD].message
    driver_state.measure_versions(state, Commands({}))
    assert driver_state.check(state, driver_state.library_versions(str(node)), without=built.failed) == VERSION
    with pytest.raises(GpufleetError, match=OLD):
        driver_state.check(state, driver_state.library_versions(str(node)))


def test_a_full_disk_is_named_as_the_cause():
    error = driver_state.dkms_error(KERNEL, "nvidia", VERSION, "cc: fatal error: No space left on device")
    assert error.cause.endswith("is full")


def test_a_module_that_dkms_does_not_have_as_installed_is_installed_again(node):
    state = driver_state.kernels(str(node))
    commands = Commands({"dkms status": (0, DKMS_STATUS.replace("installed", "built"), "")})
    driver_state.measure_dkms(state, commands)
    assert state[0]["dkms"] == "built"
    assert driver_state.build(state, commands, KERNEL, str(node)).kernels == [KERNEL]
    assert state[0]["dkms"] == "installed"


def test_a_kernel_without_the_driver_has_a_mending_command():
    error = driver_state.without_module(OLD, "its headers are not installed")
    assert error.code == "GF-DRIVER-KERNEL"
    assert f"linux-*-{OLD}" in error.fix


def test_the_log_of_a_good_build_is_not_shown(node):
    log = node / "var/lib/dkms/nvidia-current" / VERSION / "build"
    log.mkdir(parents=True)
    (log / "make.log").write_text("cc -Werror=strict-prototypes -c nv.c\nmake: Leaving directory\n")
    assert driver_state.make_log_tail("nvidia*", "*", str(node)) == ""


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (DKMS_STATUS, {"name": "nvidia-current", "version": VERSION, "kernel": KERNEL, "state": "installed"}),
        (
            DKMS_STATUS_OLD,
            {"name": "nvidia-current", "version": "470.256.02", "kernel": "5.10.0-30-amd64", "state": "installed"},
        ),
        (DKMS_ADDED, {"name": "nvidia-current", "version": VERSION, "kernel": "", "state": "added"}),
    ],
)
def test_dkms_status(text, row):
    assert driver_state.parse_dkms_status(text + "zfs/2.1.11, 6.1.0-56-amd64, x86_64: installed\n") == [row]


@pytest.mark.parametrize(
    ("running", "loaded", "competitor", "loadable", "why"),
    [
        (KERNEL, None, None, True, None),
        (KERNEL, VERSION, None, False, None),
        (KERNEL, "535.261.03", None, False, "driver 535.261.03 is loaded"),
        (KERNEL, None, "nouveau", False, "nouveau is loaded"),
        ("6.1.0-50-amd64", None, None, False, "the running kernel 6.1.0-50-amd64 has no NVIDIA module"),
    ],
)
def test_reboot_reason(node, running, loaded, competitor, loadable, why):
    found = driver_state.reboot_reason(
        driver_state.kernels(str(node)), VERSION, running, {"version": loaded, "competitor": competitor}
    )
    assert found[0] is loadable
    assert found[1] is None if why is None else found[1].startswith(why)


def test_reboot_reason_names_the_kernel_to_boot(node):
    (node / "boot").mkdir()
    (node / "boot" / ("vmlinuz-" + KERNEL)).touch()
    state = driver_state.kernels(str(node))
    reason = driver_state.reboot_reason(state, VERSION, "6.1.0-1", {"version": None, "competitor": None})[1]
    assert reason.endswith(f"kernel {KERNEL} has one")


def test_loaded_modules(tmp_path):
    assert driver_state.loaded_modules(str(tmp_path)) == {"version": None, "competitor": None}
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text(VERSION + "\n")
    (tmp_path / "sys/module/nouveau").mkdir()
    assert driver_state.loaded_modules(str(tmp_path)) == {"version": VERSION, "competitor": "nouveau"}


def test_load_says_what_the_kernel_said():
    with pytest.raises(GpufleetError) as caught:
        driver_state.load(Commands({"modprobe nvidia": (1, "", "modprobe: ERROR: Key was rejected by service")}))
    assert caught.value.code == "GF-DRIVER-LOAD"
    assert "Key was rejected" in caught.value.message


def test_load_loads_the_memory_module_too():
    commands = Commands({})
    driver_state.load(commands)
    assert commands.seen == ["modprobe nvidia", "modprobe nvidia-uvm"]


def loader(folder, *, of, first=""):
    """ldconfig's answer for libraries of one version in a folder."""
    folder.mkdir()
    lines = ["2 libs found in cache", first]
    for library in driver_state.LIBRARIES:
        (folder / f"{library}.{of}").touch()
        (folder / f"{library}.1").symlink_to(f"{library}.{of}")
        lines.append(f"\t{library}.1 (libc6,x86-64) => {folder}/{library}.1".expandtabs())
    return Commands({"ldconfig -p": (0, "\n".join(lines), "")})


def test_the_loader_gives_what_was_installed(tmp_path):
    found = driver_state.loader_versions(loader(tmp_path / "lib", of=VERSION))
    assert found == {"libcuda.so": VERSION, "libnvidia-ml.so": VERSION}
    driver_state.check_loader(VERSION, found)


def test_a_library_for_32_bits_is_not_what_programs_get(tmp_path):
    old = "libcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1"
    assert driver_state.loader_versions(loader(tmp_path / "lib", of=VERSION, first=old))["libcuda.so"] == VERSION


@pytest.mark.parametrize("answer", ["another version", "nothing"])
def test_what_programs_get_instead_is_a_mismatch(tmp_path, answer):
    run = (
        loader(tmp_path / "lib", of="550.163.01")
        if answer == "another version"
        else Commands({"ldconfig -p": (0, "", "")})
    )
    with pytest.raises(GpufleetError) as caught:
        driver_state.check_loader(VERSION, driver_state.loader_versions(run))
    assert caught.value.code == "GF-DRIVER-MISMATCH"
    assert ("550.163.01" if answer == "another version" else "not found") in caught.value.message
