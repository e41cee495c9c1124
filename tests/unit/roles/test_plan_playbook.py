"""playbooks/plan.yml as a person starts it, with no network and no node."""

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
from ansible_collections.gpufleet.stack.plugins.module_utils.node import SCHEMA
from ansible_collections.gpufleet.stack.plugins.plugin_utils import facts_cache
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_wishes import of_node

ROOT = Path(__file__).parents[3]
RECORDED = json.loads((ROOT / "tests/fixtures/nodes/debian12-none/expected.json").read_text(encoding="utf-8"))["gpu"]
PYTHON = {"version": "3.11", "full_version": "3.11.2", "path": "/usr/bin/python3.11", "provider": "distribution"}


def probe(**node: Any) -> dict[str, Any]:
    """A node without a GPU, as stack_probe describes it."""
    found = {
        "distribution": "Debian", "version": "12", "architecture": "x86_64", "glibc": "2.36", "package_manager": "apt",
        "pythons": [PYTHON], "root": True, "prefix": {"path": "/opt/gpufleet", "writable": True, "free_mib": 10**6},
        **node,
    }  # fmt: skip
    cuda = {"torch": [], "cudnn": [], "toolkits": []}
    return {"schema": SCHEMA, "gpu": RECORDED, "cuda": cuda, "node": found, "receipts": {}, "verdict": None}


