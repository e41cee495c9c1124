"""A site's own rows: what merges, and that everything wrong is refused with file, row and field (GF-CATALOG-OVERLAY)."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import catalog

DOCS = pathlib.Path(__file__).resolve().parents[4] / "docs/catalog.md"


@pytest.fixture(name="overlay")
def fixture_overlay(tmp_path: pathlib.Path) -> Any:
    """A function that writes an overlay and loads the catalog with it."""

    def load(text: str, name: str = "overlay.yml") -> dict[str, Any]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return catalog.load(str(tmp_path / name))

    return load


def releases(content: dict[str, Any]) -> list[str]:
    return [row["version"] for row in content["torch"]["releases"]]


def branch(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in content["driver"]["branches"] if row["branch"] == name)


NEW_RELEASE = """
torch:
  releases:
    - {version: "2.14.2", series: "2.14", released: null, torchvision: "0.29.3", torchaudio: null,
       pythons: {x86_64: ["3.12"]}, glibc_min: {x86_64: "2.28"}, macos_min: {}, numpy: null, constraints: [],
       source: our mirror}
"""


def test_no_overlay_is_the_shipped_catalog() -> None:
    assert catalog.load("") is catalog.load() is catalog.load(None)


def test_a_new_row_comes_into_its_place(overlay: Any) -> None:
    merged = releases(overlay(NEW_RELEASE))
    assert merged[merged.index("2.14.1") : merged.index("2.15.0") + 1] == ["2.14.1", "2.14.2", "2.15.0"]
    assert "2.14.2" not in releases(catalog.load())


def test_a_known_row_changes_in_the_named_fields_only(overlay: Any) -> None:
    changed = branch(
        overlay('driver: {branches: [{branch: "470", end_of_life: "2024-09", source: read by us}]}'), "470"
    )
    shipped = branch(catalog.load(), "470")
    assert shipped["unverified"] == ["end_of_life"]
    assert changed["end_of_life"] == "2024-09"
    # What the site states is no guess any more, and both say where it comes from.
    assert "unverified" not in changed
    assert changed["source"] == [*shipped["source"], "read by us"]
    assert {name: changed[name] for name in ("max_cuda", "open", "proprietary", "type")} == {
        name: shipped[name] for name in ("max_cuda", "open", "proprietary", "type")
    }


def test_a_build_that_a_site_has_seen_is_verified(overlay: Any) -> None:
    text = """
torch:
  builds:
    "2.15":
      - {variant: cu134, platform: x86_64, cudnn: "9.28.1.4", unverified: [compiled_for], source: installed here}
"""
    rows = overlay(text)["torch"]["builds"]["2.15"]
    row = next(row for row in rows if (row["variant"], row["platform"]) == ("cu134", "x86_64"))
    assert row["cudnn"] == "9.28.1.4"
    assert row["unverified"] == ["compiled_for"]
    assert [each["variant"] for each in rows[:4]] == ["cu132", "cu130", "cu134", "cpu"]


def test_a_new_distribution(overlay: Any) -> None:
    text = """
distro:
  distributions:
    - {name: Kylin, names: [], version: "11", family: dnf, glibc: "2.38", gcc: 12, python: "3.11",
       pythons: [{version: "3.11", packages: [python3]}], repository: null, toolkit: null, source: our nodes}
