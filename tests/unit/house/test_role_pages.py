"""docs/roles has a page for each role that a user names, and its table of variables is the role's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# These refuse to run on their own; their README is enough.
INTERNAL = ("wheelhouse", "apt_packages", "dnf_packages", "runfile")


def test_every_role_has_a_page() -> None:
    roles = {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()} - set(INTERNAL)
    assert {page.stem for page in (ROOT / "docs/roles").glob("*.md")} == roles


def test_the_tables_of_variables_are_current() -> None:
    command = [sys.executable, str(ROOT / "tests/tools/role_pages"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