class Site:
    """An inventory, the facts of its nodes, and a package index that nobody answers for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.facts = directory / "facts"
        self.locks = directory / "locks"
        self.json = directory / "plan.json"

    def play(self, hosts: dict[str, Any], *options: str, facts: str = "cached") -> tuple[int, str]:
        inventory = self.directory / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
        given = {
            "gpufleet_facts": facts,
            "gpufleet_facts_directory": str(self.facts),
            "gpufleet_lock_directory": str(self.locks),
            "gpufleet_plan_json": str(self.json),
        }
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "local"),
            "ANSIBLE_REMOTE_TEMP": str(self.directory / "remote"),
            "UV_HTTP_RETRIES": "0",
        }
        # Off a terminal Ansible writes no colours by itself; nothing here may force or forbid them.
        for name in ("ANSIBLE_FORCE_COLOR", "PY_COLORS", "FORCE_COLOR"):
            environment.pop(name, None)
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory)]
        command += ["-e", json.dumps(given), str(ROOT / "playbooks/plan.yml"), *options]
        answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return answer.returncode, answer.stdout + answer.stderr

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.json.read_text(encoding="utf-8"))
        jsonschema.validate(document, json.loads((ROOT / "docs/schemas/plan.schema.json").read_text(encoding="utf-8")))
        return document


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


NOWHERE = {"pytorch_index_url": "http://127.0.0.1:1/simple", "ansible_host": "192.0.2.1"}


def test_cached_facts_are_planned_without_contacting_a_node(site: Site) -> None:
    for host in ("n1", "n2"):
        facts_cache.keep(str(site.facts), host, probe())
    code, output = site.play({"n1": NOWHERE, "n2": NOWHERE})
    assert code == 0, output
    assert "n[1-2] (2 nodes, reboot: no)" in output
    assert "GF-INDEX-UNREACHABLE" in output
    assert "\x1b" not in output
    table = output.partition("msg: |-")[2].partition("TASK")[0].partition("PLAY")[0]
    assert max(map(len, table.splitlines())) <= 80
    document = site.document()
    assert document["nodes"]["n2"]["stages"]["pytorch"]["action"] == "change"
    assert not site.locks.exists()


def test_bad_facts_and_bad_wishes_are_told_by_code_and_stop_no_other_node(site: Site) -> None:
    hosts = dict.fromkeys(("good", "missing", "old", "cut", "odd"), NOWHERE)
    facts_cache.keep(str(site.facts), "good", probe())
    facts_cache.keep(str(site.facts), "old", {**probe(), "schema": 1})
    facts_cache.keep(str(site.facts), "odd", {**probe(), "node": {"distribution": 3}})
    (site.facts / "cut.json").write_text('{"schema": 2, "gpu')
    wishes = {
        "number": {"pytorch_version": 2.1},
        "list": {"gpufleet_prefix": ["/opt"]},
        "environments": {"pytorch_environments": "one"},
        "undefined": {"gpufleet_prefix": "{{ nowhere }}/opt"},
        "overlay": {"gpufleet_catalog_overlay": "/nowhere.yml"},
        "overlay-type": {"gpufleet_catalog_overlay": 7},
    }
    for host in wishes:
        facts_cache.keep(str(site.facts), host, probe())
    code, output = site.play({**hosts, **{host: {**NOWHERE, **wish} for host, wish in wishes.items()}})
    assert code == 2, output
    assert "Traceback" not in output
    nodes = site.document()["nodes"]
    found = {host: node["conflicts"] for host, node in nodes.items()}
    assert found == {
        "good": [],
        "missing": ["GF-FACTS-MISSING"],
        "old": ["GF-FACTS-VERSION"],
        "cut": ["GF-FACTS-INVALID"],
        "odd": ["GF-FACTS-INVALID"],
        "number": ["GF-WISH-INVALID"],
        "list": ["GF-WISH-INVALID"],
        "environments": ["GF-WISH-INVALID"],
        "undefined": ["GF-WISH-INVALID"],
        "overlay": ["GF-CATALOG-OVERLAY"],
        "overlay-type": ["GF-WISH-INVALID"],
    }


def test_hostile_facts_are_neither_run_nor_sent_to_the_terminal(site: Site) -> None:
    trap = site.directory / "trap"
    name = f"\x1b[31mGPU\x1b[0m {{{{ lookup('pipe', 'touch {trap}') }}}}\n{{% raw %}}"
    facts_cache.keep(str(site.facts), "n1", probe(distribution=name))
    code, output = site.play({"n1": NOWHERE})
    assert code == 2, output
    assert "\x1b" not in output
    assert "GF-DISTRIBUTION" in output
    assert "GPU {{ lookup('pipe'" in output
    assert not trap.exists()


def test_an_empty_inventory_is_no_error(site: Site) -> None:
    code, output = site.play({})
    assert code == 0
    assert "no hosts matched" in output
    assert "Traceback" not in output


def test_a_json_file_that_cannot_be_written_is_told(site: Site) -> None:
    facts_cache.keep(str(site.facts), "n1", probe())
    site.json = Path("/proc/plan.json")
    code, output = site.play({"n1": NOWHERE})
    assert code == 2
    assert "GF-PLAN-UNWRITABLE" in output


def test_a_live_look_keeps_the_facts_and_names_who_was_not_reached(site: Site) -> None:
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    gone = {**NOWHERE, "ansible_host": "127.0.0.1", "ansible_port": 1}
    prefix = {"gpufleet_prefix": str(site.directory / "opt")}
    code, output = site.play({"here": {**NOWHERE, **local, **prefix}, "gone": gone}, facts="live")
    assert code in (2, 4), output
    assert "could not be looked at (errors above): gone" in output
    assert facts_cache.read(str(site.facts), "here")["host"] == "here"
    assert site.document()["not_reached"] == ["gone"]
    assert not site.locks.exists()
    assert not (site.directory / "opt").exists()


def test_facts_that_cannot_be_kept_stop_nothing(site: Site) -> None:
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    site.facts = Path("/proc/facts")
    _code, output = site.play({"here": {**NOWHERE, **local}}, facts="live")
    assert "GF-FACTS-UNKEPT" in output
    assert "here" in site.document()["nodes"]


def test_the_defaults_without_a_role_are_those_of_the_role() -> None:
    defaults = yaml.safe_load((ROOT / "roles/plan/defaults/main.yml").read_text(encoding="utf-8"))
    assert defaults["gpufleet_cache_dir"] == "{{ gpufleet_prefix }}/cache"
    assert of_node({"gpufleet_prefix": "/p"}) == {"gpufleet_prefix": "/p", "gpufleet_cache_dir": "/p/cache"}
    text = (ROOT / "plugins/action/fleet_plan.py").read_text(encoding="utf-8")
    assert f'"default": "{defaults["gpufleet_facts_directory"]}"' in text
