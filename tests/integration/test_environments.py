"""Environments of a real torch on a node: what users touch, a second one, an upgrade under a job, pruning and going back."""

from __future__ import annotations

import json
import os
import random
import re
import time
from typing import TYPE_CHECKING

import ansible_runner
import pytest

from .conftest import Run, World, fresh
from .test_modulefiles import STARTS, environment, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ENVS = "/opt/gpufleet/envs"
CURRENT = f"{ENVS}/default/current"
TAGS = "--tags python,pytorch -v"
BOTH = [{"name": "default"}, {"name": "course"}]
# The same torch with one more small package is another lock and another directory.
UPGRADED = [{"name": "default", "requirements": ["colorama==0.4.6"]}, {"name": "course"}]
AGAIN = [{"name": "default", "requirements": ["colorama==0.4.5"]}, {"name": "course"}]
# On a machine that does nothing else; where others work beside us it may take as much longer as they take of it.
TWIN_SECONDS = 2.0
BACK_SECONDS = 2.0
TWIN_SHARE = 0.03


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # The cache where it is by default: what environments have in common lies on the disk once.
    with fresh("envs", tmp_path_factory.mktemp("envs"), gpufleet_cache_dir="/opt/gpufleet/cache") as world:
        world.sh("node", "id student || useradd -m student")
        run = world.play(cmdline=TAGS)
        assert run.rc == 0, run.stdout
        yield world


def as_student(world: World, command: str, *, check: bool = True) -> str:
    world.sh("node", f"cat >/tmp/command <<'END'\n{command}\nEND\nchmod 644 /tmp/command")
    return world.sh("node", "cd ~student && su - student -c 'sh /tmp/command' 2>&1", check=check)


