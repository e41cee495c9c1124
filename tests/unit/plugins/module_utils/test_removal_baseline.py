"""What a role added: told from what was there, also where a run was cut off and over several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import receipts, removal_baseline

STATE = "/var/lib/gpufleet"
NOTHING: dict[str, list[str]] = {"packages": [], "files": [], "links": [], "trees": []}


def install(root: Path, automatic: tuple[str, ...] = (), **packages: str) -> None:
    """Makes these the node's installed packages, `automatic` of them for others' sake."""
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"Package: {name}\nStatus: install ok installed\nVersion: {at}\n" for name, at in packages.items()]
    status.write_text("\n".join(rows))
    states = root / "var/lib/apt/extended_states"
    states.parent.mkdir(parents=True, exist_ok=True)
    states.write_text("".join(f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n\n" for name in automatic))


def wanted(**lists: list[str]) -> dict[str, list[str]]:
    return {**NOTHING, **lists}


def close(root: Path, **receipt: Any) -> dict[str, Any]:
    """Ends a role's run as the module receipt does."""
    empty = {"packages": {}, "files": {}, "links": {}, "trees": {}}
    made = removal_baseline.close(STATE, "python", {**empty, **receipt}, str(root))
    receipts.write_json(receipts.receipt_path(str(root) + STATE, "python"), made)
    removal_baseline.finish(STATE, "python", str(root))
    return made


def test_packages_that_came_are_told_from_those_that_were_there(tmp_path: Path) -> None:
    install(tmp_path, base="1")
    assert removal_baseline.begin(STATE, "python", wanted(packages=["venv=3"]), str(tmp_path))
    install(tmp_path, base="1", venv="3", library="2", automatic=("library",))

    made = close(tmp_path, packages={"venv": "3"})

    assert made["added_packages"] == ["library", "venv"]
    assert made["asked_packages"] == ["venv"]
    assert not (tmp_path / "var/lib/gpufleet/baselines/python.json").exists()


def test_a_run_that_was_cut_off_keeps_the_first_baseline(tmp_path: Path) -> None:
    install(tmp_path, base="1")
    removal_baseline.begin(STATE, "python", wanted(packages=["venv"]), str(tmp_path))
    install(tmp_path, base="1", venv="3")

    assert removal_baseline.begin(STATE, "python", wanted(packages=["venv"]), str(tmp_path)) is None

    assert close(tmp_path, packages={"venv": "3"})["added_packages"] == ["venv"]


def test_what_an_administrator_installed_meanwhile_is_not_ours(tmp_path: Path) -> None:
    install(tmp_path, base="1")
    removal_baseline.begin(STATE, "python", wanted(packages=["venv"]), str(tmp_path))
    install(tmp_path, base="1", venv="3", editor="9")
    assert close(tmp_path, packages={"venv": "3"})["added_packages"] == ["venv"]


def test_later_runs_add_to_what_the_first_one_added(tmp_path: Path) -> None:
    install(tmp_path, base="1")
    removal_baseline.begin(STATE, "python", wanted(packages=["old"]), str(tmp_path))
    install(tmp_path, base="1", old="3")
    close(tmp_path, packages={"old": "3"})
    removal_baseline.begin(STATE, "python", wanted(packages=["new"]), str(tmp_path))
    install(tmp_path, base="1", old="3", new="4")

    made = close(tmp_path, packages={"new": "4"})

    assert made["added_packages"] == ["new", "old"]
    assert made["asked_packages"] == ["new", "old"]


def test_a_package_that_was_automatic_and_is_asked_for_is_remembered(tmp_path: Path) -> None:
    install(tmp_path, python="3", base="1", automatic=("python", "base"))
    removal_baseline.begin(STATE, "python", wanted(packages=["python"]), str(tmp_path))
    install(tmp_path, python="3", base="1", automatic=("base",))
    assert close(tmp_path, packages={"python": "3"})["auto_packages"] == ["python"]


def test_nothing_is_claimed_where_nobody_took_note(tmp_path: Path) -> None:
    install(tmp_path, base="1", venv="3")
    assert "added_packages" not in close(tmp_path, packages={"venv": "3"})


def test_paths_that_were_there_are_remembered_and_ours_are_not(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "usr/local").mkdir(parents=True)
    (tmp_path / "usr/local/cuda").symlink_to("/usr/local/cuda-9")
    lists = wanted(links=["/usr/local/cuda"], trees=["/opt/gpufleet/cuda/11.8"])
    removal_baseline.begin(STATE, "python", lists, str(tmp_path))
    (tmp_path / "opt/gpufleet/cuda/11.8").mkdir(parents=True)
    (tmp_path / "usr/local/cuda").unlink()
    (tmp_path / "usr/local/cuda").symlink_to("/opt/gpufleet/cuda/11.8")
    tree = {"/opt/gpufleet/cuda/11.8": {"entries": 0}}
    first = close(tmp_path, links={"/usr/local/cuda": "/opt/gpufleet/cuda/11.8"}, trees=tree)
    assert first["before"] == {"files": {}, "links": {"/usr/local/cuda": "/usr/local/cuda-9"}, "trees": {}}
    assert first["directories"] == ["/opt", "/opt/gpufleet", "/opt/gpufleet/cuda"]

    removal_baseline.begin(STATE, "python", lists, str(tmp_path))
    second = close(tmp_path, links={"/usr/local/cuda": "/opt/gpufleet/cuda/11.8"}, trees=tree)

    assert (second["before"], second["directories"]) == (first["before"], first["directories"])


