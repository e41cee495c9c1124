# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real apt is asked in a tree of its own, with packages that exist as text only."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import package_transaction
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.package_transaction import Step

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
KERNEL = "6.1.0-9-amd64"
# name: (version, other fields) of what the archive has
ARCHIVE = {
    "cuda-toolkit-12-6": ("12.6", "Depends: cuda-nvcc-12-6"),
    "cuda-nvcc-12-6": ("12.6", ""),
    "cuda": ("12.6", "Depends: cuda-toolkit-12-6, cuda-drivers"),
    "cuda-drivers": ("570", "Depends: nvidia-dkms-570, libnvidia-compute-570 (>= 570)"),
    "nvidia-dkms-570": ("570", ""),
    "libnvidia-compute-570": ("570", ""),
    "newer-compute": ("1", "Depends: libnvidia-compute-570 (>= 570)"),
    "needs-kernel": ("1", f"Depends: linux-image-{KERNEL} (>= 6.2)"),
    "against-kernel": ("1", f"Conflicts: linux-image-{KERNEL}"),
    f"linux-image-{KERNEL}": ("6.2", ""),
    "needs-container": ("1", "Depends: libnvidia-container1 (>= 2)"),
    "libnvidia-container1": ("2", ""),
    "alone": ("1", ""),
}
INSTALLED = {f"linux-image-{KERNEL}": "6.1", "libnvidia-compute-570": "565", "libnvidia-container1": "1"}