def patience() -> float:
    """How many times as long as on an idle machine something may take now."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def seconds(run: Run) -> list[float]:
    """What each execution of pytorch_environment says of its time, in the order of the environments."""
    return [float(found) for found in re.findall(r'\bseconds"?: ([0-9.]+)', run.stdout)]


def test_a_second_environment_of_the_same_lock_is_made_of_links(node: World) -> None:
    before = int(node.sh("node", f"du -s --block-size=1 {ENVS} | cut -f1"))
    run = node.play(cmdline=TAGS, pytorch_environments=BOTH)
    assert run.rc == 0, run.stdout
    after = int(node.sh("node", f"du -s --block-size=1 {ENVS} | cut -f1"))
    print(f"second environment: {seconds(run)[-1]} s, {after - before} of {before} bytes more")
    assert seconds(run)[-1] <= TWIN_SECONDS * patience()
    assert after - before <= TWIN_SHARE * before
    where = node.sh("node", f"{ENVS}/course/current/bin/python -c 'import torch; print(torch.__file__)'")
    assert where.startswith(f"{ENVS}/course/")
    assert node.sh("node", f"head -1 {ENVS}/course/current/bin/torchrun").startswith(f"#!{ENVS}/course/")
    assert node.play(cmdline=TAGS, pytorch_environments=BOTH).changed("node") == 0


def test_nothing_below_the_prefix_can_be_written_by_users(node: World) -> None:
    assert node.sh("node", "find /opt/gpufleet -xdev ! -type l -perm /022") == ""
    assert "Permission denied" in as_student(node, f"touch {CURRENT}/x", check=False)


def test_everything_is_compiled_already(node: World) -> None:
    count = "import torch, torchvision; print(torch.__version__)"
    as_student(node, f"gpufleet-python -v -c '{count}' 2>&1 | grep -c 'could not create\\|wrote' || true")
    missing = node.sh(
        "node",
        f"cd {CURRENT}/lib/python3*/site-packages && find torch torchvision numpy -name '*.py' | while read f; do "
        'd=$(dirname "$f")/__pycache__/$(basename "$f" .py); ls "$d".cpython-*.pyc >/dev/null 2>&1 || echo "$f"; done',
    )
    assert missing == ""


def test_the_wrapper_works_without_a_login_shell_and_names_what_is_missing(node: World) -> None:
    tell = "import sys, torch; print(torch.__version__, sys.prefix)"
    version, prefix = as_student(node, f'gpufleet-python -c "{tell}"').split()
    assert version.startswith("2.0.1")
    assert prefix == node.sh("node", f"readlink -e {CURRENT}"), "an upgrade would change a job that runs"
    course = as_student(node, f'GPUFLEET_ENVIRONMENT=course gpufleet-python -c "{tell}"').split()[1]
    assert course.startswith(f"{ENVS}/course/")
    said = as_student(node, "GPUFLEET_ENVIRONMENT=nonesuch gpufleet-python -c 1; echo $?", check=False)
    assert said == f"gpufleet-python: there is no environment {ENVS}/nonesuch\n127"


def test_a_users_environment_on_top_sees_torch_and_has_its_own_pip(node: World) -> None:
    said = as_student(
        node,
        f". {CURRENT}/bin/activate && python -m venv --system-site-packages mine && deactivate && . mine/bin/activate\n"
        "pip install -q --disable-pip-version-check colorama==0.4.4 2>&1\n"
        "python -c 'import colorama, torch; print(colorama.__file__, colorama.__version__, torch.__version__, torch.__file__)'\n"
        "pip list --disable-pip-version-check 2>/dev/null | grep -i '^torch '",
    )
    where, version, torch_version, torch_file, *listed = said.split()
    assert (where.split("/lib/")[0], version) == ("/home/student/mine", "0.4.4"), said
    assert torch_version.startswith("2.0.1")
    assert torch_file.startswith(f"{CURRENT}/"), "it follows upgrades"
    assert listed[0] == "torch"


FOREIGN = """
import ctypes, torch
assert torch.backends.cudnn.version()
cudnn = ctypes.CDLL("libcudnn.so.8")
assert cudnn.cudnnOpsInferVersionCheck() == 0 and cudnn.cudnnOpsTrainVersionCheck() == 0
maps = {line.split()[5] for line in open("/proc/self/maps") if len(line.split()) == 6}
print("\\n".join(sorted(each for each in maps if "libcudnn" in each or "libcublas" in each)))
"""


def test_a_foreign_cudnn_and_cublas_on_the_search_path_are_never_loaded(node: World) -> None:
    """Copies of the real libraries in another directory; the process's own memory map says which were taken."""
    site = node.sh("node", f"echo {CURRENT}/lib/python3*/site-packages")
    node.sh(
        "node", f"mkdir -p /srv/foreign; cp {site}/nvidia/cudnn/lib/*.so* {site}/nvidia/cublas/lib/*.so* /srv/foreign"
    )
    node.sh("node", f"cat >/srv/foreign.py <<'END'\n{FOREIGN}\nEND")
    said = as_student(node, "LD_LIBRARY_PATH=/srv/foreign gpufleet-python /srv/foreign.py")
    loaded = said.splitlines()
    assert any("libcudnn_ops_infer" in each for each in loaded), said
    assert any("libcublasLt" in each for each in loaded), said
    assert [each for each in loaded if not each.startswith(f"{ENVS}/default/")] == []
    # Without what we put into the environment the same process takes the foreign ones: the test can fail.
    node.sh("node", f"mv {site}/gpufleet.pth /srv/")
    said = as_student(node, "LD_LIBRARY_PATH=/srv/foreign gpufleet-python /srv/foreign.py")
    node.sh("node", f"mv /srv/gpufleet.pth {site}/")
    assert "/srv/foreign/libcudnn_ops_infer.so.8" in said


def directories(world: World) -> list[str]:
    return sorted(world.sh("node", f"cd {ENVS}/default && find * -maxdepth 0 -type d").split())


def job(world: World) -> str:
    """A job of a user's that works from the environment that is active now; answers its process id."""
    world.sh("node", "rm -f /home/student/pid")
    as_student(
        world,
        'nohup gpufleet-python -c \'import os, torch, time; open("pid", "w").write(str(os.getpid())); time.sleep(9999)\' '
        ">/dev/null 2>&1 &",
    )
    return world.sh("node", "until [ -s /home/student/pid ]; do sleep 0.2; done; cat /home/student/pid")


