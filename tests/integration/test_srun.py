"""Verify where Slurm gives away the node: as a job, as a user, as Slurm's health check. Slurm is Debian's own, on one node.

Most of it runs a stand-in for an environment's Python, which answers what a test has it answer; one test has a real torch.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Run, World, fresh

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]
PREFIX = "/opt/standin"
COMMAND = f"{PREFIX}/bin/gpufleet-verify"
VERDICT = "/var/lib/gpufleet/verdict.json"
COUNT = "/var/log/module-executions"
HEALTH_SECONDS = 5
SLURM = """\
ClusterName=test
SlurmctldHost=node
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SlurmUser=root
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldLogFile=/var/log/slurm/slurmctld.log
KillWait=5
NodeName=node CPUs=2 RealMemory=1000
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
"""
# As docs/verify.md has it.
HEALTH = f"HealthCheckProgram=/etc/slurm/health-check\nHealthCheckInterval={HEALTH_SECONDS}\nHealthCheckNodeState=ANY\n"
HEALTH_CHECK = f"#!/bin/sh\nexec {COMMAND} --drain --timeout 15\n"
PROLOG_CHECK = f"#!/bin/sh\n{COMMAND} --timeout 15\n[ $? -ne 1 ]\n"
# Stands in for an environment's Python and the check script in one: it takes its time, and says who it is.
STAND_IN = """\
#!/usr/bin/python3
import json, os, sys, time
if sys.argv[1:2] == ['-I']:
    os.execv('/usr/bin/python3', ['python3', *sys.argv[1:]])
time.sleep(float(open('/opt/standin/seconds').read()))
status = open('/opt/standin/status').read().strip()
who = {'job': os.environ.get('SLURM_JOB_ID'), 'uid': os.getuid(), 'groups': os.getgroups(), 'home': os.environ['HOME']}
who['reads'] = json.load(open(sys.argv[sys.argv.index('--expect') + 1]))['torch_version']
check = dict(name='tensor', status=status, measured=who, expected=1, seconds=0, message='' if status == 'passed' else 'is wrong')
print(json.dumps({'checks': [check], 'level': sys.argv[sys.argv.index('--level') + 1]}))
sys.exit(int(status == 'failed'))
"""
PLAYBOOK = """\
- hosts: node
  gather_facts: false
  tasks:
    - name: Verify by a plan of the test's own
      ansible.builtin.include_role:
        name: gpufleet.stack.verify
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with fresh("srun", tmp_path_factory.mktemp("srun"), node_packages=PACKAGES) as world:
        write(world, "/etc/slurm/slurm.conf", SLURM)
        write(world, f"{PREFIX}/envs/standin/current/bin/python", STAND_IN, "755")
        world.sh("node", "id alice || useradd -m -G video alice")
        world.sh("node", "mkdir -p /var/lib/slurm/slurmctld /var/lib/slurm/slurmd /var/log/slurm")
        world.sh("node", "systemctl restart munge slurmctld slurmd")
        until(world, "sinfo --noheader --format=%t", "idle")
        answers(world)
        yield world


def write(world: World, path: str, content: str, mode: str = "644") -> None:
    world.sh("node", f"mkdir -p $(dirname {path}); cat >{path} <<'END'\n{content}\nEND\nchmod {mode} {path}")


def answers(world: World, status: str = "passed", seconds: float = 0) -> None:
    world.sh("node", f"echo {status} >{PREFIX}/status; echo {seconds} >{PREFIX}/seconds")