@pytest.fixture
def asked(tmp_path: Path):
    """Asks apt in its tree; extra arguments are the packages on hold."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "log"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/Packages").write_text(
        "".join(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: n\nFilename: ./{name}.deb\n"
            f"Size: 1\nSHA256: {'0' * 64}\n{fields + chr(10) if fields else ''}Description: x\n\n"
            for name, (version, fields) in ARCHIVE.items()
        )
    )
    # Made above out of text: there is nobody who could sign it, and nothing is installed from it.
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path}/repo ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir "{tmp_path}";\nDir::State "state";\nDir::State::status "{tmp_path}/status";\nDir::Cache "cache";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::parts "-";\n'
        f'Dir::Etc::preferencesparts "etc/preferences.d";\nDir::Log "log";\nAPT::Architecture "amd64";\n'
        'APT::Sandbox::User "root";\nAPT::Install-Recommends "true";\n'
    )

    def run(command: list[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "APT_CONFIG": str(tmp_path / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout, done.stderr

    def ask(*packages: str, held: tuple[str, ...] = ()):
        (tmp_path / "status").write_text(
            "".join(
                f"Package: {name}\nStatus: {'hold' if name in held else 'install'} ok installed\nArchitecture: all\n"
                f"Maintainer: n\nVersion: {version}\nDescription: x\n\n"
                for name, version in INSTALLED.items()
            )
        )
        assert run(["apt-get", "update"])[0] == 0
        return package_transaction.ask(run, list(packages))

    return ask


def refusal(steps: list[Step], held: tuple[str, ...] = (), driver: bool = False) -> str:
    with pytest.raises(GpufleetError) as caught:
        package_transaction.check(steps, KERNEL, list(held), driver)
    return str(caught.value)


def test_a_toolkit_without_a_driver_passes(asked) -> None:
    found = asked("cuda-toolkit-12-6")
    assert found.known
    assert sorted(found.steps) == [Step("cuda-nvcc-12-6", None, "12.6"), Step("cuda-toolkit-12-6", None, "12.6")]
    package_transaction.check(found.steps, KERNEL, [], driver=False)


def test_what_brings_a_driver_along_is_refused_but_to_the_driver(asked) -> None:
    steps = asked("cuda").steps
    said = refusal(steps)
    assert said.startswith("GF-TRANSACTION-DRIVER: ")
    for part in ("cuda-drivers not installed -> 570", "nvidia-dkms-570", "libnvidia-compute-570 565 -> 570"):
        assert part in said
    assert "cuda-toolkit-12-6" not in said
    package_transaction.check(steps, KERNEL, [], driver=True)


def test_a_library_of_the_installed_driver_is_not_upgraded_behind_its_back(asked) -> None:
    assert "libnvidia-compute-570 565 -> 570" in refusal(asked("newer-compute").steps)


def test_the_container_toolkits_library_is_no_driver(asked) -> None:
    found = asked("needs-container")
    assert Step("libnvidia-container1", "1", "2") in found.steps
    package_transaction.check(found.steps, KERNEL, [], driver=False)


# What Debian's and NVIDIA's toolkits bring along, whose names begin as a driver's do.
@pytest.mark.parametrize(
    "name",
    [
        "nvidia-opencl-dev",
        "nvidia-cuda-dev",
        "nvidia-cuda-toolkit-gcc",
        "libnvidia-ml-dev",
        "nvidia-fs",
        "nvidia-profiler",
    ],
)
def test_a_toolkit_brings_what_is_no_driver(name: str) -> None:
    package_transaction.check([Step(name, None, "1")], KERNEL, [], driver=False)


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-open",
        "nvidia-open-580",
        "nvidia-open-kernel-dkms",
        "nvidia-kernel-open-dkms",
        "nvidia-driver",
        "cuda-drivers-570",
    ],
)
def test_a_driver_is_known_by_its_name(name: str) -> None:
    assert refusal([Step(name, None, "1")]).startswith("GF-TRANSACTION-DRIVER: ")


@pytest.mark.parametrize(("package", "after"), [("needs-kernel", "6.2"), ("against-kernel", "removed")])
def test_the_running_kernel_stays_whoever_asks(asked, package: str, after: str) -> None:
    steps = asked(package).steps
    for driver in (False, True):
        said = refusal(steps, driver=driver)
        assert said.startswith("GF-TRANSACTION-KERNEL: ")
        assert f"linux-image-{KERNEL} 6.1 -> {after}" in said
    package_transaction.check(steps, "6.5.0-1-amd64", [], driver=False)


def test_what_is_on_hold_is_named(asked) -> None:
    held = ("libnvidia-compute-570",)
    steps = asked("cuda-drivers", held=held).steps
    said = refusal(steps, held, driver=True)
    assert said.startswith("GF-TRANSACTION-HELD: ")
    assert "libnvidia-compute-570 565 -> 570" in said
    assert "apt-mark unhold" in said


def test_a_held_package_that_is_not_touched_is_no_reason(asked) -> None:
    found = asked("alone", held=("libnvidia-compute-570",))
    package_transaction.check(found.steps, KERNEL, ["libnvidia-compute-570"], driver=False)
    assert found.steps == [Step("alone", None, "1")]


def test_nothing_to_do_is_no_step(asked) -> None:
    assert asked("libnvidia-container1=1") == package_transaction.Transaction(True, [], "")


def test_a_package_that_apt_does_not_know_is_said(asked) -> None:
    found = asked("nowhere")
    assert (found.known, found.steps) == (False, [])
    assert "Unable to locate package nowhere" in found.said


def test_a_kernel_that_no_package_brought_may_get_one() -> None:
    package_transaction.check([Step(f"linux-image-{KERNEL}", None, "6.2")], KERNEL, [], driver=False)


def test_lists_are_fetched_again_where_a_source_did_not_answer() -> None:
    answers = [(100, "", "E: no route"), (0, "", "")]
    waits: list[float] = []
    package_transaction.update(lambda _command: answers.pop(0), sleep=waits.append)
    assert (answers, waits) == ([], [10])


def test_a_source_that_never_answers_is_said() -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return 100, "", "E: no route to mirror"

    with pytest.raises(GpufleetError) as caught:
        package_transaction.update(run, sleep=lambda _seconds: None)
    assert caught.value.code == "GF-APT-UPDATE"
    assert "no route to mirror" in str(caught.value)
    assert len(asked) == 3


def test_a_dpkg_that_cannot_be_finished_is_said() -> None:
    assert package_transaction.repair(lambda _command: (0, "Setting up x (1) ...\n", "")) != ""
    with pytest.raises(GpufleetError) as caught:
        package_transaction.repair(lambda _command: (1, "", "dpkg: error processing package x (--configure)"))
    assert caught.value.code == "GF-DPKG-UNFINISHED"
    assert "package x" in str(caught.value)


POLICY = """linux-headers-6.1.0-9-amd64:
  Installed: (none)
  Candidate: 6.1.67-2
  Version table:
     6.1.67-2 500
