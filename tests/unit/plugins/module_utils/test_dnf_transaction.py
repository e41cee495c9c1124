# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf says and what is made of it; the words are dnf 4.14's, recorded on 2026-11-25 with packages made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import dnf_transaction, package_transaction
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.package_transaction import Step, Transaction

RECORDED = Path(__file__).parents[3] / "fixtures/dnf"
INSTALLED = {
    "nvidia-driver-cuda": "3:570.211.01-1.el9",
    "nvidia-driver-cuda-libs": "3:570.211.01-1.el9",
    "nvidia-kmod-common": "3:570.211.01-1.el9",
    "kmod-nvidia-open-dkms": "3:570.211.01-1.el9",
}
ABORTED = "Operation aborted.\n"
# What dnf 4.14 says (stdout, stderr), recorded like the tables.
NO_DKMS = "Error: \n Problem 1: conflicting requests\n  - nothing provides dkms needed by kmod-nvidia-open-dkms-3:580.178.04-1.el9.noarch\n"
FILTERED = (
    "All matches were filtered out by exclude filtering for argument: nvidia-driver-cuda-580.*\n",
    "Error: Unable to find a match: nvidia-driver-cuda-580.*\n",
)


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


class Dnf:
    """Answers each command in its turn and keeps them."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        return self.answers.pop(0)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnf_transaction, "rpm_versions", lambda _root: INSTALLED)


def steps(name: str) -> list[tuple[str, str | None, str | None]]:
    return [tuple(step) for step in dnf_transaction.parse(recorded(name), INSTALLED)]


def test_a_first_installation_has_nothing_before() -> None:
    found = steps("first")
    assert len(found) == 6
    assert ("dkms", None, "3.0.11-1.el9") in found
    assert all(before is None for _name, before, _after in found)


def test_another_branch_and_flavour_upgrades_and_removes() -> None:
    assert steps("switch") == [
        ("kmod-nvidia-latest-dkms", None, "3:580.178.04-1.el9"),
        ("nvidia-driver-cuda", "3:570.211.01-1.el9", "3:580.178.04-1.el9"),
        ("nvidia-driver-cuda-libs", "3:570.211.01-1.el9", "3:580.178.04-1.el9"),
        ("nvidia-kmod-common", "3:570.211.01-1.el9", "3:580.178.04-1.el9"),
        ("kmod-nvidia-open-dkms", "3:570.211.01-1.el9", None),
    ]


def test_the_way_back_downgrades() -> None:
    assert ("kmod-nvidia-latest-dkms", "3:580.178.04-1.el9", None) in steps("back")
    assert ("nvidia-kmod-common", "3:570.211.01-1.el9", "3:570.211.01-1.el9") in steps("back")


def test_long_names_and_replaced_packages_are_read() -> None:
    assert [name[:8] for name, _before, _after in steps("long-name")] == ["a-packag", "lib-new"]
    assert steps("replacing") == [("lib-new", None, "2-1.el9"), ("lib-old", "1-1.el9", "replaced")]
    wrapped = (
        "Installing:\n a-name-that-fills-its-line\n                  x86_64  1:2-3.el9  v  5 k\n\nTransaction Summary\n"
    )
    assert dnf_transaction.parse(wrapped, {}) == [Step("a-name-that-fills-its-line", None, "1:2-3.el9")]


def test_a_version_and_its_pattern_are_names_of_dnfs(tmp_path: Path) -> None:
    asked = ["nvidia-driver-cuda=580.*", "dkms", "kernel-devel=5.14.0-570.el9"]
    assert dnf_transaction.specs(asked) == ["nvidia-driver-cuda-580.*", "dkms", "kernel-devel-5.14.0-570.el9"]
    folder = tmp_path / "var/cache/dnf/gpufleet-nvidia-0123/packages"
    folder.mkdir(parents=True)
    (folder / "dkms-3.0.11-1.el9.noarch.rpm").touch()
    exact = ["dkms=1:3.0.11-1.el9", "gone=2-1"]
    assert dnf_transaction.specs(exact, True, str(tmp_path)) == [
        f"{folder}/dkms-3.0.11-1.el9.noarch.rpm",
        "gone-2-1",
    ]
    assert dnf_transaction.specs(exact, False, str(tmp_path)) == ["dkms-1:3.0.11-1.el9", "gone-2-1"]


def test_only_the_drivers_step_may_remove_what_excludes_it() -> None:
    for driver in (True, False):
        dnf = Dnf((1, recorded("first"), ABORTED))
        assert dnf_transaction.ask(dnf, ["nvidia-driver-cuda=570.*"], driver).known
        assert ("--allowerasing" in dnf.commands[0]) is driver
        assert dnf.commands[0][-2:] == ["--", "nvidia-driver-cuda-570.*"]
        assert "--assumeno" in dnf.commands[0]


def test_nothing_to_do_is_an_answer() -> None:
    dnf = Dnf((0, "Dependencies resolved.\nNothing to do.\nComplete!\n", ""))
    assert dnf_transaction.ask(dnf, ["dkms"]) == Transaction(True, [], "")


def test_a_lock_in_the_way_is_seen_past_and_named() -> None:
    dnf = Dnf((1, *FILTERED), (1, recorded("switch"), ABORTED))
    transaction = dnf_transaction.ask(dnf, ["nvidia-driver-cuda=580.*"], driver=True)
    assert "--disableplugin=versionlock" in dnf.commands[1]
    with pytest.raises(GpufleetError) as caught:
        package_transaction.check(transaction.steps, "5.14.0-570.el9.x86_64", ["nvidia-driver-cuda"], True, "dnf")
    assert caught.value.code == "GF-TRANSACTION-HELD"
    assert "dnf versionlock delete" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "code"),
    [(("", NO_DKMS), "GF-DKMS-MISSING"), (FILTERED, "GF-DNF-FAILED")],
)
def test_no_way_to_install_is_an_error_with_dnfs_words(said: tuple[str, str], code: str) -> None:
    transaction = dnf_transaction.ask(Dnf((1, *said), (1, *said)), ["nvidia-driver-cuda=580.*"], driver=True)
    assert not transaction.known
    with pytest.raises(GpufleetError) as caught:
        dnf_transaction.require(transaction, ["nvidia-driver-cuda=580.*"])
    assert caught.value.code == code
    assert code == "GF-DKMS-MISSING" or "exclude filtering" in str(caught.value)


KERNEL = "5.14.0-570.el9.x86_64"


@pytest.mark.parametrize(
    ("step", "driver", "code"),
    [
        (Step("kernel-core", "5.14.0-570.el9", None), True, "GF-TRANSACTION-KERNEL"),
        (Step("kernel-core", "5.14.0-503.el9", "5.14.0-570.el9"), True, None),
        (Step("kernel-core", None, "5.14.0-600.el9"), True, None),
        (Step("kernel-devel", "5.14.0-570.el9", "5.14.0-600.el9"), True, None),
        (Step("kmod-nvidia-latest-dkms", None, "3:580-1"), False, "GF-TRANSACTION-DRIVER"),
        (Step("nvidia-driver-cuda", None, "3:580-1"), False, "GF-TRANSACTION-DRIVER"),
        (Step("nvidia-kmod-common", "3:570-1", "3:580-1"), False, "GF-TRANSACTION-DRIVER"),
        (Step("cuda-toolkit-12-6", None, "12.6.3-1"), False, None),
        (Step("kmod-nvidia-open-dkms", "3:570-1", None), True, None),
        (Step("cuda", "12.6.3-1", None), True, "GF-TRANSACTION-REMOVES"),
        (Step("lib-old", "1-1", "replaced"), True, None),
    ],
)
def test_what_must_not_happen_is_refused(step: Step, driver: bool, code: str | None) -> None:
    if code is None:
        package_transaction.check([step], KERNEL, [], driver, "dnf")
        return
    with pytest.raises(GpufleetError) as caught:
        package_transaction.check([step], KERNEL, [], driver, "dnf")
    assert caught.value.code == code
    assert step.name in str(caught.value)


def test_the_network_is_tried_again_and_nothing_else() -> None:
    waits: list[float] = []
    dead = (1, "", "Error: Error downloading packages:\n  Curl error (7): Couldn't connect to server\n")
    dnf = Dnf(dead, (200, "", "another process holds the lock"), (0, "", ""))
    dnf_transaction.install(dnf, ["dkms"], sleep=waits.append)
    assert len(waits) == 2
    assert "--assumeyes" in dnf.commands[0]
    with pytest.raises(GpufleetError) as caught:
        dnf_transaction.install(Dnf((1, "", "Error: disk full\n")), ["dkms"], sleep=waits.append)
    assert caught.value.code == "GF-DNF-FAILED"
    assert len(waits) == 2


def test_packages_are_fetched_without_being_installed(tmp_path: Path) -> None:
    dnf = Dnf((0, "", ""))
    dnf_transaction.install(dnf, ["nvidia-driver-cuda=580.*"], driver=True, fetch=True)
    assert "--downloadonly" in dnf.commands[0]
    folder = tmp_path / "var/cache/dnf/gpufleet-nvidia-0123/packages"
    folder.mkdir(parents=True)
    (folder / "dkms-3.0.11-1.el9.noarch.rpm").touch()
    # Of what the cache has nothing is fetched.
    nothing = Dnf()
    dnf_transaction.install(nothing, ["dkms=3.0.11-1.el9"], back=True, root=str(tmp_path), fetch=True)
    with pytest.raises(GpufleetError, match="could not fetch"):
        dnf_transaction.install(Dnf((1, "", "Error: disk full\n")), ["dkms"], fetch=True)


def test_a_package_that_another_key_signed_is_named_so() -> None:
    said = "Error: GPG check FAILED\n"
    with pytest.raises(GpufleetError) as caught:
        dnf_transaction.install(Dnf((1, "Public key for x.rpm is not installed", said)), ["x"])
    assert caught.value.code == "GF-REPOSITORY-UNTRUSTED"


def test_lists_that_do_not_come_are_tried_three_times() -> None:
    waits: list[float] = []
    dnf = Dnf(*[(1, "", "Error: Failed to download metadata for repo 'epel'\n")] * 3)
    with pytest.raises(GpufleetError) as caught:
        dnf_transaction.update(dnf, sleep=waits.append)
    assert caught.value.code == "GF-DNF-UPDATE"
    assert "epel" in str(caught.value)
    assert len(waits) == 2


def test_going_back_needs_no_repository_where_the_cache_has_everything(tmp_path: Path) -> None:
    folder = tmp_path / "var/cache/dnf/gpufleet-nvidia-0123/packages"
    folder.mkdir(parents=True)
    (folder / "dkms-3.0.11-1.el9.noarch.rpm").touch()
    for packages, offline in ((["dkms=3.0.11-1.el9"], True), (["dkms=3.0.11-1.el9", "gone=2-1"], False)):
        dnf = Dnf((1, recorded("back"), ABORTED))
        dnf_transaction.ask(dnf, packages, driver=True, back=True, root=str(tmp_path))
        assert ("--cacheonly" in dnf.commands[0]) is offline


def test_headers_that_are_there_or_can_be_had_are_told_from_the_others() -> None:
    wanted = {
        "5.14.0-427.el9.x86_64": "kernel-devel=5.14.0-427.el9",
        "5.14.0-570.el9.x86_64": "kernel-devel=5.14.0-570.el9",
        "5.14.0-100.el9.x86_64": "kernel-devel=5.14.0-100.el9",
    }
    answers = [(0, "kernel-devel=5.14.0-570.el9\n\n", ""), (0, "kernel-devel=5.14.0-427.el9\n", "")]
    for running, code in (("5.14.0-570.el9.x86_64", None), ("5.14.0-100.el9.x86_64", "GF-HEADERS-MISSING")):
        dnf = Dnf(*answers)
        if code is None:
            found = package_transaction.headers(dnf, wanted, running, dnf_transaction.available)
            assert found == (list(wanted.values())[:2], ["5.14.0-100.el9.x86_64"])
            continue
        with pytest.raises(GpufleetError) as caught:
            package_transaction.headers(dnf, wanted, running, dnf_transaction.available)
        assert caught.value.code == code


def test_what_has_no_use_any_more_goes_and_what_is_needed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.gpufleet.stack.plugins.module_utils.removal_packages.rpm_versions",
                        lambda _root: {"dkms": "3-1", "nvidia-old": "1-1"})  # fmt: skip
    needed = "error: Failed dependencies:\n\tdkms is needed by (installed) zfs-dkms-2-1.noarch\n"
    dnf = Dnf((1, "", needed), (0, "dkms\n", ""), (0, "", ""), (0, "", ""))
    assert dnf_transaction.drop(dnf, ["dkms", "nvidia-old", "never-there"]) == ["nvidia-old"]
    assert dnf.commands[-1][-1] == "nvidia-old"
