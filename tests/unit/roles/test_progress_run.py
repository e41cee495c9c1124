"""The callback gpufleet.stack.progress in real runs: 128 nodes that do nothing, on a terminal and off one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

ROOT = Path(__file__).parents[3]
# Each node works for a moment without a process of its own.
WORK = "\"{{ lookup('ansible.builtin.pipe', 'sleep 0.05') }}\""
ROLE = f"""
- name: Build the environment
  ansible.builtin.debug:
    msg: {WORK}
- name: Only some
  ansible.builtin.include_tasks: some.yml
  when: inventory_hostname in ['n001', 'n002', 'n003']
"""
SOME = f"""
- name: Repair the environment
  ansible.builtin.debug:
    msg: {WORK}
"""
WELL = """
- hosts: all
  gather_facts: false
  roles: [pytorch]
"""
ILL = r"""
- hosts: all
  gather_facts: false
  tasks:
    - name: Be rescued
      block:
        - ansible.builtin.fail:
            msg: "GF-RESCUED: nobody wants to read this"
      rescue:
        - ansible.builtin.debug:
            msg: went on
    # What is tested is that the end of a run does not tell of it.
    - name: Be ignored
      ansible.builtin.fail:
        msg: "GF-IGNORED: nor this"
      ignore_errors: true
    - name: Fail on some
      ansible.builtin.fail:
        msg: "GF-DISK-SPACE: /opt on {{ here }} has no room \e[2J\e[H\n  cause: a full disk\n  mend:  make room on {{ here }}"
      vars:
        here: "{{ inventory_hostname }}"
      when: inventory_hostname in ['n003', 'n004', 'n005', 'n009']
    - name: Fail on another
      ansible.builtin.fail:
        msg: "out of \e]0;luck\a"
      when: inventory_hostname == 'n007'
"""
FATAL = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - ansible.builtin.fail:
        msg: "GF-ONE: for all"
      when: inventory_hostname == 'n002'
    - ansible.builtin.debug:
        msg: never
"""
LINE = re.compile(
    r"gpufleet \d+:\d\d \| pytorch 1/1 \| (Build|Repair|Only).* \| \d+ of (128|3) done, \d+ running( \| (step|waiting).*)?"
)