linux-headers-6.1.0-8-amd64:
  Installed: (none)
  Candidate: (none)
  Version table:
"""
HEADERS = {release: f"linux-headers-{release}" for release in ("6.1.0-9-amd64", "6.1.0-8-amd64", "5.10.0-1-amd64")}


def test_headers_that_the_archive_no_longer_has_are_left_out() -> None:
    found = package_transaction.headers(lambda _command: (0, POLICY, ""), HEADERS, "6.1.0-9-amd64")
    assert found == (["linux-headers-6.1.0-9-amd64"], ["6.1.0-8-amd64", "5.10.0-1-amd64"])


def test_the_running_kernel_needs_its_headers() -> None:
    with pytest.raises(GpufleetError, match=r"linux-headers-5\.10") as caught:
        package_transaction.headers(lambda _command: (0, POLICY, ""), HEADERS, "5.10.0-1-amd64")
    assert caught.value.code == "GF-HEADERS-MISSING"


def test_nobody_is_asked_for_no_headers() -> None:
    assert package_transaction.headers(lambda _command: pytest.fail("asked"), {}, KERNEL) == ([], [])


def test_what_changes_is_asked_for_by_its_version_and_the_rest_by_its_name() -> None:
    steps = [
        package_transaction.Step("libcuda1:amd64", "535.1", "535.2"),
        package_transaction.Step("nvidia-smi", None, "535.2"),
        package_transaction.Step("nvidia-old", "535.1", None),
        package_transaction.Step("linux-headers-amd64", "6.1.1", "6.1.2"),
    ]
    names = ["linux-headers-amd64", "libcuda1", "nvidia-smi", "nvidia-modprobe"]
    assert package_transaction.exact(names, steps) == [
        "linux-headers-amd64",
        "libcuda1=535.2",
        "nvidia-smi",
        "nvidia-modprobe",
    ]


@pytest.mark.parametrize(
    ("transaction", "code"),
    [
        (package_transaction.Transaction(True, [], ""), 100),
        (package_transaction.Transaction(False, [], "E: Unable to locate package nvidia-open-580"), 0),
    ],
)
def test_packages_that_cannot_be_fetched_are_said_before_anything_goes(
    transaction: package_transaction.Transaction, code: int
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command)
        return code, "", "E: Failed to fetch http://mirror/nvidia-open-580.deb"

    with pytest.raises(GpufleetError) as caught:
        package_transaction.fetch(run, ["nvidia-open-580"], transaction)
    assert caught.value.code == "GF-APT-FETCH"
    assert "nvidia-open-580" in caught.value.message
    assert all("--download-only" in command for command in asked)
    package_transaction.fetch(lambda _command: (0, "", ""), ["x"], package_transaction.Transaction(True, [], ""))


def test_of_what_goes_the_drivers_packages_are_named() -> None:
    steps = [
        Step("nvidia-persistenced-580:amd64", "580.95.05-1", None),
        Step("libnvidia-compute-580", "580.95.05-1", None),
        Step("libnvidia-container1", "1", None),
        Step("somebodys", "1", None),
        Step("nvidia-open", None, "590.48.01-1"),
    ]
    assert package_transaction.removed(steps) == ["libnvidia-compute-580", "nvidia-persistenced-580"]
