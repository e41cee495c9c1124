"""The house agrees with itself: defaults, argument specs, README, error codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.plugin_utils.resolver.wishes import DEFAULTS

ROOT = Path(__file__).parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
CODE = re.compile(r"\bGF-[A-Z0-9]+(?:-[A-Z0-9]+)*\b")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def defaults(role: str) -> dict[str, Any]:
    return read(ROOT / "roles" / role / "defaults" / "main.yml") or {}


def options(role: str) -> dict[str, Any]:
    spec = read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    return spec.get("options", {})


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_is_described_and_has_one_default(role: str) -> None:
    required = {name for name, option in options(role).items() if option.get("required")}
    assert set(options(role)) - required == set(defaults(role))
    assert not [name for name, option in options(role).items() if "default" in option]
    assert all(option.get("description") for option in options(role).values())


@pytest.mark.parametrize("role", [role for role in ROLES if role != "plan"])
def test_a_default_that_two_roles_have_is_the_same(role: str) -> None:
    ours, plans = defaults(role), defaults("plan")
    shared = set(ours) & set(plans)
    assert {name: ours[name] for name in shared} == {name: plans[name] for name in shared}


def test_the_resolver_knows_every_wish_with_its_default() -> None:
    plans = defaults("plan")
    # These are about the controller, not about what a node gets.
    for name in (
        "lock_directory",
        "facts",
        "facts_directory",
        "plan_json",
        "wheelhouse_directory",
        "wheelhouse_signer",
        "report_dir",
    ):
        del plans[f"gpufleet_{name}"]
    del plans["pytorch_lock"]
    plans["gpufleet_cache_dir"] = plans["gpufleet_cache_dir"].replace("{{ gpufleet_prefix }}", plans["gpufleet_prefix"])
    assert plans == DEFAULTS


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_every_variable(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    hidden = {"gpufleet_gpu_sysroot"}
    assert [name for name in defaults("plan") if name not in hidden and f"`{name}`" not in text] == []


def test_tasks_of_a_role_are_a_table_of_contents() -> None:
    lengths = {role: len((ROOT / "roles" / role / "tasks/main.yml").read_text().splitlines()) for role in ROLES}
    assert {role: lines for role, lines in lengths.items() if lines > 60} == {}


def codes_in(folder: str, *endings: str) -> set[str]:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    return {code for path in files for code in CODE.findall(path.read_text(encoding="utf-8"))}


def test_every_error_code_is_explained_and_none_is_left_over() -> None:
    used = codes_in("plugins", ".py") | codes_in("roles", ".yml", ".py")
    explained = set(re.findall(r"^## (GF-[A-Z0-9-]+)$", (ROOT / "docs/errors.md").read_text(), flags=re.MULTILINE))
    assert used == explained


def test_every_error_code_is_provoked_by_a_test() -> None:
    used = codes_in("plugins", ".py") | codes_in("roles", ".yml", ".py")
    assert used - codes_in("tests", ".py", ".yml", ".yaml", ".json") == set()
