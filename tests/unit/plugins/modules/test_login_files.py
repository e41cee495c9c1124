"""Files of login shells, read by the real sh, bash, zsh, tcsh and fish."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.login_environment import ZSH_BLOCK, apply, render
from ansible_collections.gpufleet.stack.plugins.module_utils.shell_variables import read as variables_of
from ansible_collections.gpufleet.stack.plugins.module_utils.sysroot import Sysroot

SHELLS = {"sh": ["sh"], "bash": ["bash", "--norc", "--noprofile"], "zsh": ["zsh", "-f"], "dash": ["dash"]}
ROLE = Path(__file__).parents[4] / "roles/pytorch/vars/main.yml"
FUNCTIONS = yaml.safe_load(ROLE.read_text(encoding="utf-8"))["__pytorch_functions"]
TEXTS = render(
    "cuda",
    {"CUDA_HOME": "/opt/a b/$HOME's!"},
    {"PATH": ["/opt/a b/$`\"'\\/bin", "/second/bin"], "LD_LIBRARY_PATH": ["/opt/lib64"]},
    {},
)
TEXT = TEXTS["sh"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    """A shell; that all are installed is a matter of tests/tools/packages, so a missing one is a failure."""
    command = SHELLS[request.param]
    assert shutil.which(command[0]), f"install {command[0]} for this test"
    return command


def run(shell: list[str], script: str, **variables: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", **variables}
    answer = subprocess.run([*shell, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout


def read(path: Path, times: int = 1) -> str:
    return f". {shlex.quote(str(path))}; " * times


# printf, for some shells' echo takes backslashes for more than they are.
SHOW = 'printf "%s\\n" "$CUDA_HOME" "$PATH" "$LD_LIBRARY_PATH"'


@pytest.fixture
def cuda(tmp_path: Path) -> Path:
    path = tmp_path / "cuda.sh"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("options", ["", "set -eu; "])
def test_variables_and_search_paths(shell: list[str], cuda: Path, times: int, options: str) -> None:
    assert run(shell, options + read(cuda, times) + SHOW).splitlines() == [
        "/opt/a b/$HOME's!",
        "/opt/a b/$`\"'\\/bin:/second/bin:/usr/bin:/bin",
        "/opt/lib64",
    ]


def test_what_is_set_stays(shell: list[str], cuda: Path) -> None:
    shown = run(
        shell,
        read(cuda) + SHOW,
        CUDA_HOME="/mine",
        LD_LIBRARY_PATH="/x:/opt/lib64:/y",
        PATH="/usr/bin:/second/bin:/bin",
    )
    assert shown.splitlines() == ["/mine", "/opt/a b/$`\"'\\/bin:/usr/bin:/second/bin:/bin", "/x:/opt/lib64:/y"]


def test_children_get_them(shell: list[str], cuda: Path) -> None:
    assert "LD_LIBRARY_PATH=/opt/lib64\n" in run(shell, read(cuda) + "env")


@pytest.fixture
def pytorch(tmp_path: Path) -> Path:
    """The part that the role pytorch writes, with two environments made as uv makes them."""
    for name in ("default", "course"):
        directory = tmp_path / f"opt/envs/{name}/1/bin"
        directory.mkdir(parents=True)
        (directory / "activate").write_text(f"VIRTUAL_ENV={directory.parent}; export VIRTUAL_ENV\n")
        (tmp_path / f"opt/envs/{name}/current").symlink_to("1")
    path = tmp_path / "pytorch.sh"
    path.write_text(render("pytorch", {"GPUFLEET_PREFIX": str(tmp_path / "opt")}, {}, FUNCTIONS)["sh"])
    return path


@pytest.mark.parametrize(("argument", "name"), [("", "default"), ("course", "course")])
def test_activating(shell: list[str], pytorch: Path, tmp_path: Path, argument: str, name: str) -> None:
    shown = run(shell, read(pytorch, 2) + f'gpufleet_activate {argument}; echo "$VIRTUAL_ENV"')
    assert shown == f"{tmp_path}/opt/envs/{name}/1\n"


def test_no_such_environment_ends_no_shell(shell: list[str], pytorch: Path) -> None:
    shown = run(shell, read(pytorch) + 'gpufleet_activate none 2>&1 || echo "still here"')
    assert shown.splitlines()[0].startswith("gpufleet_activate: no environment none in ")
    assert shown.endswith("still here\n")


# --- csh and fish ---------------------------------------------------------------------------------------------------

OTHERS = {
    "csh": (["tcsh", "-f"], 'printf "%s\\n" "$CUDA_HOME" "$PATH" "$LD_LIBRARY_PATH"'),
    "fish": (["fish", "--no-config"], 'printf "%s\\n" "$CUDA_HOME" "$PATH" "$LD_LIBRARY_PATH"'),
}


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], str, str]:
    """csh or fish: its command, what reads its file, and what shows the variables."""
    command, show = OTHERS[request.param]
    assert shutil.which(command[0]), f"install {command[0]} for this test"
    path = tmp_path / f"cuda.{request.param}"
    path.write_text(TEXTS[request.param])
    return command, f"source {path}", show


@pytest.mark.parametrize("times", [1, 2])
def test_csh_and_fish_get_the_same(other: tuple[list[str], str, str], times: int) -> None:
    command, source, show = other
    script = "\n".join([source] * times + [show, "env"])
    lines = run(command, script).splitlines()
    expected = ["/opt/a b/$HOME's!", "/opt/a b/$`\"'\\/bin:/second/bin:/usr/bin:/bin", "/opt/lib64"]
    assert lines[:3] == expected
    assert f"LD_LIBRARY_PATH={expected[2]}" in lines[3:]
    assert f"PATH={expected[1]}" in lines[3:]


def test_what_is_set_stays_in_csh_and_fish(other: tuple[list[str], str, str]) -> None:
    command, source, show = other
    paths = {"LD_LIBRARY_PATH": "/x:/opt/lib64:/y", "PATH": "/usr/bin:/second/bin:/bin"}
    shown = run(command, f"{source}\n{show}", CUDA_HOME="/mine", **paths)
    assert shown.splitlines() == ["/mine", "/opt/a b/$`\"'\\/bin:/usr/bin:/second/bin:/bin", "/x:/opt/lib64:/y"]


def test_an_empty_variable_counts_as_none(other: tuple[list[str], str, str]) -> None:
    command, source, show = other
    shown = run(command, f"{source}\n{show}", CUDA_HOME="", LD_LIBRARY_PATH="")
    assert shown.splitlines()[::2] == ["/opt/a b/$HOME's!", "/opt/lib64"]


@pytest.mark.parametrize(("argument", "name"), [("", "default"), ("course", "course")])
@pytest.mark.parametrize("kind", OTHERS)
def test_activating_in_csh_and_fish(pytorch: Path, tmp_path: Path, kind: str, argument: str, name: str) -> None:
    for each in ("default", "course"):
        script = tmp_path / f"opt/envs/{each}/1/bin/activate.{kind}"
        setting = "set -gx VIRTUAL_ENV" if kind == "fish" else "setenv VIRTUAL_ENV"
        script.write_text(f"{setting} {script.parents[1]}\n")
    path = tmp_path / f"pytorch.{kind}"
    path.write_text(render("pytorch", {"GPUFLEET_PREFIX": str(tmp_path / "opt")}, {}, FUNCTIONS)[kind])
    # An alias of csh counts from the next line on.
    shown = run(OTHERS[kind][0], f'source {path}\ngpufleet_activate {argument}\necho "$VIRTUAL_ENV"')
    assert shown == f"{tmp_path}/opt/envs/{name}/1\n"


# --- files ----------------------------------------------------------------------------------------------------------


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def test_written_once(tmp_path: Path) -> None:
    assert apply("gpufleet-cuda", TEXTS, str(tmp_path), check_mode=True).diff[0]["after"] == TEXT
    assert files(tmp_path) == {}
    changes = apply("gpufleet-cuda", TEXTS, str(tmp_path))
    path = tmp_path / "etc/profile.d/gpufleet-cuda.sh"
    assert changes.files == [str(path)]
    assert files(tmp_path) == {"etc/profile.d/gpufleet-cuda.sh": TEXT}
    assert path.stat().st_mode & 0o777 == 0o644
    again = apply("gpufleet-cuda", TEXTS, str(tmp_path))
    assert (again.files, again.diff) == ([str(path)], [])


def test_zsh_gets_a_block_in_its_own_file(tmp_path: Path) -> None:
    zprofile = tmp_path / "etc/zsh/zprofile"
    zprofile.parent.mkdir(parents=True)
    zprofile.write_text("# the distribution's\nexport A=1")
    apply("gpufleet-cuda", TEXTS, str(tmp_path))
    changes = apply("gpufleet-pytorch", dict.fromkeys(TEXTS, "x=1\n"), str(tmp_path))
    assert zprofile.read_text() == "# the distribution's\nexport A=1\n" + ZSH_BLOCK
    assert changes.files == [str(tmp_path / "etc/profile.d/gpufleet-pytorch.sh"), str(zprofile)]
    apply("gpufleet-cuda", None, str(tmp_path))
    assert ZSH_BLOCK in zprofile.read_text()
    gone = apply("gpufleet-pytorch", None, str(tmp_path))
    assert (gone.files, len(gone.diff)) == ([], 2)
    assert files(tmp_path) == {"etc/zsh/zprofile": "# the distribution's\nexport A=1\n"}
    assert apply("gpufleet-pytorch", None, str(tmp_path)).diff == []


def test_a_damaged_block_is_written_anew(tmp_path: Path) -> None:
    zprofile = tmp_path / "etc/zsh/zprofile"
    zprofile.parent.mkdir(parents=True)
    lines = ZSH_BLOCK.splitlines(keepends=True)
    zprofile.write_text("before\n" + "".join(lines[:2]) + "after\n" + ZSH_BLOCK)
    apply("gpufleet-cuda", TEXTS, str(tmp_path))
    assert zprofile.read_text() == "before\nafter\n" + ZSH_BLOCK


def test_zsh_without_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/zsh").touch()
    apply("gpufleet-cuda", TEXTS, str(tmp_path))
    assert (tmp_path / "etc/zprofile").read_text() == ZSH_BLOCK
    apply("gpufleet-cuda", None, str(tmp_path))
    assert not (tmp_path / "etc/zprofile").exists()


@pytest.mark.parametrize(
    ("there", "path", "shell"),
    [
        ("etc/csh", "etc/csh/login.d/gpufleet-cuda", "csh"),
        ("usr/bin/tcsh", "etc/profile.d/gpufleet-cuda.csh", "csh"),
        ("etc/fish", "etc/fish/conf.d/gpufleet-cuda.fish", "fish"),
    ],
)
def test_csh_and_fish_are_served_where_they_are(tmp_path: Path, there: str, path: str, shell: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    changes = apply("gpufleet-cuda", TEXTS, str(tmp_path))
    assert files(tmp_path) == {"etc/profile.d/gpufleet-cuda.sh": TEXT, path: TEXTS[shell]}
    assert sorted(changes.files) == sorted(str(tmp_path / name) for name in files(tmp_path))
    apply("gpufleet-cuda", None, str(tmp_path))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("parts", [0, 2])
def test_zsh_reads_the_block(tmp_path: Path, parts: int) -> None:
    for number in range(parts):
        apply(f"gpufleet-part{number}", render(f"part{number}", {f"V{number}": "1"}, {}, FUNCTIONS), str(tmp_path))
    block = ZSH_BLOCK.replace("/etc/profile.d", str(tmp_path / "etc/profile.d"))
    shown = run(["zsh", "-f"], f'{block}echo "${{V0-}}${{V1-}}"; whence -w gpufleet_activate || true')
    assert shown.splitlines()[0] == "1" * parts
    assert ("gpufleet_activate: function" in shown) == (parts > 0)


@pytest.mark.parametrize(
    ("name", "variables", "prepend"),
    [
        ("../x", {}, {}),
        ("cuda", {"A-B": "1"}, {}),
        ("cuda", {"A": "1\n2"}, {}),
        ("cuda", {}, {"PATH": ["relative"]}),
        ("cuda", {}, {"PATH": ["/a:/b"]}),
    ],
)
def test_what_no_shell_can_hold_is_refused(name: str, variables: dict[str, str], prepend: dict[str, list[str]]) -> None:
    with pytest.raises(GpufleetError) as caught:
        render(name, variables, prepend, {})
    assert caught.value.code == "GF-WISH-INVALID"


def test_no_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, **_named: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.makedirs", refuse)
    with pytest.raises(GpufleetError) as caught:
        apply("gpufleet-cuda", TEXTS, str(tmp_path))
    assert caught.value.code == "GF-RIGHTS"


def test_the_facts_understand_what_is_written(tmp_path: Path) -> None:
    text = render("cuda", {"CUDA_HOME": "/c"}, {"PATH": ["/c/bin", "/d"], "LD_LIBRARY_PATH": ["/c/lib64"]}, FUNCTIONS)
    apply("gpufleet-cuda", text, str(tmp_path))
    (tmp_path / "etc/environment").write_text("PATH=/bin\n")
    found = variables_of(Sysroot(str(tmp_path)))
    assert (found["cuda_home"], found["ld_library_path"]) == ("/c", ["/c/lib64"])
    assert found["path"] == ["/c/bin", "/d", "/bin"]
    assert found["set_by"] == ["/etc/profile.d/gpufleet-cuda.sh"]
