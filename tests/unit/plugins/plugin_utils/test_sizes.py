"""What a plan downloads and what it takes of the disk."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpufleet.stack.plugins.plugin_utils import sizes


def plan(**facts: Any) -> dict[str, Any]:
    environment = {"name": "default", "path": "/e", "disk_mib": 4000, "lock": {"download_bytes": 2_000_000_000}}
    cudnn = {"version": "8.9", "path": "/c", "disk_mib": None, "wheel": {"size": 100 * sizes.MIB}}
    stages = {
        "nvidia_driver": {"needed": True, "version": "535", "download_mib": 10, "disk_mib": 30},
        "cuda_toolkit": {
            "needed": True,
            "toolkits": [{"version": "11.8", "requirement": None}],
            "download_mib": 20,
            "disk_mib": 50,
        },
        "cudnn": {"needed": True, "cudnns": [cudnn]},
        "python": {"needed": True, "managed": []},
        "pytorch": {"needed": True, "environments": [environment]},
    }
    found = {"gpu": {"driver": {"installed_version": None}}, "cuda": {"torch": [], "cudnn": [], "toolkits": []}}
    return {"stages": stages, "facts": {**found, **facts}}


def total(made: dict[str, Any]) -> dict[str, Any]:
    return sizes.total(sizes.parts(made))


def test_everything_that_is_needed_is_counted() -> None:
    assert total(plan()) == {
        "download_bytes": 2_000_000_000 + 130 * sizes.MIB,
        "download_complete": True,
        "disk_mib": 4000 + 200 + 30 + 50,
        "disk_complete": True,
        "disk_estimated": True,
    }


def test_what_is_there_is_not_fetched_again() -> None:
    cuda = {"torch": [{"path": "/e"}], "cudnn": [{"path": "/c"}], "toolkits": [{"version": "11.8.0"}]}
    made = plan(gpu={"driver": {"installed_version": "535.1"}}, cuda=cuda)
    assert sizes.parts(made) == []
    made["facts"]["cuda"]["toolkits"] = [{"version": "12.0"}, {"version": None}]
    assert [part.name for part in sizes.parts(made)] == ["CUDA toolkit"]


def test_what_is_not_needed_is_not_fetched() -> None:
    made = plan()
    for stage in made["stages"].values():
        stage["needed"] = False
    assert total(made)["download_bytes"] == 0


def test_an_unknown_size_makes_the_sum_a_least_one() -> None:
    made = plan()
    made["stages"]["pytorch"]["environments"][0].update(disk_mib=None, lock={"download_bytes": None})
    made["stages"]["nvidia_driver"].update(download_mib=None)
    size = total(made)
    assert (size["download_bytes"], size["download_complete"]) == (120 * sizes.MIB, False)
    assert (size["disk_mib"], size["disk_complete"]) == (280, False)


def test_a_disk_size_that_nobody_knows_is_twice_the_download() -> None:
    part = sizes.environment_part({"name": "x", "disk_mib": None, "lock": {"download_bytes": 10 * sizes.MIB}})
    assert (part.disk_mib, part.estimated) == (20, True)


def test_a_toolkit_of_wheels_is_as_large_as_its_wheels() -> None:
    wheels = [{"size": 30 * sizes.MIB}, {"size": 12 * sizes.MIB}]
    toolkit = {"version": "13.0", "path": "/cuda/13.0", "requirement": "cuda-toolkit[all]==13.0.2", "wheels": wheels}
    made = plan()
    made["stages"]["cuda_toolkit"]["toolkits"] = [toolkit]
    found = {part.name: part for part in sizes.parts(made)}
    assert found["CUDA toolkit 13.0"] == sizes.Part("CUDA toolkit 13.0", 42 * sizes.MIB, 84, estimated=True)
    assert "CUDA toolkit" not in found
    made["facts"]["cuda"]["toolkits"] = [{"version": "13.0", "path": "/cuda/13.0"}]
    assert "CUDA toolkit 13.0" not in {part.name for part in sizes.parts(made)}


def test_a_managed_interpreter_is_counted_where_somebody_tells_its_size() -> None:
    made = plan()
    made["stages"]["python"]["managed"] = [{"full_version": "3.11.18", "size": 30 * sizes.MIB}]
    assert total(made)["download_bytes"] == total(plan())["download_bytes"] + 30 * sizes.MIB
    made["stages"]["python"]["managed"][0]["size"] = None
    assert not total(made)["download_complete"]
    made["stages"]["python"]["needed"] = False
    assert total(made) == total(plan())
