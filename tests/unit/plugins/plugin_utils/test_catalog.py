"""The catalog against itself: every row is whole, sorted and explained, no name dangles, and nothing covered has a gap."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils import gpu_ids
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog
from ansible_collections.gpufleet.stack.plugins.plugin_utils.catalog import references, schema
from ansible_collections.gpufleet.stack.plugins.plugin_utils.versions import key

ROWS = catalog.load()
TORCH = ROWS["torch"]


def lists() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every list of rows with its place; the builds of each series are a list of their own."""
    for place in schema.TABLES:
        name, list_name = place.split(".")
        content = ROWS[name][list_name]
        if isinstance(content, dict):
            yield from ((place, rows) for rows in content.values())
        else:
            yield place, content


def nodes(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping of a document with the path to it."""
    if isinstance(value, dict):
        yield path, value
        for name, inner in value.items():
            yield from nodes(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from nodes(inner, f"{path}[{number}]")


def minors(versions: list[str]) -> list[int]:
    """The second numbers of Pythons, all of major version 3."""
    assert {key(version)[0] for version in versions} == {3}
    return [key(version)[1] for version in versions]


# The form


def test_the_table_of_rows_knows_every_list_of_the_files() -> None:
    found = {
        f"{name}.{part}" for name, content in ROWS.items() for part, rows in content.items() if isinstance(rows, list)
    }
    assert found | {"torch.builds"} == set(schema.TABLES)


def test_every_row_is_as_the_schema_says() -> None:
    problems = [str(problem) for place, rows in lists() for row in rows for problem in schema.check_row(place, row)]
    assert problems == []


def test_no_name_dangles() -> None:
    assert [str(problem) for problem in references.dangling(ROWS)] == []


@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_source_is_explained_and_used(name: str) -> None:
    named = set()
    for path, row in nodes(ROWS[name], name):
        sources = row.get("source", [])
        if path == f"{name}.sources":
            continue
        for each in sources if isinstance(sources, list) else [sources]:
            assert each in ROWS[name]["sources"], f"{path} names the source {each}"
            named.add(each)
    assert set(ROWS[name]["sources"]) == named


def test_rows_are_sorted_and_there_is_one_for_one_thing() -> None:
    for place, rows in lists():
        marks = [tuple(row[field] for field in schema.TABLES[place].identity) for row in rows]
        assert len(set(marks)) == len(marks), place
        assert rows == sorted(rows, key=lambda row, place=place: schema.order(place, row)), (place, marks)


def test_loading_is_quick() -> None:
    catalog._shipped.cache_clear()
    started = time.process_time()
    catalog.load()
    # About 0.03 s of the processor on the slow machine that this was written on.
    assert time.process_time() - started < 0.15


# torch


def test_every_release_of_torch_2_is_there() -> None:
    by_series = {
        series: [key(row["version"])[2] for row in rows]
        for series, rows in itertools.groupby(TORCH["releases"], key=lambda row: row["series"])
    }
    assert [key(series) for series in by_series] == [(2, minor) for minor in range(16)]
    assert all(patches == list(range(len(patches))) for patches in by_series.values()), by_series
    assert len(TORCH["releases"]) == 28


def test_the_pythons_of_a_release_have_no_gap_and_only_move_on() -> None:
    before = [8]
    for row in TORCH["releases"]:
        for platform, versions in row["pythons"].items():
            found = minors(versions)
            assert found == list(range(found[0], found[-1] + 1)), (row["version"], platform)
        now = minors(row["pythons"]["x86_64"])
        assert now[0] >= before[0], row["version"]
        assert now[-1] >= before[-1], row["version"]
        before = now


def test_every_release_says_what_the_platform_must_have() -> None:
    for row in TORCH["releases"]:
        linux = {"x86_64", "aarch64"}
        assert set(row["glibc_min"]) == linux, row["version"]
        assert set(row["macos_min"]) == set(row["pythons"]) - linux, row["version"]
        assert row["series"] == row["version"].rsplit(".", 1)[0]


def test_the_numpy_bound_ends_with_2_3() -> None:
    assert {row["series"]: row["numpy"] for row in TORCH["releases"] if row["numpy"]} == {
        "2.0": "<2",
        "2.1": "<2",
        "2.2": "<2",
    }


@pytest.mark.parametrize("series", sorted(TORCH["builds"], key=key))
def test_every_series_has_its_builds(series: str) -> None:
    builds = TORCH["builds"][series]
    for platform in ("x86_64", "aarch64", "macos_arm64"):
        rows = [row for row in builds if row["platform"] == platform]
        assert [row["index"] for row in rows].count("package") == 1, platform
        assert rows[0]["index"] == "package", platform
        if platform != "macos_arm64":
            assert "cpu" in [row["variant"] for row in rows], platform
    assert any(row["cuda"] for row in builds if row["platform"] == "x86_64")


def test_a_build_is_for_cuda_or_for_none() -> None:
    majors = {row["major"]: row["min_driver"] for row in ROWS["cuda"]["compatibility"]}
    for series, builds in TORCH["builds"].items():
        for row in builds:
            where = (series, row["variant"], row["platform"])
            if row["cuda"] is None:
                assert (row["min_driver"], row["cudnn"], row["compiled_for"]) == (None, None, []), where
                assert row["variant"] in ("cpu", "mps"), where
            else:
                assert row["variant"] == "cu" + row["cuda"].replace(".", ""), where
                assert row["local_version"] == row["variant"], where
                assert row["min_driver"] == majors[row["cuda"].split(".")[0]], where
                assert row["compiled_for"] == sorted(row["compiled_for"], key=key), where
                assert row["cudnn"] or "cudnn" in row["unverified"], where


def test_builds_are_compiled_for_what_their_toolkit_compiles() -> None:
    targets: dict[str, set[str]] = {}
    for row in ROWS["cuda"]["toolkits"]:
        targets.setdefault(row["series"], set()).update(row["targets"])
    for series, builds in TORCH["builds"].items():
        for row in builds:
            if row["cuda"]:
                assert set(row["compiled_for"]) <= targets[row["cuda"]], (series, row["variant"])


def build(series: str, variant: str, platform: str = "x86_64") -> dict[str, Any]:
    return next(r for r in TORCH["builds"][series] if (r["variant"], r["platform"]) == (variant, platform))


def test_known_traps_stand_in_the_rows() -> None:
    assert "9.0" not in build("2.0", "cu117")["compiled_for"]
    assert "9.0" in build("2.0", "cu118")["compiled_for"]
    assert build("2.0", "cu117")["disk_mib"] == 4600
    assert "7.0" not in build("2.11", "cu128")["compiled_for"]
    assert next(row["series"] for row in TORCH["releases"] if "3.13" in row["pythons"]["x86_64"]) == "2.6"
    assert {row["torchaudio"] for row in TORCH["releases"] if key(row["version"]) >= (2, 12)} == {None}
    of_index = {s: next(row for row in rows if row["platform"] == "aarch64") for s, rows in TORCH["builds"].items()}
    assert [s for s, row in of_index.items() if row["cuda"]] == ["2.11", "2.12", "2.13", "2.14", "2.15"]
    assert "11.0" in build("2.15", "cu132", "aarch64")["compiled_for"]
    assert "variant" in build("2.15", "cu134")["unverified"]
    with_ptx = [(s, row["variant"]) for s, rows in TORCH["builds"].items() for row in rows if row["ptx"]]
    assert with_ptx == [("2.7", "cu128"), ("2.8", "cu129")]


# CUDA, cuDNN


def test_toolkits_run_from_11_7_to_the_newest_without_a_gap() -> None:
    series = [row["series"] for row in ROWS["cuda"]["toolkits"]]
    wanted = ["11.7", "11.8", *(f"12.{n}" for n in (0, 1, 2, 3, 4, 5, 6, 8, 9)), *(f"13.{n}" for n in range(6))]
    assert list(dict.fromkeys(each for each in series if key(each) >= (11, 7))) == wanted
    assert all(row["version"].rsplit(".", 1)[0] == row["series"] for row in ROWS["cuda"]["toolkits"])


def test_a_toolkit_drives_what_its_major_promises() -> None:
    floors = {row["major"]: key(row["min_driver"]) for row in ROWS["cuda"]["compatibility"]}
    for row in ROWS["cuda"]["toolkits"]:
        if row["driver"]:
            assert key(row["driver"]) >= floors[row["version"].split(".", maxsplit=1)[0]], row["version"]


def test_what_nvcc_compiles_for() -> None:
    targets = {row["version"]: row["targets"] for row in ROWS["cuda"]["toolkits"]}
    assert targets["11.8.0"][0] == "3.5"
    assert targets["12.6.3"][0] == "5.0"
    assert targets["12.6.3"][-1] == "9.0"
    assert {"10.0", "12.0"} <= set(targets["12.8.0"])
    assert "10.3" not in targets["12.8.2"]
    assert targets["13.0.0"][0] == "7.5"
    assert "11.0" in targets["13.0.0"]
    assert "10.7" not in targets["13.3.1"]
    assert "10.7" in targets["13.4.2"]


def test_cudnn_has_the_newest_of_each_line_for_each_major() -> None:
    found = {(row["cuda_major"], row["version"].split(".")[0]) for row in ROWS["cudnn"]["cudnn"]}
    assert found == {(11, "8"), (11, "9"), (12, "8"), (12, "9"), (13, "9")}
    for row in ROWS["cudnn"]["cudnn"]:
        assert row["package"] == f"nvidia-cudnn-cu{row['cuda_major']}"


# Drivers, GPUs, distributions


def test_a_newer_branch_serves_a_newer_cuda_and_drops_no_architecture_again() -> None:
    branches = ROWS["driver"]["branches"]
    served = [row["max_cuda"] for row in branches if row["max_cuda"]]
    assert served == sorted(served, key=key)
    order = list(dict.fromkeys(row["architecture"] for row in ROWS["gpu"]["compute_capabilities"]))
    for architecture in order:
        driven = [architecture in row["open"] + row["proprietary"] for row in branches]
        spans = [present for present, _group in itertools.groupby(driven)]
        assert spans.count(True) == 1, (architecture, driven)


def test_the_branch_of_every_toolkits_driver_has_a_row_and_ends_with_that_cuda() -> None:
    serves = {row["branch"]: row["max_cuda"] for row in ROWS["driver"]["branches"]}
    toolkits = [row for row in ROWS["cuda"]["toolkits"] if row["driver"] and key(row["series"]) >= (11, 7)]
    assert len(toolkits) > 30
    assert {row["version"]: serves.get(row["driver"].split(".")[0]) for row in toolkits} == {
        row["version"]: row["series"] for row in toolkits
    }


def test_branches_and_gpus_say_the_same() -> None:
    branches = {row["branch"]: row for row in ROWS["driver"]["branches"]}
    for row in ROWS["gpu"]["compute_capabilities"]:
        for branch, flavours in branches.items():
            inside = key(row["first_branch"]) <= key(branch) and (
                row["last_branch"] is None or key(branch) <= key(row["last_branch"])
            )
            drives = row["architecture"] in flavours["open"] + flavours["proprietary"]
            # A compute capability can come later than its architecture, never before it.
            assert drives or not inside, (row["compute_capability"], branch)


def test_flavours_follow_the_architectures() -> None:
    for row in ROWS["driver"]["branches"]:
        for architecture in ROWS["gpu"]["open_only"]["architectures"]:
            assert architecture not in row["proprietary"], row["branch"]
        for architecture in ROWS["gpu"]["proprietary_only"]["architectures"]:
            assert architecture not in row["open"], row["branch"]
    assert ROWS["driver"]["branches"][-1]["proprietary"] == []
    assert ROWS["driver"]["open_default_from"]["branch"] in [row["branch"] for row in ROWS["driver"]["branches"]]


def test_every_gpu_of_the_pci_table_has_a_row() -> None:
    chips = filter(None, map(gpu_ids.lookup, range(0x4000)))
    found = {(chip.compute_capability, chip.architecture) for chip in chips if chip.compute_capability}
    rows = {(row["compute_capability"], row["architecture"]) for row in ROWS["gpu"]["compute_capabilities"]}
    assert len(found) > 10
    assert found - rows == set()


def test_every_architecture_of_a_torch_build_has_a_gpu() -> None:
    known = {row["compute_capability"] for row in ROWS["gpu"]["compute_capabilities"]}
    assert {each for rows in TORCH["builds"].values() for row in rows for each in row["compiled_for"]} <= known


def test_a_flavour_of_an_archive_is_one_of_its_branch() -> None:
    branches = {row["branch"]: row for row in ROWS["driver"]["branches"]}
    for row in ROWS["driver"]["archive"]:
        assert branches[row["branch"]][row["flavour"]], row["branch"]
        assert row["packages"], row["branch"]


def test_every_distribution_names_its_default_python_first() -> None:
    for row in ROWS["distro"]["distributions"]:
        assert row["pythons"][0]["version"] == row["python"], row["name"]
        assert row["family"] == "macos" or all(each["packages"] for each in row["pythons"]), row["name"]


def test_every_family_with_a_repository_has_driver_packages_of_both_flavours() -> None:
    wanted = {row["family"] for row in ROWS["distro"]["distributions"] if row["repository"]}
    for flavour in ("open", "proprietary"):
        rows = [row for row in ROWS["repository"]["driver_packages"] if row["flavour"] == flavour]
        assert {row["family"] for row in rows} == wanted
        for _family, of_family in itertools.groupby(rows, key=lambda row: row["family"]):
            ordered = list(of_family)
            known = [row["branch"] for row in ROWS["driver"]["branches"]]
            for older, newer in itertools.pairwise(ordered):
                # The next row begins with the branch after the last one of this row.
                assert known.index(newer["first_branch"]) == known.index(older["last_branch"]) + 1, (older, newer)


def test_cudnn_has_the_cuda_major_in_its_name_from_9_on() -> None:
    for row in ROWS["cudnn"]["packages"]:
        assert ("{major}" in row["runtime"]) is (row["series"] == "9")
        assert ("{cuda}" in row["runtime"]) is (row["series"] == "8")
    assert {(row["series"], row["family"]) for row in ROWS["cudnn"]["packages"]} >= {
        ("8", "apt"),
        ("9", "apt"),
        ("9", "dnf"),
    }


def test_the_managed_pythons_are_what_the_installed_uv_knows() -> None:
    tool = Path(__file__).parents[3] / "tools/python_builds"
    answer = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    rows = ROWS["python"]["managed"]
    assert all(row["full_version"].startswith(row["version"] + ".") for row in rows)
    assert all(re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) for row in rows)
    # Every release has a Python among them, on both architectures.
    for architecture in ("x86_64", "aarch64"):
        there = {row["version"] for row in rows if row["architecture"] == architecture}
        assert all(there & set(row["pythons"].get(architecture, there)) for row in TORCH["releases"])
