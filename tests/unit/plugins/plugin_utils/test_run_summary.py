"""What a person reads of verdicts and at the end of a run, and the filters around it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpufleet.stack.plugins.filter.run_summary import run_summary as run_summary_filter
from ansible_collections.gpufleet.stack.plugins.filter.verdict_failures import verdict_failures
from ansible_collections.gpufleet.stack.plugins.plugin_utils.run_summary import run_summary

NO_GPU = "the node has no NVIDIA GPU"


def check(name: str, status: str = "passed", **more: Any) -> dict[str, Any]:
    return {"name": name, "status": status, "measured": None, "expected": None, "seconds": 0.1, "message": "", **more}


def training(loss: float = 3e-4) -> dict[str, Any]:
    return check("mlp_training", measured={"loss_start": 41.53, "loss_end": loss, "steps": 500})


def verdict(*checks: dict[str, Any], digest: str = "abc") -> dict[str, Any]:
    ok = all(one["status"] != "failed" for one in checks)
    environment = {"name": "default", "ok": ok, "checks": list(checks)}
    return {"ok": ok, "host": "n", "plan_digest": digest, "environments": [environment]}


def good(loss: float = 3e-4) -> dict[str, Any]:
    skipped = [check(name, "skipped", message=NO_GPU) for name in ("cuda_available", "gpu_kernel")]
    return verdict(check("torch_version"), training(loss), check("fine_tuning"), *skipped)


def plan(gpus: int = 0, loaded: str | None = None, **more: Any) -> dict[str, Any]:
    environment = {
        "name": "default",
        "torch_version": "2.0.1+cu117",
        "python": "3.11",
        "link": "/opt/gpufleet/envs/default/current",
    }
    stages = {
        "nvidia_driver": {"wanted": gpus > 0, "version": "535", "needed": gpus > 0, "because": "no receipt"},
        "pytorch": {"environments": [environment], "needed": True, "because": "no receipt"},
        "verify": {
            "digest": "abc",
            "gpus": gpus,
            "needed": True,
            "because": "no receipt",
            "gpu_checks": "run" if gpus else "skip",
            "gpu_skip_reason": None if gpus else NO_GPU,
        },
    }
    gpu = {"devices": [{"name": "NVIDIA A100-SXM4-40GB"}] * gpus, "driver": {"loaded_version": loaded}}
    return {"ok": True, "conflicts": [], "stages": stages, "facts": {"gpu": gpu}, **more}


def reboot() -> dict[str, Any]:
    message = "GF-REBOOT-NEEDED: the planned driver is installed, but not loaded yet"
    return verdict(training(), check("cuda_available", "failed", message=message, measured={"count": 0}))


def test_one_node_without_a_gpu() -> None:
    assert run_summary({"localhost": {"plan": plan(), "verdict": good()}}) == [
        "localhost: verified - PyTorch 2.0.1+cu117, Python 3.11, CPU only (no NVIDIA GPU found)",
        "  3 checks passed, 2 skipped (the node has no NVIDIA GPU): cuda_available, gpu_kernel",
        "  training: loss 41.5 -> 0.0003 in 500 steps; fine-tuning ok",
        "  use it: . /opt/gpufleet/envs/default/current/bin/activate",
    ]


def test_nodes_with_the_same_outcome_are_folded() -> None:
    nodes = {f"n{number}": {"plan": plan(), "verdict": good(number * 1e-5)} for number in range(1, 13)}
    lines = run_summary(nodes)
    assert len(lines) == 4
    assert lines[0].startswith("n[1-12] (12 nodes): verified")
    assert lines[2] == "  training: loss 41.5 -> at most 0.00012 in 500 steps; fine-tuning ok"


def test_what_is_wrong_comes_first_and_names_every_node() -> None:
    bad = verdict(
        training(),
        check("torch_version", "failed", measured="1.13.1", expected="2.0.1", message="torch is 1.13.1, not 2.0.1"),
    )
    nodes: dict[str, Any] = {f"n{number}": {"plan": plan(), "verdict": bad} for number in range(1, 13)}
    nodes["a0"] = {"plan": plan(), "verdict": good()}
    lines = run_summary(nodes)
    assert lines[0].startswith("n[1-12] (12 nodes): NOT verified - PyTorch")
    assert lines[1] == "  default/torch_version: torch is 1.13.1, not 2.0.1"
    assert lines[2] == "  1 check passed, 1 failed"
    assert lines[3].startswith("a0: verified")


def test_reboot() -> None:
    nodes = {
        "n1": {"plan": plan(gpus=4), "verdict": reboot()},
        "n2": {"plan": plan(gpus=4), "verdict": reboot()},
        "n3": {"plan": plan(gpus=1, loaded="535.1"), "verdict": verdict(training(), check("fine_tuning"))},
        "n4": {"plan": plan(gpus=1), "verdict": verdict(training(), check("fine_tuning"))},
    }
    lines = run_summary(nodes)
    assert lines[0] == "n[1-2]: installed, not verified - PyTorch 2.0.1+cu117, Python 3.11, 4 x NVIDIA A100-SXM4-40GB"
    assert lines[2].startswith("n[3-4]: verified - PyTorch 2.0.1+cu117, Python 3.11, 1 x NVIDIA A100")
    assert lines[-1] == "reboot needed on: n[1-2] (driver 535 installed, not loaded)"
    assert sum(1 for line in lines if line.startswith("reboot")) == 1


def test_nodes_the_run_did_not_get_to() -> None:
    conflict = {"code": "GF-PLAN-TORCH", "message": "there is no torch 9", "because": [], "fixes": []}
    nodes = {
        "down": {"plan": None, "verdict": None},
        "stopped": {"plan": plan(), "verdict": None},
        "old": {"plan": plan(), "verdict": verdict(training(), digest="former")},
    }
    assert [line.split(" - ")[0] for line in run_summary(nodes)] == [
        "down: nothing is known",
        "old: not verified",
        "stopped: not verified",
    ]
    nodes["odd"] = {"plan": plan(ok=False, stages={}, conflicts=[conflict]), "verdict": good()}
    assert run_summary(nodes) == [
        "odd: nothing was changed - what was asked for can't be had",
        "  GF-PLAN-TORCH: there is no torch 9",
        "down: nothing is known - the run did not get as far as a plan for it (see its error above)",
        "old, stopped: nothing was changed - the run stopped, since other nodes cannot be planned",
    ]


def test_dry_run() -> None:
    lines = run_summary({"n1": {"plan": plan(), "verdict": None}}, check_mode=True)
    assert lines[0].startswith("n1: dry run, nothing was changed - a real run would make it PyTorch 2.0.1+cu117")
    assert "  pytorch: no receipt" in lines
    done = plan()
    for stage in done["stages"].values():
        stage["needed"] = False
    assert run_summary({"n1": {"plan": done, "verdict": good()}}, check_mode=True)[0].startswith(
        "n1: dry run - nothing to do; it has PyTorch"
    )


def test_failures_say_what_why_and_what_mends() -> None:
    bad = verdict(
        check("torch_version", "failed", measured="1.13.1", expected="2.0.1", message="torch is 1.13.1, not 2.0.1"),
        check("gpu_kernel:1", "failed", measured={"errors": [1] * 99}, message="matmul is off by 0.5"),
        check("tensor"),
    )
    lines = verdict_failures(bad, host="n1")
    assert lines[:2] == [
        "GF-VERIFY-FAILED: 2 checks failed on n1",
        "  default/torch_version: torch is 1.13.1, not 2.0.1",
    ]
    assert lines[2].startswith('  default/gpu_kernel:1: matmul is off by 0.5 (measured {"errors": [1, ')
    assert len(lines[2]) < 200
    assert [line[:9] for line in lines[3:]] == ["  cause: ", "  mend:  "] * 2


def test_failures_of_a_pending_reboot() -> None:
    lines = verdict_failures(reboot())
    assert lines[0] == "GF-REBOOT-NEEDED: n must be rebooted before its GPUs can be verified"
    assert lines[-1] == "  mend:  reboot n, run again"


def test_no_failures() -> None:
    assert verdict_failures(good()) == []


@pytest.mark.parametrize("value", [None, "text", [], {}, {"environments": None}])
def test_verdict_failures_wants_a_verdict(value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet.stack.verdict_failures: this is no verdict"):
        verdict_failures(value)


def test_verdicts_of_both_schemas_are_read() -> None:
    first = {**good(), "schema": 1, "at": "2026-03-02T10:11:12Z", "seconds": 1.0}
    figure = {
        "environment": "default",
        "metric": "cpu_matmul",
        "unit": "GFLOP/s",
        "better": "higher",
        "device": None,
        "value": 80,
    }
    second = {
        **first,
        "schema": 2,
        "level": "health",
        "user": "root",
        "driver": None,
        "gpus": 0,
        "performance": [figure],
        "history": [],
    }
    assert run_summary({"n": {"plan": plan(), "verdict": first}}) == run_summary(
        {"n": {"plan": plan(), "verdict": second}}
    )
    assert verdict_failures({**reboot(), "schema": 2, "level": "quick"}) == verdict_failures({**reboot(), "schema": 1})


def test_verdict_failures_wants_a_name() -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet.stack.verdict_failures: host must be text"):
        verdict_failures(good(), host=3)


@pytest.mark.parametrize(
    ("hosts", "variables"),
    [(None, {}), ("n1", {}), (["n1"], None), (["n1"], {"n1": {"gpufleet_plan": "x"}})],
)
def test_run_summary_wants_nodes_and_their_variables(hosts: Any, variables: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"gpufleet.stack.run_summary: "):
        run_summary_filter(hosts, variables)


def test_run_summary_wants_a_boolean() -> None:
    with pytest.raises(AnsibleFilterError, match="check_mode"):
        run_summary_filter([], {}, check_mode="yes")


def test_run_summary_reads_what_the_roles_set() -> None:
    variables = {"n1": {"gpufleet_plan": plan(), "gpufleet_verdict": good()}, "n2": {}}
    lines = run_summary_filter(["n1", "n2"], variables)
    assert lines == run_summary({"n1": {"plan": plan(), "verdict": good()}, "n2": {}})
    assert lines[0].startswith("n2: nothing is known")


def test_run_summary_tells_the_judgement_after_the_nodes() -> None:
    rule = {"name": "ecc", "expression": "x", "severity": "warning", "advice": "", "hosts_failing": ["n1"], "why": {}}
    judgement = {"outliers": [], "too_few": [], "rules": [rule], "failing": {}}
    variables = {
        "n1": {"gpufleet_plan": plan(gpus=1), "gpufleet_verdict": reboot(), "gpufleet_judgement": judgement},
        "n2": {},
    }
    lines = run_summary_filter(["n2", "n1"], variables)
    assert lines[-2:] == [
        "n1: rule ecc does not hold (warning)",
        "reboot needed on: n1 (driver 535 installed, not loaded)",
    ]


def test_many_skipped_checks_are_counted_not_listed() -> None:
    names = ("gpu_device", "gpu_kernel", "gpu_precision", "gpu_training", "gpu_compile")
    skipped = verdict(*(check(name, "skipped", message=NO_GPU) for name in names))
    line = run_summary({"localhost": {"plan": plan(), "verdict": skipped}})[1]
    assert line == f"  0 checks passed, 5 skipped ({NO_GPU}): gpu_device, gpu_kernel, gpu_precision and 2 more"