def test_an_upgrade_leaves_a_running_job_its_environment(node: World) -> None:
    first = node.sh("node", f"readlink {CURRENT}")
    pid = job(node)
    for number, environments in enumerate((UPGRADED, AGAIN)):
        run = node.play(cmdline=TAGS, pytorch_environments=environments)
        assert run.rc == 0, run.stdout
        assert len(directories(node)) == 2 + number
    assert f"in use by python ({pid})" in " ".join(run.stdout.split())
    node.sh("node", f"kill -0 {pid}")
    # The job ends, and the next run that has work to do takes its environment away.
    node.sh("node", f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done")
    run = node.play(cmdline=TAGS, pytorch_environments=AGAIN, gpufleet_environment="modules")
    assert run.rc == 0, run.stdout
    assert len(directories(node)) == 2
    assert first not in directories(node)


@pytest.mark.parametrize("system", STARTS)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_modulefiles_leave_nothing_behind(node: World, system: str, shell: str) -> None:
    other = next(each for each in STARTS if each != system)
    node.sh("node", f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {system} {other}- >/dev/null")
    node.sh("node", f"dpkg --purge {other} 2>/dev/null")
    ask = "python -c 'import sys, torch; print(torch.__version__, sys.prefix)'"
    said = shown(
        node, system, shell, "env", "echo LOADED", "module load pytorch/2.0.1-cu117-course", ask, "module unload pytorch",
        "module load pytorch", ask, "module unload pytorch", "echo UNLOADED", "env",
    )  # fmt: skip
    before, rest = said.split("\nLOADED\n")
    during, after = rest.split("\nUNLOADED\n")
    assert [line.rsplit("/", 1)[0] for line in during.splitlines()] == [
        f"2.0.1+cu117 {ENVS}/course",
        f"2.0.1+cu117 {ENVS}/default",
    ], said
    assert environment(before) == environment(after)


KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="gpufleet-default")
client.execute_interactive("import sys, torch; print(torch.__version__, sys.prefix)", timeout=120)
manager.shutdown_kernel()
"""


def test_jupyter_finds_the_kernel_and_the_kernel_torch(node: World) -> None:
    run = node.play(cmdline=TAGS, pytorch_environments=AGAIN, gpufleet_environment="modules", pytorch_kernels=True)
    assert run.rc == 0, run.stdout
    node.sh("node", f"cat >/srv/kernel.py <<'END'\n{KERNEL}\nEND")
    said = as_student(node, "gpufleet-python /srv/kernel.py")
    assert f"2.0.1+cu117 {node.sh('node', f'readlink -e {CURRENT}')}" in said
    run = node.play(cmdline=TAGS, pytorch_environments=AGAIN, gpufleet_environment="modules")
    assert run.rc == 0, run.stdout
    assert node.sh("node", "ls /usr/local/share/jupyter/kernels 2>/dev/null || true") == ""


def received(world: World) -> int:
    return int(world.sh("node", "cat /sys/class/net/eth0/statistics/rx_bytes"))


def test_going_back_and_forth_downloads_nothing(node: World) -> None:
    newest = node.sh("node", f"readlink {CURRENT}")
    for times in range(2):
        before = received(node)
        run = node.play(playbook="playbooks/rollback.yml", cmdline="-v", gpufleet_rollback="pytorch")
        assert run.rc == 0, run.stdout
        assert received(node) - before < 5_000_000
        assert (node.sh("node", f"readlink {CURRENT}") == newest) == bool(times)
        assert "torch 2.0.1" in run.stdout
    version = node.sh("node", f"{CURRENT}/bin/python -c 'import colorama; print(colorama.__version__)'")
    assert version == "0.4.5"
    # What the receipts say is what is there: the next run has nothing to do.
    again = node.play(cmdline=TAGS, pytorch_environments=AGAIN, gpufleet_environment="modules")
    assert again.changed("node") == 0, again.stdout


def test_the_node_goes_back_in_under_two_seconds(node: World) -> None:
    """Timed on the node: what finds the former environments and what switches to them, as Ansible runs it there."""
    path = node.sh("node", f"readlink -e {CURRENT}")
    former = json.loads(node.sh("node", "cat /var/lib/gpufleet/former/pytorch.json"))
    assert [each["name"] for each in former["stage"]["environments"]] == ["default", "course"]
    assert "index" not in json.dumps(former["stage"])
    node.sh("node", "echo '#!/bin/sh' >/tmp/timed; echo 's=$(date +%s%N)' >>/tmp/timed")
    node.sh("node", "cp /usr/local/bin/counting-python /root/counting-python")
    node.sh(
        "node",
        'printf \'#!/bin/sh\\ns=$(date +%%s%%N); /usr/bin/python3 "$@"; c=$?; echo $(( ($(date +%%s%%N) - s) / 1000000 )) '
        ">>/var/log/milliseconds; exit $c\\n' >/usr/local/bin/counting-python",
    )
    try:
        run = node.play(playbook="playbooks/rollback.yml", gpufleet_rollback="pytorch")
    finally:
        node.sh("node", "cp /root/counting-python /usr/local/bin/counting-python")
    assert run.rc == 0, run.stdout
    assert node.sh("node", f"readlink -e {CURRENT}") != path
    milliseconds = [int(each) for each in node.sh("node", "cat /var/log/milliseconds").split()]
    print(f"module executions of rollback.yml on the node: {milliseconds} ms")
    assert sum(milliseconds[:2]) / 1000 < BACK_SECONDS * patience()


@pytest.mark.parametrize("seed", range(2))
def test_a_build_of_the_real_torch_is_killed(node: World, seed: int) -> None:
    """Our process and uv are killed at a random moment; the run ends with an error and the next one leaves no trace."""
    draw = random.Random(seed)  # noqa: S311 - a moment, no secret
    active = node.sh("node", f"readlink {CURRENT}")
    wish = [{"name": "default", "requirements": [f"colorama==0.4.{3 - seed % 2}"]}, {"name": "course"}]
    node.sh("node", f": >{ENVS}/default/.lock")
    thread, runner = ansible_runner.run_async(**node.settings(cmdline=TAGS, pytorch_environments=wish))
    holder = node.sh("node", f"until [ -s {ENVS}/default/.lock ]; do sleep 0.1; done; cat {ENVS}/default/.lock")
    time.sleep(draw.uniform(0, 40))
    node.sh("node", f"kill -9 {holder} $(pgrep -P {holder})", check=False)
    thread.join(timeout=300)
    assert not thread.is_alive()
    print(f"seed {seed}: {runner.status}, then {directories(node)}")
    now = node.sh("node", f"readlink {CURRENT}")
    assert now == active or runner.rc == 0
    assert as_student(node, "gpufleet-python -c 'import torch; print(torch.__version__)'").startswith("2.0.1")
    run = node.play(cmdline=TAGS, pytorch_environments=wish)
    assert run.rc == 0, run.stdout
    left = node.sh(
        "node", f"find {ENVS} /opt/gpufleet/cache -maxdepth 2 -name '.building-*' -o -maxdepth 2 -name '.tmp*'"
    )
    assert left == ""
    assert node.play(cmdline=TAGS, pytorch_environments=wish).changed("node") == 0


def test_a_node_with_torch_1_13_1_is_upgraded_under_its_job(node: World) -> None:
    """Made by hand where ours belong, and used by a job: it stays, for we do not know it, and the link leads to the new one."""
    by_hand = f"{ENVS}/default/1.13.1-by-hand"
    node.sh("node", f"rm -rf {ENVS}/default; mkdir {ENVS}/default")
    uv = "UV_SYSTEM_CERTS=1 UV_CACHE_DIR=/opt/gpufleet/cache /opt/gpufleet/tools/uv-*/uv"
    node.sh(
        "node",
        f"{uv} venv -q --python /usr/bin/python3 {by_hand}; {uv} pip install -q --python {by_hand}/bin/python torch==1.13.1",
    )
    node.sh("node", f"ln -s 1.13.1-by-hand {CURRENT}")
    pid = job(node)
    run = node.play(cmdline=TAGS, pytorch_environments=BOTH, pytorch_keep=1)
    assert run.rc == 0, run.stdout
    assert as_student(node, "gpufleet-python -c 'import torch; print(torch.__version__)'").startswith("2.0.1")
    assert "1.13.1-by-hand" in directories(node)
    assert f"{by_hand}/bin/python" in node.sh("node", f"cat /proc/{pid}/cmdline")
    assert node.sh("node", f"{by_hand}/bin/python -c 'import torch; print(torch.__version__)'").startswith("1.13.1")
    node.sh("node", f"kill {pid}")


def test_removal_leaves_nothing_of_it(node: World) -> None:
    # What a user and we ourselves made by hand is not the collection's.
    node.sh("node", f"rm -rf {ENVS}/default/1.13.1-by-hand /home/student/mine")
    run = node.play(playbook="playbooks/remove.yml")
    assert run.rc == 0, run.stdout
    # The cache of the test nodes is a mount.
    found = node.sh("node", "find / -xdev '(' -name '*gpufleet*' -o -path '/usr/local/share/jupyter*' ')' -print")
    assert [path for path in found.splitlines() if not path.startswith(("/tmp/", "/var/cache/gpufleet"))] == []
