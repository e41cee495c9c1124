"""What a driver's packages need in exactly their version, out of records as apt-cache shows them."""

from __future__ import annotations

from ansible_collections.gpufleet.stack.plugins.module_utils import apt_needs

RECORDS = {
    "nvidia-open=590.48.01-1": "Package: nvidia-open\nVersion: 590.48.01-1\nPre-Depends: libnvidia-common (= 590.48.01-1)\n"
    "Depends: nvidia-dkms-open (= 590.48.01-1), libc6 (= 2.36-9), libnvidia-compute:amd64 (= 590.48.01-1), gcc (>= 4.9)\n",
    "nvidia-dkms-open=590.48.01-1": "Package: nvidia-dkms-open\nVersion: 590.48.01-1\n"
    "Depends: nvidia-kernel-common (= 590.48.01-1) | other (= 590.48.01-1), nvidia-firmware (= 590.48.01-1)\n",
    "nvidia-firmware=590.48.01-1": "Package: nvidia-firmware\nVersion: 590.48.01-1\nDepends: nvidia-open (= 590.48.01-1)\n",
}


class Apt:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.calls.append(command)
        assert command[:2] == ["apt-cache", "show"]
        return 0, "\n".join(RECORDS.get(name, "") for name in command[2:]), ""


def test_what_is_needed_in_the_same_version_is_named_with_what_that_needs() -> None:
    apt = Apt()
    assert apt_needs.exact(apt, ["gcc", "nvidia-open=590.48.01-1"]) == [
        "libnvidia-common=590.48.01-1",
        "libnvidia-compute=590.48.01-1",
        "nvidia-dkms-open=590.48.01-1",
        "nvidia-firmware=590.48.01-1",
    ]
    assert len(apt.calls) == 3


def test_packages_without_a_version_ask_for_nothing() -> None:
    apt = Apt()
    assert apt_needs.exact(apt, ["gcc"]) == []
    assert apt.calls == []


def test_what_apt_does_not_know_is_left_out() -> None:
    assert apt_needs.exact(lambda command: (100, "", "E: No packages found"), ["nvidia-open=590.48.01-1"]) == []
