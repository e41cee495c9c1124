"""playbooks/report.yml and the end of a run as a person starts them, with no network and no node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache

from tests.report import fleets

from .test_plan_playbook import NOWHERE, probe

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/schemas/report.schema.json").read_text(encoding="utf-8"))
END = ROOT / "playbooks/site.yml"


class Site:
    """An inventory with kept facts, and a directory for the report."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.facts = directory / "facts"
        self.report = directory / "report"

    def play(
        self, hosts: dict[str, Any], *options: str, playbook: Path = ROOT / "playbooks/report.yml", **given: Any
    ) -> tuple[int, str]:
        inventory = self.directory / "physics/hosts.yml"
        inventory.parent.mkdir(exist_ok=True)
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
        given = {
            "gpufleet_facts": "cached",
            "gpufleet_facts_directory": str(self.facts),
            "gpufleet_lock_directory": str(self.directory / "locks"),
            "gpufleet_report_dir": str(self.report),
            **given,
        }
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "local"),
            "ANSIBLE_SHOW_CUSTOM_STATS": "1",
            "UV_HTTP_RETRIES": "0",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(playbook)]
        command += ["-e", json.dumps(given), *options]
        answer = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False
        )
        return answer.returncode, answer.stdout + answer.stderr

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.report / "report.json").read_text(encoding="utf-8"))
        jsonschema.validate(document, SCHEMA)
        return document


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_kept_facts_are_reported_without_contacting_a_node(site: Site) -> None:
    facts_cache.keep(str(site.facts), "n1", probe())
    code, output = site.play({"n1": NOWHERE, "n2": NOWHERE})
    assert code == 0, output
    assert f"report: {site.report}/report.html" in output
    document = site.document()
    assert document["title"] == "physics"
    assert {host: row["state"] for host, row in document["nodes"].items()} == {"n1": "unverified", "n2": "lost"}
    assert "GF-FACTS-MISSING" in document["nodes"]["n2"]["problems"][0]["details"][0]
    assert sorted(path.name for path in site.report.iterdir()) == [
        "report.csv",
        "report.html",
        "report.json",
        "report.md",
    ]


def test_a_second_report_tells_what_changed_and_keeps_nodes_that_were_left_out(site: Site) -> None:
    for host in ("n1", "n2"):
        facts_cache.keep(str(site.facts), host, probe())
    hosts = {"n1": NOWHERE, "n2": NOWHERE}
    assert site.play(hosts)[0] == 0
    changed = probe()
    changed["gpu"] = {**changed["gpu"], "driver": {**changed["gpu"]["driver"], "installed_version": "535.1"}}
    facts_cache.keep(str(site.facts), "n1", changed)
    code, output = site.play(hosts, "--limit", "n1")
    assert code == 0, output
    document = site.document()
    assert [(group["names"], group["part"], group["to"]) for group in document["drift"]["changed"]] == [
        ("n1", "driver", "535.1")
    ]
    assert document["nodes"]["n2"]["carried"] is True
    assert "1 changed or drifted" in output


def test_a_report_that_cannot_be_written_is_an_error_here(site: Site) -> None:
    site.report.write_text("a file")
    code, output = site.play({"n1": NOWHERE})
    assert code == 2, output
    assert "GF-REPORT-UNWRITABLE" in output
    assert "mend:" in output


def after_a_run(site: Site, nodes: dict[str, Any], **given: Any) -> tuple[int, str]:
    """The end of site.yml as it stands there, with plans and verdicts that the run's roles would have left."""
    end = yaml.safe_load(END.read_text(encoding="utf-8"))[0]
    # The judge between them has tests of its own.
    tasks = [task for task in end["tasks"][0]["always"] if task["name"] in ("Write the report", "Sum up")]
    assert len(tasks) == 2
    play = {"hosts": "all", "gather_facts": False, "connection": "local", "tasks": tasks}
    playbook = site.directory / "end.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
    hosts = {}
    for host, node in nodes.items():
        hosts[host] = {"gpufleet_plan": node["plan"], "gpufleet_verdict": node["verdict"]}
    return site.play(hosts, playbook=playbook, **given)


def test_the_end_of_a_run_reports_what_it_knows(site: Site) -> None:
    given = fleets.fleet(30)
    nodes = {host: node for host, node in given["nodes"].items() if node["plan"] and node["plan"]["ok"]}
    code, output = after_a_run(site, nodes)
    assert code == 0, output
    assert f"report: {site.report}/report.html" in output
    assert "gpufleet_report" in output.rpartition("CUSTOM STATS")[2]
    document = site.document()
    assert document["summary"]["nodes"] == len(nodes)
    assert document["nodes"]["n7"]["state"] == "failed"
    assert document["nodes"]["n1"]["state"] == "verified"


def test_a_run_does_not_fail_for_its_report(site: Site) -> None:
    node = fleets.fleet(4)["nodes"]["n1"]
    site.report.write_text("a file")
    code, output = after_a_run(site, {"n1": node})
    assert code == 0, output
    assert "GF-REPORT-UNWRITABLE" in output
    site.report.unlink()
    del node["plan"]["facts"]["node"]["version"]
    node["plan"]["stages"]["verify"]["digest"] = "another"
    code, output = after_a_run(site, {"n1": node})
    assert code == 0, output
    assert "GF-REPORT-FAILED" in output


@pytest.mark.parametrize(("given", "options"), [({"gpufleet_report_dir": "none"}, ()), ({}, ("--check",))])
def test_none_and_a_dry_run_write_nothing(site: Site, given: dict[str, Any], options: tuple[str, ...]) -> None:
    code, output = site.play({"n1": NOWHERE}, *options, **given)
    assert code == 0, output
    assert not site.report.exists()
    assert not (site.directory / "none").exists()


def test_a_look_at_this_machine_and_a_node_that_does_not_answer(site: Site) -> None:
    here = {
        **NOWHERE,
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "gpufleet_gpu_sysroot": str(ROOT / "tests/fixtures/nodes/h100-x8-nvswitch"),
        "gpufleet_prefix": str(site.directory / "prefix"),
    }
    gone = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    code, output = site.play({"gone": gone, "here": here}, gpufleet_facts="live")
    assert code == 4, output
    nodes = site.document()["nodes"]
    assert (nodes["gone"]["state"], nodes["gone"]["problems"][0]["code"]) == ("lost", "GF-REPORT-LOST")
    assert nodes["here"]["state"] in ("unverified", "refused")
    assert nodes["here"]["gpu"] == "8 × NVIDIA H100 SXM5 80GB"
    assert (site.facts / "here.json").exists()