class Site:
    """A playbook and an inventory of nodes that are all this machine."""

    def __init__(self, directory: Path, playbook: str, nodes: int) -> None:
        self.directory = directory
        self.playbook = directory / "play.yml"
        self.inventory = directory / "hosts.json"
        (directory / "roles/pytorch/tasks").mkdir(parents=True)
        (directory / "roles/pytorch/tasks/main.yml").write_text(ROLE, encoding="utf-8")
        (directory / "roles/pytorch/tasks/some.yml").write_text(SOME, encoding="utf-8")
        self.playbook.write_text(playbook, encoding="utf-8")
        hosts: dict[str, Any] = {f"n{each:03d}": None for each in range(1, nodes + 1)}
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": {"ansible_connection": "local"}}}))

    def command(self) -> list[str]:
        ansible = str(Path(sys.executable).with_name("ansible-playbook"))
        return [ansible, "-i", str(self.inventory), str(self.playbook)]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "COLOR" not in name}
        return {
            **kept,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "local"),
            "GPUFLEET_PROGRESS_INTERVAL": "1",
            "TERM": "xterm",
            **more,
        }

    def play(self, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(), env=self.environment(**more), cwd=ROOT, capture_output=True, text=True, check=False
        )

    def on_a_terminal(self, columns: int) -> str:
        """Everything that gets to a terminal to which both outputs lead."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with subprocess.Popen(
            self.command(), env=self.environment(), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        ):
            os.close(theirs)
            written = b""
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                written += part
        os.close(ours)
        return written.decode()


@pytest.fixture
def well(tmp_path: Path) -> Site:
    return Site(tmp_path, WELL, 128)


def said(output: str) -> list[str]:
    """The lines of standard output; the nodes come through in any order, in a list of nodes too."""
    return sorted(" ".join(sorted(line.replace(",", "").split())) for line in output.splitlines())


def test_off_a_terminal_128_nodes_are_a_few_lines_and_standard_output_is_as_without(well: Site) -> None:
    done = well.play()
    assert done.returncode == 0, done.stderr
    *lines, last = done.stderr.splitlines()
    assert 1 <= len(lines) <= 24, done.stderr
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert re.fullmatch(r"gpufleet all 128 nodes got through, in \d+ s", last)
    without = well.play(GPUFLEET_PROGRESS_STYLE="none")
    assert without.stderr == ""
    assert said(done.stdout) == said(without.stdout)


def test_with_the_settings_for_large_fleets_only_tasks_and_the_recap_stay(tmp_path: Path) -> None:
    """docs/progress.md recommends them."""
    done = Site(tmp_path, WELL, 12).play(ANSIBLE_DISPLAY_OK_HOSTS="false")
    before, _recap, after = done.stdout.partition("PLAY RECAP")
    assert len(before.splitlines()) <= 8, before
    assert len([line for line in after.splitlines() if "ok=" in line]) == 12


def test_steps_that_few_nodes_come_to_are_counted_for_these(tmp_path: Path) -> None:
    site = Site(tmp_path, WELL, 12)
    (tmp_path / "roles/pytorch/tasks/some.yml").write_text(SOME.replace("0.05", "2"), encoding="utf-8")
    done = site.play()
    assert re.search(r"Repair the environment \| 0 of 3 done, 3 running", done.stderr), done.stderr


def test_the_same_failure_is_told_once_and_what_was_rescued_or_ignored_is_not(tmp_path: Path) -> None:
    done = Site(tmp_path, ILL, 12).play(GPUFLEET_PROGRESS_INTERVAL="60")
    assert done.returncode == 2
    first, *told = done.stderr.splitlines()
    assert re.fullmatch(r"gpufleet 7 of 12 nodes got through, 5 failed, in \d+ s", first)
    assert told == [
        "GF-DISK-SPACE on n[003-005,009] (4 nodes): /opt on NODE has no room",
        "  cause: a full disk",
        "  mend: make room on NODE",
        "failed on n007: out of",
    ]


def test_nodes_that_others_stopped_did_not_get_through(tmp_path: Path) -> None:
    done = Site(tmp_path, FATAL, 4).play(GPUFLEET_PROGRESS_INTERVAL="60")
    first, *told = done.stderr.splitlines()
    assert first.startswith("gpufleet 0 of 4 nodes got through, 1 failed, 3 stopped because others failed, in ")
    assert told == ["GF-ONE on n002: for all"]


def test_a_short_run_on_one_node_adds_nothing(tmp_path: Path) -> None:
    assert Site(tmp_path, WELL, 1).play(GPUFLEET_PROGRESS_INTERVAL="60").stderr == ""


class Terminal:
    """As much of one as is needed to see what stays on the screen; what moves the cursor elsewhere is no part of it."""

    PARTS = re.compile(r"\x1b\[K|\x1b\[[0-9;]*m|\r|\n|[^\x00-\x1f\x7f-\x9f]+|.", re.DOTALL)

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.drawn: list[str] = []
        self.column = 0

    def write(self, text: str) -> None:
        for part in self.PARTS.findall(text):
            if part == "\n":
                self.lines.append("")
            elif part == "\r":
                self.column = 0
            elif part == "\x1b[K":
                self.drawn.append(self.lines[-1])
                self.lines[-1] = self.lines[-1][: self.column]
            elif not part.startswith("\x1b["):
                assert part.isprintable(), repr(part)
                self.lines[-1] = self.lines[-1][: self.column] + part + self.lines[-1][self.column + len(part) :]
                self.column += len(part)


# A quick machine is through with few nodes before the line is drawn often.
@pytest.mark.parametrize(("nodes", "columns", "drawings"), [(128, 80, 4), (20, 30, 1)])
def test_on_a_terminal_one_line_is_drawn_anew_and_nothing_of_it_stays(
    tmp_path: Path, nodes: int, columns: int, drawings: int
) -> None:
    written = Site(tmp_path, WELL, nodes).on_a_terminal(columns)
    terminal = Terminal(columns)
    terminal.write(written)
    drawn = [line for line in terminal.drawn if " | " in line]
    assert len(drawn) >= drawings
    assert max(map(len, drawn)) < columns
    assert all(re.match(r"\d+:\d\d \| ", line) for line in drawn)
    # Standard output is whole, and what was drawn is gone.
    assert [line for line in terminal.lines if "running" in line or " | " in line] == []
    assert len([line for line in terminal.lines if line.startswith("ok: [n")]) >= nodes
    own = [line for line in terminal.lines if line.startswith("gpufleet ")]
    assert len(own) == 1 and own[0].startswith(f"gpufleet all {nodes} nodes got through")


def with_runner(
    directory: Path, monkeypatch: pytest.MonkeyPatch, playbook: Path, inventory: Path, **more: Any
) -> ansible_runner.Runner:
    (directory / "runner").mkdir()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    kept = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "GPUFLEET_PROGRESS_INTERVAL": "60"}
    return ansible_runner.run(
        private_data_dir=str(directory / "runner"),
        project_dir=str(ROOT),
        playbook=str(playbook),
        inventory=str(inventory),
        envvars=kept,
        quiet=True,
        **more,
    )


def test_ansible_runner_has_lines_and_never_a_line_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, ILL, 12)
    done = with_runner(tmp_path, monkeypatch, site.playbook, site.inventory)
    assert done.status == "failed"
    output = done.stdout.read()
    assert "\r\x1b[K0:" not in output
    assert "GF-DISK-SPACE on n[003-005,009] (4 nodes): /opt on NODE has no room" in output
    assert done.stats["failures"] == dict.fromkeys(("n003", "n004", "n005", "n007", "n009"), 1)


def test_ansible_runner_keeps_what_a_run_came_to_that_stopped_at_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of site.yml; no package index answers, so nothing is installed on this machine."""
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    wishes = {
        "pytorch_index_url": "http://127.0.0.1:1/simple",
        "gpufleet_prefix": str(tmp_path / "opt"),
        "gpufleet_facts_directory": str(tmp_path / "facts"),
        "gpufleet_lock_directory": str(tmp_path / "locks"),
        "gpufleet_report_dir": str(tmp_path / "report"),
    }
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"n1": None, "n2": None}, "vars": {**local, **wishes}}}))
    done = with_runner(tmp_path, monkeypatch, ROOT / "playbooks/site.yml", inventory)
    assert done.rc == 2
    kept = [event["event_data"]["artifact_data"] for event in done.events if event["event"] == "playbook_on_stats"]
    failed = kept[0]["gpufleet"].pop("failed")
    report = kept[0].pop("gpufleet_report")
    assert (report["states"]["refused"], report["files"][0]) == (2, str(tmp_path / "report/report.html"))
    assert (tmp_path / "report/report.html").exists()
    assert kept == [{"gpufleet": {"ok": False, "finished": False, "nodes": 2, "verified": 0, "reboot_needed": []}}]
    assert failed and all(code.startswith("GF-") and hosts == ["n1", "n2"] for code, hosts in failed.items())
    assert f"{next(iter(failed))}" in done.stdout.read().partition("PLAY RECAP")[2]
