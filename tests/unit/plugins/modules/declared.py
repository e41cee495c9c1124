"""Cases of a module as data: the node's files, the commands it may run with their answers, and what it says in the end.

A command that is missing, comes too much or in another order fails the case.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args


@dataclass
class Command:
    """One expected command; ``makes`` and ``takes`` are files and directories that it brings or removes."""

    line: str
    rc: int = 0
    out: str = ""
    err: str = ""
    makes: dict[str, str] = field(default_factory=dict)
    takes: tuple[str, ...] = ()


@dataclass
class Case:
    """One call of a module below a root of its own; ``says`` is a part of its answer, ``message`` of its failure."""

    name: str
    arguments: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    says: dict[str, Any] = field(default_factory=dict)
    message: str = ""
    after: dict[str, str | None] = field(default_factory=dict)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_text(text, encoding="utf-8")


def check(case: Case, module: Any, root: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
    """Play one case."""
    write(root, case.files)
    for name, target in case.links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    left = list(case.commands)

    def run_command(_self: AnsibleModule, command: list[str], **_options: Any) -> tuple[int, str, str]:
        line = " ".join(command).replace(str(root), "ROOT")
        assert left, f"one command too much: {line}"
        expected = left.pop(0)
        assert line == expected.line
        write(root, expected.makes)
        for name in expected.takes:
            shutil.rmtree(root / name)
        return expected.rc, expected.out, expected.err

    patch.setattr(AnsibleModule, "run_command", run_command)
    patch.setattr(AnsibleModule, "get_bin_path", lambda _self, name, *_a, **_o: name)
    arguments = {
        key: value.replace("ROOT", str(root)) if isinstance(value, str) else value
        for key, value in case.arguments.items()
    }
    with patch_module_args({**arguments, "sysroot": str(root)}), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not left, f"not run: {[each.line for each in left]}"
    assert answer.get("failed", False) is bool(case.message), answer
    assert case.message in answer.get("msg", ""), answer
    assert {key: answer.get(key) for key in case.says} == case.says
    for name, text in case.after.items():
        path = root / name
        assert (path.read_text(encoding="utf-8") if path.exists() else None) == text
