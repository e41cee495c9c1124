# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JMESPath as acceptance rules use it: what is wrong with an expression, and its answer about one node. Private to the collection.

JMESPath itself takes a name that is not there for null, and finds out about unknown functions only when it meets them. A rule
with a slip of the pen would then hold on every node, so both are looked for here.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
ROOTS = ("host", "gpu", "cuda", "node", "verdict", "plan")
BOOLEAN_FUNCTIONS = ("contains", "starts_with", "ends_with")
# What these answer depends on what they are given.
OPEN_FUNCTIONS = ("not_null", "max_by", "min_by", "max", "min")
LISTS = ("filter_projection", "projection", "value_projection", "flatten", "slice", "multi_select_list")
# Of these only the first child is read from the whole document, the others from what that one answers.
INWARD = ("subexpression", "index_expression", "pipe", "filter_projection", "projection", "value_projection")
BACKTICKS = "see docs/verify-rules.md; numbers, true and false stand in backticks: `0`, texts in single quotes: '535'"
WRITE_BOOLEAN = "write what has to be true: !(a list of what is wrong), length(…) == `0`, value == `true`"


class UnclearError(Exception):
    """An expression without an answer: what is wrong with it, and how to write it."""

    def __init__(self, code: str, message: str, mend: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.mend = mend


def available() -> bool:
    """Whether the controller has the library."""
    return importlib.util.find_spec("jmespath") is not None


class Subject:
    """What rules are asked of: one node's document."""

    def __init__(self, document: Row) -> None:
        self._document = document
        self._interpreter = _interpreters()(document)

    def ask(self, tree: Row, guess: bool = False) -> bool | None:
        """The answer about the node: true, false, or None where it rests on something that is not known.

        :param tree: the expression, as ``read`` returns it.
        :param guess: the node is not verified yet: only names are looked at.
        :raises UnclearError: the expression has no answer here.
        """
        from jmespath.exceptions import JMESPathError

        self._interpreter.thorough = guess
        try:
            answer = self._interpreter.visit(tree, self._document)
        except (JMESPathError, TypeError, ValueError, ArithmeticError) as error:
            if guess:
                return None
            message = f"it cannot be worked out here: {error}"
            raise UnclearError(
                "GF-RULE-UNDECIDED", message, "guard it: value != `null` && …, or not_null(value, `0`)"
            ) from error
        if guess or answer is None or isinstance(answer, bool):
            return answer if isinstance(answer, bool) else None
        raise _not_boolean(f"it answers {_kind_of(answer)} here: {answer!r:.60}")


@functools.lru_cache(maxsize=256)
def read(text: str) -> Row:
    """Read an expression: its tree.

    :raises UnclearError: it cannot be read, calls what is not there, or cannot answer true or false.
    """
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        tree: Row = jmespath.compile(text).parsed
    except (JMESPathError, ValueError) as error:
        first = str(error).splitlines()[0].rstrip(":")
        raise UnclearError("GF-RULE-SYNTAX", f"it cannot be read: {first}", BACKTICKS) from error
    _check_not(tree)
    _check_functions(tree)
    _check_roots(tree)
    kind = _kind(tree)
    if kind not in ("true or false", None):
        raise _not_boolean(f"it answers {kind}, never true or false")
    return tree


def _not_boolean(message: str) -> UnclearError:
    return UnclearError("GF-RULE-NOT-BOOLEAN", message, WRITE_BOOLEAN)


@functools.lru_cache(maxsize=1)
def _interpreters() -> Any:
    """The class of JMESPath's own, which takes exception to names that are not there where every name is always there."""
    from jmespath.visitor import TreeInterpreter

    class Interpreter(TreeInterpreter):
        # Whether every part is visited, also one that the answer does not rest on here.
        thorough = False

        def __init__(self, document: Row) -> None:
            super().__init__()
            self._whole = {id(each) for each in _whole(document)}

        def visit_field(self, node: Row, value: Any) -> Any:
            name = node["value"]
            if id(value) in self._whole and name not in value:
                raise _no_name(name, value)
            return super().visit_field(node, value)

        def visit_and_expression(self, node: Row, value: Any) -> Any:
            self._visit_all(node["children"], [value])
            return super().visit_and_expression(node, value)

        def visit_or_expression(self, node: Row, value: Any) -> Any:
            self._visit_all(node["children"], [value])
            return super().visit_or_expression(node, value)

        def visit_filter_projection(self, node: Row, value: Any) -> Any:
            base = self.visit(node["children"][0], value)
            self._visit_all(node["children"][1:], base if isinstance(base, list) else [])
            return super().visit_filter_projection(node, value)

        def _visit_all(self, parts: list[Row], values: list[Any]) -> None:
            for part in parts if self.thorough else ():
                for each in values:
                    self.visit(part, each)

    return Interpreter


def _no_name(name: str, names: Iterable[str]) -> UnclearError:
    near = difflib.get_close_matches(name, list(names), n=1)
    hint = f"is {near[0]} meant?" if near else f"there are: {', '.join(sorted(names))}"
    return UnclearError("GF-RULE-NAME", f"there is no {name}", hint)


def _whole(document: Row) -> list[Row]:
    """The dictionaries that have every name they can have: all facts, and the outermost of verdict and plan."""
    found = [document]
    for root in ("gpu", "cuda", "node"):
        _collect(document[root], found)
    outer = [document["verdict"], document["plan"], (document["plan"] or {}).get("stages")]
    return found + [each for each in outer if isinstance(each, dict) and each]


def _collect(value: Any, found: list[Row]) -> None:
    if isinstance(value, dict):
        found.append(value)
        for each in value.values():
            _collect(each, found)
    elif isinstance(value, list):
        for each in value:
            _collect(each, found)


def _nodes(tree: Any) -> list[Row]:
    """Every part of an expression."""
    if not isinstance(tree, dict):
        return []
    return [tree, *(part for child in tree.get("children", ()) for part in _nodes(child))]


def _check_not(tree: Row) -> None:
    """JMESPath takes `!` for the next name alone: !gpu.present asks for `present` of false, which is null."""
    for node in _nodes(tree):
        if node["type"] in INWARD and node["children"][0]["type"] == "not_expression":
            raise UnclearError(
                "GF-RULE-SYNTAX", "! stands before a path and takes its first name only", "write !(…) around the path"
            )


def _check_functions(tree: Row) -> None:
    from jmespath.functions import Functions

    table: Row = Functions.FUNCTION_TABLE
    for node in _nodes(tree):
        if node["type"] != "function_expression":
            continue
        name, given = node["value"], len(node["children"])
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            hint = f"is {near[0]} meant?" if near else "use JMESPath's own: jmespath.org/specification.html#functions"
            raise UnclearError("GF-RULE-FUNCTION", f"there is no function {name}", hint)
        signature = table[name]["signature"]
        more = bool(signature and signature[-1].get("variadic"))
        if given < len(signature) or (given > len(signature) and not more):
            wants = f"{'at least ' if more else ''}{len(signature)}"
            raise UnclearError("GF-RULE-FUNCTION", f"{name} is given {given} values and wants {wants}", BACKTICKS)


def _check_roots(tree: Row) -> None:
    """The first name of every path is one of the document's."""
    for name in _roots(tree):
        if name not in ROOTS:
            raise _no_name(name, ROOTS)


def _roots(tree: Any) -> list[str]:
    if not isinstance(tree, dict) or tree["type"] == "expref":
        return []
    if tree["type"] == "field":
        return [str(tree["value"])]
    children = tree.get("children", ())
    if tree["type"] in INWARD:
        children = children[:1]
    return [name for child in children for name in _roots(child)]


def _kind(tree: Row) -> str | None:
    """What an expression answers whatever it is asked of; None where that depends."""
    kind, children = tree["type"], tree.get("children", ())
    if kind in ("comparator", "not_expression"):
        return "true or false"
    if kind in ("and_expression", "or_expression"):
        kinds = {_kind(child) for child in children}
        return (
            kinds.pop()
            if len(kinds) == 1
            else next((each for each in kinds if each not in ("true or false", None)), None)
        )
    if kind in ("subexpression", "pipe", "index_expression"):
        return _kind(children[-1])
    if kind == "function_expression":
        name = tree["value"]
        if name in BOOLEAN_FUNCTIONS:
            return "true or false"
        return None if name in OPEN_FUNCTIONS else f"what {name}() answers"
    if kind == "literal":
        return _kind_of(tree["value"])
    if kind in LISTS:
        return "a list"
    return "an object" if kind == "multi_select_dict" else None


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), "a number")
