"""Requirements files on the controller, as they come out of a project."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.requirements import read, with_files


def wishes(path: Path) -> dict[str, object]:
    return {"pytorch_environments": [{"name": "one"}, {"name": "two", "requirements": str(path)}]}


def test_a_file_is_read_with_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/base.txt").write_text("numpy<2\n")
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# what the course needs\n\n-r more/base.txt\nscikit-learn==1.4.*  # pinned\nrequests[socks] \\\n    >=2.31\n"
        'tomli; python_version < "3.11"\n'
    )
    found = with_files(wishes(path))["pytorch_environments"]
    assert found[0] == {"name": "one"}
    assert found[1]["requirements"] == [
        "numpy<2",
        "scikit-learn==1.4.*",
        "requests[socks] >=2.31",
        'tomli; python_version < "3.11"',
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--extra-index-url https://me:secret@x.example/simple", "names an index"),
        ("-f wheels/", "names an index"),
        ("-c constraints.txt", "constraints"),
        ("-e .", "only -r"),
        ("numpy==1.26.4 --hash=sha256:00", "hashes"),
        ("https://me:secret@x.example/ours-1.whl", "is no requirement"),
        ("ours @ file:///srv/ours-1.whl", "names an address"),
        ("-r nowhere.txt", "cannot be read"),
    ],
)
def test_what_is_no_requirement_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(f"scipy\n{line}\n")
    with pytest.raises(GpufleetError) as caught:
        with_files(wishes(path))
    assert caught.value.code == "GF-REQUIREMENTS"
    assert told in caught.value.message
    assert "secret" not in str(caught.value)
    if "nowhere" not in line:
        assert f"{path}, line 2" in caught.value.message


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("-r requirements.txt\n")
    with pytest.raises(GpufleetError, match="only -r"):
        read(str(path))


def test_a_file_that_is_not_there_is_a_conflict(tmp_path: Path) -> None:
    with pytest.raises(GpufleetError, match="No such file"):
        with_files(wishes(tmp_path / "none.txt"))