def until(world: World, command: str, wanted: str, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = world.sh("node", command, check=False)
        if wanted in found:
            return found
        time.sleep(0.5)
    pytest.fail(f"{command}: {found!r}, expected {wanted!r}")


def verify(world: World, stage: dict[str, Any] | None = None, **variables: Any) -> Run:
    """The role with a plan of one stand-in environment."""
    playbook = world.work / "verify.yml"
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    environment = {
        "name": "standin",
        "interpreter": f"{PREFIX}/envs/standin/current/bin/python",
        "torch_version": "2.0.1",
        **dict.fromkeys(("cuda", "cudnn", "torchvision", "torchaudio")),
    }
    planned = {
        "needed": True,
        "digest": "abc",
        "environments": [environment],
        "gpus": 0,
        "compute_capabilities": [],
        "devices": [],
        "toolkit": None,
        "gpu_checks": "skip",
        "gpu_skip_reason": "the test's node has no GPU",
        "driver_pending": False,
        "seed": 0,
        "level": "quick",
        "max_age": 0,
        "busy": False,
        "user": "",
        "prometheus_dir": "",
        "launcher": "srun",
        **(stage or {}),
    }
    plan = {"ok": True, "stages": {"verify": planned}, "verdict": None}
    return world.play(playbook=str(playbook), gpufleet_plan=plan, gpufleet_prefix=PREFIX, **variables)


def verdict(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.sh("node", f"cat {VERDICT}"))
    return found


def measured(world: World) -> dict[str, Any]:
    found: dict[str, Any] = verdict(world)["environments"][0]["checks"][0]["measured"]
    return found


def queue(world: World) -> str:
    return world.sh("node", "squeue --noheader --format='%i %j %T'")


def test_the_checks_are_a_job_of_the_user(node: World) -> None:
    run = verify(node, {"user": "alice"}, verify_srun_partition="main", verify_srun_options=["--comment=test"])
    assert run.rc == 0, run.stdout
    found, who = verdict(node), measured(node)
    assert (found["ok"], found["user"], who["reads"]) == (True, "alice", "2.0.1")
    assert who["job"] and str(who["uid"]) == node.sh("node", "id -u alice")
    assert sorted(map(str, who["groups"])) == sorted(node.sh("node", "id -G alice").split())
    assert who["home"].startswith("/var/lib/gpufleet/gpufleet-verify-")
    # Neither its directory nor a job is left.
    assert node.sh("node", "ls -d /var/lib/gpufleet/gpufleet-verify-*", check=False).split() == []
    assert queue(node) == ""


def test_as_a_user_without_slurm(node: World) -> None:
    run = verify(node, {"user": "alice", "launcher": "direct"})
    assert run.rc == 0, run.stdout
    assert measured(node)["job"] is None and str(measured(node)["uid"]) == node.sh("node", "id -u alice")
    run = verify(node, {"user": "nobody-knows"})
    assert run.rc != 0 and "GF-VERIFY-USER" in run.stdout


def refused(node: World, code: str, stage: dict[str, Any] | None = None, **variables: Any) -> str:
    before = node.sh("node", f"sha256sum {VERDICT}")
    run = verify(node, stage, **variables)
    assert run.rc != 0 and code in run.stdout
    assert node.sh("node", f"sha256sum {VERDICT}") == before
    return run.stdout


def test_what_slurm_refuses(node: World) -> None:
    said = refused(node, "GF-VERIFY-SRUN-REFUSED", verify_srun_partition="none")
    assert "Invalid partition name specified" in said
    refused(node, "GF-VERIFY-SRUN-REFUSED", verify_srun_gres="gpu:8")
    node.sh("node", "mv /usr/bin/srun /usr/bin/srun.away")
    try:
        refused(node, "GF-VERIFY-SRUN-MISSING")
    finally:
        node.sh("node", "mv /usr/bin/srun.away /usr/bin/srun")


def test_a_job_that_waits_for_ever(node: World) -> None:
    node.sh("node", "systemd-run --unit=job srun --ntasks=2 --job-name=users sleep 3000")
    until(node, "squeue --noheader --format='%j %T'", "users RUNNING")
    try:
        started = time.monotonic()
        refused(node, "GF-VERIFY-SRUN-PENDING", {"user": "alice"}, verify_srun_wait=5)
        print(f"given up after {time.monotonic() - started:.1f} s, the play included")
        assert time.monotonic() - started < 90
        # Nobody else's job went with it.
        assert queue(node).split()[1:] == ["users", "RUNNING"]
    finally:
        node.sh("node", "scancel --name=users")
        until(node, "squeue --noheader --format=%j | wc -l", "0")


def test_a_job_that_hangs(node: World) -> None:
    answers(node, seconds=3000)
    try:
        started = time.monotonic()
        run = verify(node, {"user": "alice"}, verify_timeout=3)
        assert time.monotonic() - started < 120
        assert run.rc != 0 and "GF-VERIFY-TIMEOUT" in run.stdout
        assert queue(node) == ""
        assert node.sh("node", "pgrep -u alice || true") == ""
    finally:
        answers(node)


def test_a_gpu_that_somebody_uses(node: World) -> None:
    """The device is a stand-in, its user is real; a container's root may not look at the open files of other users."""
    gpu = {"gpus": 1, "gpu_checks": "run"}
    node.sh("node", "touch /dev/nvidia0; chmod 666 /dev/nvidia0")
    node.sh("node", "systemd-run --unit=holder sh -c 'exec sleep 3000 </dev/nvidia0'")
    try:
        said = refused(node, "GF-VERIFY-BUSY", {**gpu, "launcher": "direct"})
        assert "sleep (" in said and "of root on /dev/nvidia0" in said
        assert verify(node, {**gpu, "launcher": "direct", "busy": True}).rc == 0
        assert "uses a GPU" in node.sh("node", f"{COMMAND} --run", check=False)
        assert "passed just now" in node.sh("node", f"{COMMAND} --run --busy")
        # Slurm knows better whose GPUs they are, and is asked for one; this one has none to give.
        refused(node, "GF-VERIFY-SRUN-REFUSED", gpu)
        assert verify(node, gpu, verify_srun_gres="").rc == 0
        assert node.sh("node", "systemctl is-active holder") == "active"
    finally:
        node.sh("node", "systemctl stop holder; rm -f /dev/nvidia0")


def test_slurms_health_check_drains_a_node_that_failed(node: World) -> None:
    assert verify(node).rc == 0
    write(node, "/etc/slurm/health-check", HEALTH_CHECK, "755")
    node.sh("node", f"printf '{HEALTH}' >> /etc/slurm/slurm.conf; scontrol reconfigure")
    assert node.sh("node", f"{COMMAND}").startswith("gpufleet-verify: proved: 0 hours ago")
    time.sleep(2 * HEALTH_SECONDS)
    assert node.sh("node", "sinfo --noheader --format=%t") == "idle"
    answers(node, "failed")
    assert verify(node, {"launcher": "direct"}).rc != 0
    until(node, "sinfo --noheader --format=%t", "drain")
    assert "gpufleet-verify: standin/tensor: is wrong" in node.sh("node", "scontrol show node node")
    # What is not known drains nothing, and a node that was mended is put back by a person.
    answers(node)
    assert verify(node, {"launcher": "direct"}).rc == 0
    node.sh("node", f"mv {VERDICT} /root/kept; scontrol update NodeName=node State=RESUME")
    assert "there is no verdict" in node.sh("node", COMMAND, check=False)
    time.sleep(2 * HEALTH_SECONDS)
    assert node.sh("node", "sinfo --noheader --format=%t") == "idle"
    node.sh("node", f"mv /root/kept {VERDICT}")


def test_slurms_prolog_keeps_jobs_from_a_node_that_failed(node: World) -> None:
    without = "sed -i '/^HealthCheck/d' /etc/slurm/slurm.conf"
    write(node, "/etc/slurm/prolog", PROLOG_CHECK, "755")
    node.sh("node", f"{without}; echo Prolog=/etc/slurm/prolog >> /etc/slurm/slurm.conf; scontrol reconfigure")
    assert node.sh("node", "srun hostname") == "node"
    node.sh("node", f"mv {VERDICT} /root/kept")
    assert node.sh("node", "srun hostname") == "node"
    node.sh("node", f"mv /root/kept {VERDICT}")
    answers(node, "failed")
    assert verify(node, {"launcher": "direct"}).rc != 0
    answers(node)
    node.sh("node", "systemd-run --unit=prolog srun --job-name=users hostname")
    until(node, "sinfo --noheader --format=%t", "drain")
    node.sh("node", "scancel --name=users; sed -i '/^Prolog=/d' /etc/slurm/slurm.conf; scontrol reconfigure")
    node.sh("node", "scontrol update NodeName=node State=RESUME")
    until(node, "squeue --noheader --format=%j | wc -l", "0")
    assert verify(node, {"launcher": "direct"}).rc == 0


def test_the_quick_checks_on_demand(node: World) -> None:
    assert verify(node, {"user": "alice", "launcher": "direct"}).rc == 0
    assert "1 quick checks passed just now" in node.sh("node", f"{COMMAND} --run")
    assert "proved" in node.sh("node", f"su alice -c '{COMMAND} --run'")
    answers(node, seconds=3000)
    started = time.monotonic()
    assert "took longer" in node.sh("node", f"{COMMAND} --run", check=False)
    assert time.monotonic() - started < 25
    assert node.sh("node", "pgrep -u alice || true") == ""
    answers(node)


def test_a_real_torch_as_a_users_job(node: World) -> None:
    wishes = {"verify_user": "alice", "verify_launcher": "srun", "verify_srun_options": ["--cpus-per-task=2"]}
    wishes["verify_prometheus_dir"] = "/var/lib/prometheus/node-exporter"
    run = node.play(**wishes)
    assert run.rc == 0, run.stdout
    found = verdict(node)
    assert (found["ok"], found["user"], found["level"]) == (True, "alice", "quick")
    print(f"the checks of a real torch took {found['seconds']} s as a job")
    # The environment is the same as before, and nothing of it is the user's.
    assert node.sh("node", "find /opt/gpufleet -user alice") == ""
    assert node.sh("node", "find / -xdev -user alice -newer /etc/slurm/slurm.conf -type f -path '*/.*cache*'") == ""
    node.sh("node", f"rm -f {COUNT}")
    again = node.play(**wishes)
    assert (again.rc, again.changed("node"), node.sh("node", f"wc -l < {COUNT}")) == (0, 0, "1"), again.stdout
    assert "gpufleet_verdict_ok" in node.sh("node", "cat /var/lib/prometheus/node-exporter/gpufleet.prom")
    # Too old: verified again, and only that.
    assert node.play(verify_max_age=0.00001, **wishes).rc == 0
    assert [former["ok"] for former in verdict(node)["history"]][-1:] == [True]
    started = time.monotonic()
    assert "proved" in node.sh("node", "/opt/gpufleet/bin/gpufleet-verify --max-age 24")
    print(f"gpufleet-verify answered within {time.monotonic() - started:.2f} s, podman included")
    assert "passed just now" in node.sh("node", "/opt/gpufleet/bin/gpufleet-verify --run --timeout 120")


def test_the_program_goes_with_the_proof(node: World) -> None:
    run = node.play(playbook="playbooks/remove.yml", gpufleet_remove=["verify"])
    assert run.rc == 0, run.stdout
    for gone in (
        "/opt/gpufleet/bin",
        "/opt/gpufleet/libexec",
        VERDICT,
        "/var/lib/gpufleet/verdicts",
        "/var/lib/gpufleet/gpufleet-verify.json",
        "/var/lib/prometheus/node-exporter/gpufleet.prom",
    ):
        assert node.sh("node", f"test ! -e {gone} && echo gone", check=False) == "gone", gone
