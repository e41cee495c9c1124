"""Modulefiles of a real toolkit and a real cuDNN, loaded by the real Lmod and Environment Modules under four shells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from .conftest import World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

# Where each module system's own start for a shell lies; bash reads it from /etc/profile.d by itself.
STARTS = {
    "lmod": "/usr/share/lmod/lmod/init/{shell}",
    "environment-modules": "/usr/share/modules/init/{shell}",
}
SHELLS = {
    "bash": "bash -lc",
    "zsh": "zsh -lc",
    "csh": "tcsh -c",
    "fish": "fish -c",
}
WISHES = {
    "gpufleet_environment": "modules",
    "cuda_toolkit_source": "wheels",
    "cuda_toolkit_version": ["13.0", "13.1"],
    "cudnn_version": "9",
}
# tcsh takes -l alone only; a login shell is one whose name begins with a dash, too.
LOGINS = (
    "sh -lc 'nvcc --version'",
    "bash -lc 'nvcc --version'",
    "zsh -lc 'nvcc --version'",
    "fish -lc 'nvcc --version'",
    "exec -a -tcsh tcsh -c 'nvcc --version'",
)
DIRECTORY = "/opt/gpufleet/modulefiles"
# A module system's own notes, which are there from its start on or from the first module on.
OWN = "^(_|BASH_FUNC|LMOD|MODULE|LOADEDMODULES|__LMOD|__MODULES|_LMFILES_|_ModuleTable|SHLVL|PWD|OLDPWD)"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("modules", tmp_path_factory.mktemp("modules")) as world:
        world.sh("node", "apt-get install -y -q --no-install-recommends tcsh fish >/dev/null")
        run = world.play(cmdline="--tags cuda_toolkit,cudnn", **WISHES)
        assert run.rc == 0, run.stdout
        assert world.play(cmdline="--tags cuda_toolkit,cudnn", **WISHES).changed("node") == 0
        yield world


@pytest.fixture(scope="module", params=STARTS)
def system(request: pytest.FixtureRequest, node: World) -> str:
    """A module system; the two can't be installed together."""
    # A package that is removed leaves its start in /etc/profile.d, and that fails then.
    other = next(each for each in STARTS if each != request.param)
    node.sh("node", f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {request.param} {other}- >/dev/null")
    node.sh("node", f"dpkg --purge {other} 2>/dev/null")
    return str(request.param)


def shown(node: World, system: str, shell: str, *commands: str) -> str:
    """What a shell prints in which the module system was started as its manual says."""
    start = f"source {STARTS[system].format(shell=shell)}"
    use = f"module use {DIRECTORY}"
    lines = [*([] if shell == "bash" else [start, use]), *commands]
    script = "/tmp/script"
    node.sh("node", f"cat >{script} <<'END'\n" + "\n".join(lines) + "\nEND")
    return node.sh("node", f"env -i HOME=/root USER=root PATH=/usr/bin:/bin {SHELLS[shell]} 'source {script}' 2>&1")


def environment(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if "=" in line and not re.match(OWN, line))


@pytest.mark.parametrize("shell", SHELLS)
def test_load_and_unload_leave_nothing_behind(node: World, system: str, shell: str) -> None:
    said = shown(
        node, system, shell, "env", "echo LOADED", "module load cuda/13.1", "module load cudnn", "env", "nvcc --version",
        "echo UNLOADED", "module unload cudnn", "module unload cuda", "env",
    )  # fmt: skip
    before, rest = said.split("\nLOADED\n")
    during, after = rest.split("\nUNLOADED\n")
    home = "/opt/gpufleet/cuda/13.1"
    lines = environment(during)
    assert f"CUDA_HOME={home}" in lines, said
    assert "release 13.1" in during
    cudnn = next(line for line in lines if line.startswith("CUDNN_HOME=")).partition("=")[2]
    assert f"LD_LIBRARY_PATH={cudnn}/lib:{home}/lib64" in lines
    assert f"CPATH={cudnn}/include" in lines
    assert node.sh("node", f"ls {cudnn}/include/cudnn.h {cudnn}/lib/libcudnn.so") != ""
    assert environment(before) == environment(after)
    assert not [line for line in environment(after) if "gpufleet" in line and not line.startswith("MODULEPATH")]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_default_is_the_first_version_that_was_asked_for(node: World, system: str, shell: str) -> None:
    assert "release 13.0" in shown(node, system, shell, "module load cuda", "nvcc --version")


def test_a_login_shell_finds_the_modules_and_keeps_the_systems_own(node: World, system: str) -> None:
    own = {"lmod": "/usr/share/lmod/lmod/modulefiles", "environment-modules": "/usr/share/modules/modulefiles"}[system]
    paths = shown(node, system, "bash", "echo $MODULEPATH").split(":")
    assert own in [path.rstrip("/") for path in paths]
    assert paths[0] == DIRECTORY


def test_two_toolkits_are_never_loaded_at_once(node: World, system: str) -> None:
    said = shown(node, system, "bash", "module load cuda/13.0", "module load cuda/13.1", "echo; echo $PATH")
    assert len([each for each in said.splitlines()[-1].split(":") if "/opt/gpufleet/cuda/" in each]) == 1, said


def test_going_back_to_login_shells_takes_the_modulefiles_away(node: World) -> None:
    node.sh("node", f"apt-get purge -y -q {' '.join(STARTS)} >/dev/null")
    run = node.play(cmdline="--tags cuda_toolkit,cudnn", **{**WISHES, "gpufleet_environment": "profile"})
    assert run.rc == 0, run.stdout
    assert node.sh("node", f"ls {DIRECTORY} /etc/profile.d/zz-gpufleet-modules.sh 2>/dev/null || true") == ""
    for call in LOGINS:
        node.sh("node", f"cat >/tmp/call <<'END'\n{call}\nEND")
        assert "release 13.0" in node.sh("node", "bash /tmp/call"), call


def test_removal_leaves_no_file_of_any_shell(node: World) -> None:
    run = node.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    # The cache of the test nodes is a mount.
    found = node.sh("node", "find / -xdev -name '*gpufleet*' -print")
    assert [path for path in found.splitlines() if not path.startswith(("/tmp/", "/var/cache/gpufleet"))] == []