def test_a_file_that_says_that_we_wrote_it_is_ours_though_the_receipts_are_lost(tmp_path: Path) -> None:
    install(tmp_path)
    ours, others = "/usr/local/bin/gpufleet-python", "/usr/local/bin/python-of-the-site"
    for path, text in (
        (ours, "#!/bin/sh\n# Written by gpufleet.stack; again\n"),
        (others, "#!/bin/sh\n\n# Written by"),
    ):
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_text(text)
    begun = removal_baseline.begin(STATE, "python", wanted(files=[ours, others]), str(tmp_path))
    assert begun is not None and begun["before"]["files"] == {others: None}


def test_what_a_run_made_and_no_receipt_names_was_not_there_before(tmp_path: Path) -> None:
    """A cache: it changes with every use, so that no receipt can state it."""
    install(tmp_path)
    for _run in range(3):
        removal_baseline.begin(STATE, "python", wanted(trees=["/opt/gpufleet/cache"]), str(tmp_path))
        (tmp_path / "opt/gpufleet/cache").mkdir(parents=True, exist_ok=True)
        assert close(tmp_path)["before"]["trees"] == {}


def test_what_a_former_run_left_and_the_new_one_no_longer_names_is_kept_in_mind(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "opt/one").mkdir(parents=True)
    (tmp_path / "opt/two").mkdir()
    removal_baseline.begin(STATE, "python", wanted(trees=["/opt/one"]), str(tmp_path))
    close(tmp_path, trees={"/opt/one": {"entries": 1}})
    for _again in range(2):
        removal_baseline.begin(STATE, "python", wanted(trees=["/opt/two"]), str(tmp_path))
        made = close(tmp_path, trees={"/opt/two": {"entries": 2}})
        assert made["earlier"]["trees"] == {"/opt/one": {"entries": 1}}
    (tmp_path / "opt/one").rmdir()
    assert close(tmp_path, trees={"/opt/two": {"entries": 2}})["earlier"]["trees"] == {}


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    install(tmp_path, base="1")
    assert removal_baseline.begin(STATE, "python", NOTHING, str(tmp_path), check_mode=True)
    assert not (tmp_path / "var/lib/gpufleet").exists()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_baseline_is_written_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "var/lib/gpufleet/baselines/python.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert removal_baseline.unfinished(STATE, str(tmp_path)) == {}
    assert removal_baseline.begin(STATE, "python", NOTHING, str(tmp_path)) is not None
    assert list(removal_baseline.unfinished(STATE, str(tmp_path))) == ["python"]


def test_what_failed_work_left_half_installed_came_too(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "".join(
            f"Package: {name}\nStatus: install ok {state}\nVersion: 1\n\n"
            for name, state in (
                ("old", "installed"),
                ("whole", "installed"),
                ("half", "half-configured"),
                ("gone", "config-files"),
            )
        )
    )
    assert removal_baseline.added_packages({"installed": ["old"]}, ["whole", "half", "gone"], str(tmp_path)) == [
        "half",
        "whole",
    ]


def test_the_note_of_a_run_that_was_cut_off_learns_what_the_next_one_wants(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("Package: old\nStatus: install ok installed\nVersion: 1\n\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/theirs").touch()
    wanted = {"packages": ["a"], "files": ["/etc/ours"], "links": [], "trees": []}
    more = {"packages": ["b=1", "late"], "files": ["/etc/ours", "/etc/theirs"], "links": [], "trees": []}
    assert removal_baseline.begin("/state", "cudnn", wanted, str(tmp_path)) is not None
    # The first run brought these before it was cut off.
    status.write_text(
        "".join(f"Package: {name}\nStatus: install ok installed\nVersion: 1\n\n" for name in ("old", "a", "late"))
    )
    (tmp_path / "etc/ours").touch()
    joined = removal_baseline.begin("/state", "cudnn", more, str(tmp_path))
    assert joined is not None
    assert joined["installed"] == ["old"]
    assert joined["asked"] == ["a", "b", "late"]
    assert joined["before"]["files"] == {"/etc/theirs": None}
    assert removal_baseline.begin("/state", "cudnn", more, str(tmp_path)) is None
