"""The driver's services, in a tree that stands in for a node; systemctl is a stand-in that is told what to say."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import driver_units
from ansible_collections.gpufleet.stack.plugins.module_utils.driver_units import Unit
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError

MANAGER = Unit(
    "nvidia-fabricmanager.service", ["/proc/driver/nvidia/version", "/proc/driver/nvidia-nvswitch/devices/*"], False
)
CDI = Unit("nvidia-cdi-refresh.path", ["/proc/driver/nvidia/version"], True)


class Systemctl:
    """Says what it was told for each verb, and remembers what it was asked."""

    def __init__(self, **said: str) -> None:
        self.said = said
        self.asked: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(command[1:]))
        text = self.said.get(command[1].replace("-", "_"), "")
        return (1, "", text) if text.startswith("!") else (0, text, "")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    place = tmp_path / "lib/systemd/system"
    place.mkdir(parents=True)
    (place / MANAGER.name).write_text("[Service]\n")
    return tmp_path


def test_the_addition_asks_for_everything_and_waits_for_the_driver() -> None:
    text = driver_units.dropin_text(MANAGER)
    assert "\nConditionPathExists=/proc/driver/nvidia/version\n" in text
    assert "\nConditionPathExistsGlob=/proc/driver/nvidia-nvswitch/devices/*\n" in text
    assert "\nAfter=modprobe@nvidia.service\n" in text
    assert text.startswith("# Written by gpufleet.stack")


def test_additions_are_written_once(node: Path) -> None:
    root = str(node)
    path = driver_units.dropin_path(MANAGER.name)
    assert driver_units.quiet([MANAGER], root, dry=True) == [path]
    assert not (node / "etc").exists()
    assert driver_units.quiet([MANAGER], root) == [path]
    assert driver_units.quiet([MANAGER], root) == []
    (node / path.lstrip("/")).write_text("edited")
    assert driver_units.quiet([MANAGER], root) == [path]


def test_a_unit_is_enabled_where_it_is_not(node: Path) -> None:
    run = Systemctl(is_enabled="disabled")
    assert driver_units.enable([MANAGER, CDI], run, str(node)) == {MANAGER.name: "enabled", CDI.name: "absent"}
    assert f"enable {MANAGER.name}" in run.asked
    again = Systemctl(is_enabled="enabled")
    assert driver_units.enable([MANAGER], again, str(node)) == {MANAGER.name: "kept"}
    assert again.asked == [f"is-enabled {MANAGER.name}"]


def test_links_are_those_that_start_the_unit(node: Path) -> None:
    wants = node / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / MANAGER.name).symlink_to(f"/lib/systemd/system/{MANAGER.name}")
    assert driver_units.links([MANAGER, CDI], str(node)) == [
        f"/etc/systemd/system/multi-user.target.wants/{MANAGER.name}"
    ]


@pytest.mark.parametrize("said", ["masked", "masked-runtime"])
def test_a_masked_unit_is_told(node: Path, said: str) -> None:
    with pytest.raises(GpufleetError, match="masked") as caught:
        driver_units.enable([MANAGER], Systemctl(is_enabled=said), str(node))
    assert caught.value.code == "GF-DRIVER-UNIT"


def test_a_unit_that_its_package_did_not_bring_is_told(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError, match="is not there"):
        driver_units.enable([MANAGER], Systemctl(), str(tmp_path))
    assert driver_units.enable([MANAGER], Systemctl(), str(tmp_path), dry=True) == {MANAGER.name: "absent"}


def test_a_unit_is_started_or_skipped_or_fails_with_its_log(node: Path) -> None:
    root = str(node)
    assert driver_units.start([MANAGER], Systemctl(is_active="active"), root) == {MANAGER.name: "running"}
    assert driver_units.start([MANAGER], Systemctl(is_active="inactive"), root) == {MANAGER.name: "skipped"}
    with pytest.raises(GpufleetError, match="no such device") as caught:
        driver_units.start([MANAGER], Systemctl(is_active="failed", start="!no such device"), root)
    assert caught.value.code == "GF-DRIVER-UNIT"


@pytest.mark.parametrize(("version", "good"), [("580.95.05-1", True), ("580.82.07-1", False), ("", False)])
def test_what_is_tied_is_of_the_drivers_version(tmp_path: Path, version: str, good: bool) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    if version:
        status.write_text(
            f"Package: nvidia-fabricmanager\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"
        )
    tied = ["nvidia-fabricmanager"]
    if good:
        assert driver_units.check_versions(tied, "580.95.05", str(tmp_path)) == {tied[0]: version}
        return
    with pytest.raises(GpufleetError, match=r"580\.95\.05") as caught:
        driver_units.check_versions(tied, "580.95.05", str(tmp_path))
    assert caught.value.code == "GF-DRIVER-PART-VERSION"
