"""What a failed installation is called: words of apt, dpkg and dnf as they came."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.filter.package_failure import package_failure

APT = "'/usr/bin/apt-get -y install 'nvidia-open-570'' failed: "
DPKG = "E: Sub-process /usr/bin/dpkg returned an error code (1)\n"


@pytest.mark.parametrize(
    ("result", "code", "told"),
    [
        (
            {"msg": APT + DPKG, "stdout": "dpkg: error processing archive /a.deb (--unpack):\n cannot copy extracted data: "
             "failed to write (No space left on device)\nErrors were encountered while processing:\n /a.deb\n"},
            "GF-DISK-FULL", "No space left on device",
        ),
        (
            {"msg": APT + "E: You don't have enough free space in /var/cache/apt/archives/.\n"},
            "GF-DISK-FULL", "/var/cache/apt/archives",
        ),
        (
            {"msg": APT + "E: Failed to fetch http://m/a.deb  Hash Sum mismatch\n   Hashes:\nE: Unable to fetch some archives\n"},
            "GF-PACKAGE-DAMAGED", "http://m/a.deb",
        ),
        (
            {"msg": APT + "E: Failed to fetch http://m/a.deb  Could not connect to m:80 (10.0.0.1). - connect (111: Connection refused)\n"},
            "GF-PACKAGE-UNREACHABLE", "http://m/a.deb",
        ),
        (
            {"msg": "Failed to download packages: Cannot download a.rpm: All mirrors were tried"},
            "GF-PACKAGE-UNREACHABLE", "a.rpm",
        ),
        (
            {"msg": APT + DPKG, "stdout": "Setting up nvidia-dkms-570\nErrors were encountered while processing:\n nvidia-dkms-570\n"},
            "GF-PACKAGE-SCRIPT", "while processing: nvidia-dkms-570",
        ),
        (
            {"msg": APT + "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 12 (apt)\n"},
            "GF-APT-LOCKED", "process 12",
        ),
        ({"msg": APT + "E: Unable to correct problems, you have held broken packages.\n"}, "GF-PACKAGE-FAILED", "held broken"),
        ({"msg": ""}, "GF-PACKAGE-FAILED", "did not say why"),
    ],
)  # fmt: skip
def test_a_failure_has_a_code_and_the_words_that_tell(result: dict[str, str], code: str, told: str) -> None:
    text = package_failure(result)
    assert text.startswith(code + ": ")
    assert told in text.splitlines()[0]
    assert "mend:" in text


def test_a_failure_with_a_code_stays_as_it_is() -> None:
    assert package_failure({"msg": "GF-GPU-BUSY: No space left on device"}) == "GF-GPU-BUSY: No space left on device"


def test_something_else_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet.stack.package_failure: this is no result"):
        package_failure("failed")
