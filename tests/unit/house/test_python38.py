"""What runs on nodes is read by Python 3.8, where list[str] is an error wherever it is evaluated."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
FILES = sorted([*(PLUGINS / "module_utils").rglob("*.py"), *(PLUGINS / "modules").glob("*.py")])
BUILTINS = {"dict", "frozenset", "list", "set", "tuple", "type"}


def evaluated(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a module but those of its annotations, which `from __future__ import annotations` leaves as text."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(tree, ast.AnnAssign) and child is tree.annotation:
            continue
        if isinstance(tree, ast.arg) and child is tree.annotation:
            continue
        if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef)) and child is tree.returns:
            continue
        yield child
        yield from evaluated(child)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_nothing_is_evaluated_that_python_3_8_lacks(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "collections.abc"]
    plain = BUILTINS | {name.name for node in imports for name in node.names}
    found = [
        node.lineno
        for node in evaluated(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in plain
    ]
    assert found == []