"""
    rows = overlay(text)["distro"]["distributions"]
    assert [row["name"] for row in rows].index("Kylin") == [row["name"] for row in rows].index("MacOSX") - 1


def test_the_address_of_a_mirror(overlay: Any) -> None:
    content = overlay(
        "torch: {pytorch_index: 'https://mirror.example/whl/'}\nrepository: {base: 'https://mirror.example/cuda'}"
    )
    assert content["torch"]["pytorch_index"] == "https://mirror.example/whl"
    assert content["repository"]["base"] == "https://mirror.example/cuda"


@pytest.mark.parametrize("address", ["3", "mirror.example", "[https://a]"])
def test_an_address_that_is_none_is_refused(overlay: Any, address: str) -> None:
    with pytest.raises(GpufleetError, match=r"torch\.pytorch_index is no address"):
        overlay(f"torch: {{pytorch_index: {address}}}")


def test_a_directory_of_files_with_the_catalogs_names(tmp_path: pathlib.Path) -> None:
    (tmp_path / "driver.yml").write_text('branches: [{branch: "470", type: null, source: us}]', encoding="utf-8")
    (tmp_path / "gpu.yml").write_text('chips: [{chip: GB112, first_branch: "595", source: us}]', encoding="utf-8")
    merged = catalog.load(str(tmp_path))
    assert branch(merged, "470")["type"] is None
    assert [row["chip"] for row in merged["gpu"]["chips"]] == ["GB102", "GB112"]


def test_an_edited_overlay_is_read_again_and_an_unchanged_one_is_not(overlay: Any, tmp_path: pathlib.Path) -> None:
    first = overlay('driver: {branches: [{branch: "470", type: null, source: us}]}')
    assert catalog.load(str(tmp_path / "overlay.yml")) is first
    second = overlay('driver: {branches: [{branch: "470", type: LTS!, source: us}]}')
    os.utime(tmp_path / "overlay.yml", ns=(1, 1))
    assert branch(second, "470")["type"] == "LTS!"


def test_the_example_of_the_documentation_merges(overlay: Any) -> None:
    section = DOCS.read_text(encoding="utf-8").split("## Overlay", 1)[1]
    example = section.split("```yaml\n", 1)[1].split("```", 1)[0]
    merged = overlay(example)
    assert merged != catalog.load()


WRONG = {
    "not YAML": ("torch: [", "overlay.yml is not YAML"),
    "no mapping": ("- 1", "is no mapping of the catalog's files"),
    "unknown file": ("cuda_toolkit: {}", "names 'cuda_toolkit', which is no file of the catalog (cuda, cudnn"),
    "a file that is no mapping": ("torch: [1]", "torch is no mapping of lists"),
    "unknown list": ("driver: {branch: []}", "driver.branch is no list of the catalog (driver has branches, archive"),
    "no list": ('driver: {branches: "535"}', "driver.branches is not a list of rows"),
    "no row": ("driver: {branches: [535]}", "driver.branches, 535, -: a row is a mapping of fields"),
    "builds without a series": ("torch: {builds: []}", "torch.builds is a mapping of series in quotes"),
    "a series that is a number": ("torch: {builds: {2.0: []}}", "torch.builds is a mapping of series in quotes"),
    "missing identity": (
        "driver: {branches: [{type: LTS, source: us}]}",
        "driver.branches, ?, branch: is missing: it tells rows apart",
    ),
    "twice": (
        "gpu: {chips: [{chip: GB102, source: us}, {chip: GB102, source: us}]}",
        "gpu.chips, GB102, chip: comes twice in this overlay",
    ),
    "missing source": (
        'driver: {branches: [{branch: "470", type: LTS}]}',
        "driver.branches, 470, source: is missing",
    ),
    "missing field of a new row": (
        "gpu: {chips: [{chip: GB112, source: us}]}",
        "gpu.chips, GB112, first_branch: is missing",
    ),
    "unknown field": (
        'driver: {branches: [{branch: "470", eol: "2024-07", source: us}]}',
        "driver.branches, 470, eol: is no field of such a row (fields: branch, type",
    ),
    "number for a version": (
        "driver: {branches: [{branch: 470, type: LTS, source: us}]}",
        "driver.branches, 470, branch: 470 is a number, text is needed: write it in quotes",
    ),
    "number in a list": (
        'cuda: {toolkits: [{version: "13.5.0", targets: [7.5], source: us}]}',
        "cuda.toolkits, 13.5.0, targets: 7.5 is a number, text is needed",
    ),
    "text for a number": (
        'cuda: {toolkits: [{version: "13.5.0", gcc_max: "16", source: us}]}',
        "cuda.toolkits, 13.5.0, gcc_max: '16' is not a whole number",
    ),
    "text for a list": (
        'driver: {branches: [{branch: "470", open: Turing, source: us}]}',
        "driver.branches, 470, open: 'Turing' is not a list",
    ),
    "text for a flag": (
        'driver: {branches: [{branch: "470", ended: "yes", source: us}]}',
        "driver.branches, 470, ended: 'yes' is not true or false",
    ),
    "no version": (
        'driver: {branches: [{branch: "470", max_cuda: new, source: us}]}',
        "driver.branches, 470, max_cuda: 'new' is not a version",
    ),
    "a word that is not offered": (
        'distro: {distributions: [{name: Debian, version: "12", family: pacman, source: us}]}',
        "distro.distributions, Debian 12, family: 'pacman' is none of apt, dnf",
    ),
    "unknown platform": (
        'torch: {releases: [{version: "2.0.0", pythons: {riscv64: ["3.8"]}, source: us}]}',
        "torch.releases, 2.0.0, pythons: 'riscv64' is none of x86_64",
    ),
    "a python without packages": (
        'distro: {distributions: [{name: Debian, version: "12", pythons: [{version: "3.11"}], source: us}]}',
        "distro.distributions, Debian 12, pythons: {'version': '3.11'} is not a mapping with version, packages",
    ),
    "a toolkit with a number": (
        'distro: {distributions: [{name: Debian, version: "12", source: us, toolkit: {version: 11.8, full_version: "11.8.0",'
        " packages: [], layout: debian, components: [], download_mib: null, disk_mib: null}}]}",
        "distro.distributions, Debian 12, toolkit: version: 11.8 is a number",
    ),
    "unverified of no field": (
        'driver: {branches: [{branch: "470", unverified: [eol], source: us}]}',
        "driver.branches, 470, unverified: names fields that no such row has: ['eol']",
    ),
}

DANGLING = {
    "a release without builds": (
        NEW_RELEASE.replace('"2.14.2"', '"2.99.0"').replace('"2.14"', '"2.99"'),
        "torch.releases, 2.99.0, series: there are no builds of torch 2.99",
    ),
    "a platform without builds": (
        'torch: {releases: [{version: "2.15.0", pythons: {x86_64: ["3.12"], macos_x86_64: ["3.12"]}, source: us}]}',
        "torch.releases, 2.15.0, pythons: 2.15 has no build for macos_x86_64",
    ),
    "builds without a release": (
        'torch: {builds: {"2.99": []}}',
        "torch.builds, 2.99, series: there is no release of torch 2.99",
    ),
    "a build for an unknown CUDA": (
        'torch: {builds: {"2.15": [{variant: cu130, platform: x86_64, cuda: "13.9", source: us}]}}',
        "torch.builds, 2.15 cu130 x86_64, cuda: 13.9 has no row in cuda.toolkits",
    ),
    "a build with an unknown cuDNN": (
        'torch: {builds: {"2.15": [{variant: cu130, platform: x86_64, cudnn: "8.9.6.50", source: us}]}}',
        "torch.builds, 2.15 cu130 x86_64, cudnn: 8.9.6.50 for CUDA 13.0 has no row in cudnn.cudnn",
    ),
    "a chip with an unknown branch": (
        'gpu: {chips: [{chip: GB112, first_branch: "999", source: us}]}',
        "gpu.chips, GB112, first_branch: 999 has no row in driver.branches",
    ),
    "an unknown architecture": (
        'driver: {branches: [{branch: "620", open: [Feynman], source: us}]}',
        "driver.branches, 620, open: no GPU is of the architecture Feynman",
    ),
    "a branch for an unknown CUDA": (
        'driver: {branches: [{branch: "620", max_cuda: "14.0", source: us}]}',
        "driver.branches, 620, max_cuda: 14.0 has no row in cuda.compatibility",
    ),
    "an unknown repository": (
        'distro: {distributions: [{name: Debian, version: "12", repository: debian99, source: us}]}',
        "distro.distributions, Debian 12, repository: debian99 is no known repository",
    ),
    "a default Python that is not listed": (
        'distro: {distributions: [{name: Debian, version: "12", python: "3.12", source: us}]}',
        "distro.distributions, Debian 12, python: 3.12 is not among its pythons",
    ),
    "an unknown key": (
        "repository: {repositories: [{name: debian12, key: ours, source: us}]}",
        "repository.repositories, debian12, key: ours has no row in repository.keys",
    ),
    "an archive of an unknown distribution": (
        'driver: {archive: [{distribution: Arch, version: "1", branch: "999", driver_version: null, flavour: open, architectures: [x86_64],'
        " packages: [nvidia], headers: {}, components: [], dkms_name: null, fabric_manager: null, download_mib: null,"
        " disk_mib: null, source: us}]}",
        "driver.archive, Arch 1 999 open, branch: 999 has no row in driver.branches; "
        "driver.archive, Arch 1 999 open, distribution: has no row in distro.distributions",
    ),
}


@pytest.mark.parametrize(("text", "message"), [*WRONG.values(), *DANGLING.values()], ids=[*WRONG, *DANGLING])
def test_a_wrong_overlay_is_refused(overlay: Any, text: str, message: str) -> None:
    with pytest.raises(GpufleetError) as caught:
        overlay(text)
    assert caught.value.code == "GF-CATALOG-OVERLAY"
    assert message in caught.value.message
    assert "overlay.yml" in caught.value.message
    assert caught.value.fix


def test_an_overlay_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(GpufleetError) as caught:
        catalog.load(str(tmp_path / "nowhere.yml"))
    assert caught.value.code == "GF-CATALOG-OVERLAY"
    assert "nowhere.yml cannot be read: No such file or directory" in caught.value.message
    assert "ls -l" in caught.value.fix


def test_an_overlay_that_is_no_text(tmp_path: pathlib.Path) -> None:
    (tmp_path / "o.yml").write_bytes(b"\xff\xfe\x00torch")
    with pytest.raises(GpufleetError, match=r"o\.yml cannot be read"):
        catalog.load(str(tmp_path / "o.yml"))


def test_of_many_problems_the_first_are_shown(overlay: Any) -> None:
    rows = ", ".join(f"{{chip: X{number}, source: us}}" for number in range(7))
    with pytest.raises(GpufleetError, match=r"X4, first_branch: is missing \(and 2 more\)"):
        overlay(f"gpu: {{chips: [{rows}]}}")
