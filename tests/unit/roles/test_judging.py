"""The end of a run as Ansible plays it: judged on the controller without contacting a node, told, and accepted or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpufleet.stack.plugins.action import fleet_report
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache

from tests.unit.plugins.plugin_utils.judging import figure, measured, node, recorded, seeded, with_rules
from tests.unit.roles.test_plan_playbook import NOWHERE, Site, probe

ROOT = Path(__file__).parents[3]
# Nothing answers there: a module that ran on a node would make it unreachable.
NOBODY = {"ansible_host": "192.0.2.1", "ansible_ssh_common_args": "-o ConnectTimeout=1"}
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.fail: {msg: "broken by the test"}
      when: broken | default(false)
    - ansible.builtin.import_role: {name: gpufleet.stack.verify, tasks_from: judge}
    - ansible.builtin.debug:
        msg: "{{ gpufleet_judgement | to_json }}"
      when: show | default(false)
    - ansible.builtin.import_role: {name: gpufleet.stack.verify, tasks_from: accept}
    - ansible.builtin.debug: {msg: "accepted-{{ inventory_hostname }}"}
"""


def play(tmp_path: Path, hosts: dict[str, Any], *options: str) -> tuple[int, str]:
    (tmp_path / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(tmp_path / "hosts.yml")]
    answer = subprocess.run(
        [*command, str(tmp_path / "play.yml"), *options],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.returncode, answer.stdout + answer.stderr


def host(there: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**NOBODY, "gpufleet_plan": there["plan"], "gpufleet_verdict": there["verdict"], **more}


def fleet() -> dict[str, dict[str, Any]]:
    noise, facts = seeded(1), recorded("debian12-a100")
    there = {f"n{number}": node(facts, *measured(noise, spread=0.01)) for number in range(1, 9)}
    there["n7"] = node(facts, *measured(noise, slower=0.6))
    rule = {"name": "fast", "expression": "!(verdict.performance[?metric == 'gpu_gemm_bf16' && value < `150`])"}
    return {name: with_rules(each, rule) for name, each in there.items()}


def test_a_fleet_is_judged_without_a_connection_and_only_the_nodes_concerned_fail(tmp_path: Path) -> None:
    """n7 is slow, for which it is warned, and breaks a rule; n8 is slow, and its group wants that to fail."""
    there = fleet()
    there["n8"]["verdict"]["performance"] = there["n7"]["verdict"]["performance"]
    there["n8"]["plan"]["judging"] = {"rules": [], "outliers": "fail", "look_again": False}
    hosts = {name: host(each) for name, each in there.items()}
    hosts["n1"]["show"] = hosts["n8"]["show"] = True
    code, output = play(tmp_path, hosts)
    assert code == 2, output
    assert "GF-RULE-FAILED: the rule fast does not hold on n7" in output
    assert "GF-VERIFY-OUTLIER: n7" not in output
    assert "GF-VERIFY-OUTLIER: n8 is slow: " in output
    assert [f"accepted-{name}" in output for name in ("n1", "n7", "n8")] == [True, False, False]
    assert "unreachable=1" not in output
    # Every node knows the judgement about all.
    assert output.count('"hosts_failing": ["n7"]') == 2


def test_a_dry_run_fails_nobody(tmp_path: Path) -> None:
    code, output = play(tmp_path, {name: host(each) for name, each in fleet().items()}, "--check")
    assert code == 0, output
    assert "accepted-n7" in output


def test_a_node_that_failed_before_is_still_an_equal_and_is_asked(tmp_path: Path) -> None:
    hosts = {name: host(each, broken=name == "n7") for name, each in fleet().items()}
    hosts["n2"]["show"] = True
    # These two did not get as far as a verdict, or a plan.
    hosts["n8"]["gpufleet_verdict"] = None
    hosts["n9"] = {**NOBODY, "gpufleet_plan": {"ok": False, "judging": {"look_again": False}}}
    code, output = play(tmp_path, hosts)
    assert code == 2
    # Ansible breaks the line.
    text = " ".join(output[output.index('{"outliers"') :].split()).replace("''", "'")
    shown, _end = json.JSONDecoder().raw_decode(text)
    assert {row["host"] for row in shown["outliers"]} == {"n7"}
    assert shown["rules"][0]["hosts"] == [f"n{number}" for number in range(1, 8)]
    assert [f"accepted-{name}" in output for name in ("n1", "n7", "n9")] == [True, False, True]


def test_a_node_that_the_run_changed_is_looked_at_again_before_its_rules_are_asked(tmp_path: Path) -> None:
    facts = recorded("debian12-none")
    facts["node"].update(distribution="Nowhere", managed=["pytorch"])
    there = with_rules(
        node(facts, figure("cpu_matmul", 900.0, None)),
        {"name": "known", "expression": "node.distribution != 'Nowhere' && node.managed[0] == 'pytorch'"},
    )
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    local["gpufleet_prefix"] = str(tmp_path / "opt")
    code, output = play(tmp_path, {"n1": host(there, **local)})
    assert code == 2, output
    assert "GF-RULE-FAILED: the rule known does not hold on n1" in output
    there["plan"]["judging"]["look_again"] = True
    code, output = play(tmp_path, {"n1": host(there, **local)})
    assert code == 0, output


def test_a_report_without_a_run_judges_by_the_kept_verdicts() -> None:
    hosts = {name: {"gpufleet_plan": {**each["plan"], "verdict": each["verdict"]}} for name, each in fleet().items()}
    variables = {
        "hostvars": hosts,
        "ansible_play_hosts": list(hosts),
        "ansible_play_hosts_all": list(hosts),
        "groups": {"all": list(hosts)},
    }
    arguments = {"facts": "live", "finished": False, "title": ""}
    given = fleet_report._given(arguments, variables, None)
    assert {outlier["host"] for outlier in given["judgement"]["outliers"]} == {"n7"}
    assert given["judgement"]["rules"][0]["hosts_failing"] == ["n7"]
    of_the_run = {"outliers": [], "rules": [], "too_few": [], "failing": {}}
    hosts["n1"]["gpufleet_judgement"] = of_the_run
    assert fleet_report._given(arguments, variables, None)["judgement"] == of_the_run


def test_rules_that_cannot_be_meant_stop_a_run_before_any_node_is_touched(tmp_path: Path) -> None:
    site = Site(tmp_path)
    wrong = {
        "syntax": [{"name": "r", "expression": "gpu.count > 0"}],
        "severity": [{"name": "r", "expression": "gpu.present", "severity": "fatal"}],
        "twice": [{"name": "r", "expression": "gpu.present"}] * 2,
        "name": [{"name": "r", "expression": "gpu.presnt"}],
        "list": [{"name": "r", "expression": "gpu.devices[]"}],
    }
    for name in (*wrong, "good"):
        facts_cache.keep(str(site.facts), name, probe())
    hosts = {name: {**NOWHERE, "verify_rules": asked} for name, asked in wrong.items()}
    hosts["good"] = {**NOWHERE, "verify_rules": [{"name": "r", "expression": "verdict.ok", "severity": "info"}]}
    facts_cache.keep(str(site.facts), "outliers", probe())
    code, output = site.play({**hosts, "outliers": {**NOWHERE, "verify_outliers": "perhaps"}})
    assert code == 2, output
    assert "is present meant?" in output
    assert {
        name: each["conflicts"] for name, each in json.loads(site.json.read_text(encoding="utf-8"))["nodes"].items()
    } == {
        "syntax": ["GF-RULE-SYNTAX"],
        "severity": ["GF-RULE-SEVERITY"],
        "twice": ["GF-RULE-DUPLICATE"],
        "name": ["GF-RULE-NAME"],
        "list": ["GF-RULE-NOT-BOOLEAN"],
        "outliers": ["GF-WISH-INVALID"],
        "good": [],
    }
