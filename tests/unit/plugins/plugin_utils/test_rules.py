"""A site's rules: what is refused before a run, what they answer after it, and every example of docs/verify-rules.md."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpufleet.stack.plugins.plugin_utils import rule_language, rules
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge import judge
from ansible_collections.gpufleet.stack.plugins.plugin_utils.judge_text import lines

from .judging import NODES, figure, node, recorded, with_rules

Node = dict[str, Any]
PAGE = Path(__file__).parents[4] / "docs/verify-rules.md"
FACTS = {name: value for name, value in recorded("a100-mig").items() if name in ("gpu", "cuda", "node")}


def rule(expression: str, **more: Any) -> dict[str, Any]:
    return {"name": "r", "expression": expression, **more}


def codes(asked: Any) -> list[str]:
    return [error.code for error in rules.problems(asked, FACTS)]


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ("ecc", "GF-RULE-INVALID", "not a list"),
        ([3], "GF-RULE-INVALID", "no rule"),
        ([{"expression": "host == 'n'"}], "GF-RULE-INVALID", "without a name"),
        ([{"name": " ", "expression": "host == 'n'"}], "GF-RULE-INVALID", "without a name"),
        ([{"name": "r"}], "GF-RULE-INVALID", "no expression"),
        ([rule(" ")], "GF-RULE-INVALID", "no expression"),
        ([rule("host == 'n'", advise="x")], "GF-RULE-INVALID", "is advice meant?"),
        ([rule("host == 'n'", advice=3)], "GF-RULE-INVALID", "no text"),
        ([{"name": "r", "expression": True}], "GF-RULE-INVALID", "no text"),
        ([rule("host == 'n'", severity="fatal")], "GF-RULE-SEVERITY", "error, warning, info"),
        ([rule("host == 'n'", severity=["error"])], "GF-RULE-SEVERITY", "error, warning, info"),
        ([rule("host == 'n'"), rule("host != 'n'")], "GF-RULE-DUPLICATE", "two rules r"),
        ([rule("gpu.count > 0")], "GF-RULE-SYNTAX", "backticks"),
        ([rule("gpu.devices[?")], "GF-RULE-SYNTAX", "cannot be read"),
        ([rule("!gpu.health.xid")], "GF-RULE-SYNTAX", "write !(…)"),
        ([rule("!gpu.devices[?name]")], "GF-RULE-SYNTAX", "write !(…)"),
        ([rule("size(gpu.devices) == `1`")], "GF-RULE-FUNCTION", "no function size"),
        ([rule("lenght(gpu.devices) == `1`")], "GF-RULE-FUNCTION", "is length meant?"),
        ([rule("length(gpu.devices, `1`) == `1`")], "GF-RULE-FUNCTION", "given 2 values and wants 1"),
        ([rule("merge() == `1`")], "GF-RULE-FUNCTION", "given 0 values and wants at least 1"),
        ([rule("gpu.devices[?ecc.uncorrected > `0`]")], "GF-RULE-NOT-BOOLEAN", "answers a list"),
        ([rule("length(gpu.devices)")], "GF-RULE-NOT-BOOLEAN", "length() answers"),
        ([rule("verdict.ok && gpu.devices[]")], "GF-RULE-NOT-BOOLEAN", "answers a list"),
        ([rule("gpu.devices[0].{a: name}")], "GF-RULE-NOT-BOOLEAN", "answers an object"),
        ([rule("`null`")], "GF-RULE-NOT-BOOLEAN", "answers null"),
        ([rule("!(gqu.devices[?ecc.uncorrected > `0`])")], "GF-RULE-NAME", "is gpu meant?"),
        ([rule("!(gpu.devcies[?ecc.uncorrected > `0`])")], "GF-RULE-NAME", "is devices meant?"),
        ([rule("!(gpu.devices[?ecc.uncorected > `0`])")], "GF-RULE-NAME", "is uncorrected meant?"),
        ([rule("!(gpu.devices[?ecc.uncorrected > `0` && zzz])")], "GF-RULE-NAME", "there are: "),
        ([rule("gpu.present || gpu.zzz == `1`")], "GF-RULE-NAME", "there is no zzz"),
        ([rule("!(gpu.devices[?ecc.uncorrected > `0`].zzz)")], "GF-RULE-NAME", "there is no zzz"),
        ([rule("node.distribution == 'Debian' && environments")], "GF-RULE-NAME", "there is no environments"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_the_run(asked: Any, code: str, says: str) -> None:
    found = rules.problems(asked, FACTS)
    assert [error.code for error in found] == [code]
    assert says in str(found[0])


def test_every_problem_is_told_at_once() -> None:
    assert codes([rule("gpu.["), rule("`1`", severity="x"), "y"]) == [
        "GF-RULE-SYNTAX", "GF-RULE-SEVERITY", "GF-RULE-NOT-BOOLEAN", "GF-RULE-INVALID", "GF-RULE-DUPLICATE",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "expression",
    [
        "verdict.ok",
        "gpu.present",
        "max(verdict.performance[].value) > `1`",
        "length(verdict.performance) > `3`",
        "not_null(gpu.tegra, `true`)",
        "sort_by(gpu.devices, &index)[0].index == `0`",
        "gpu.devices[0].name | starts_with(@, 'NVIDIA')",
        "gpu.devices[*].name | [0] == 'NVIDIA A100-SXM4-40GB'",
        "verdict.environments[0].checks[0].measured.anything == `1` || `true`",
        "plan.stages.pytorch.environments[0].torch == '2.0.1'",
    ],
)
def test_what_has_an_answer_only_after_the_run_is_not_refused(expression: str) -> None:
    assert codes([rule(expression)]) == []


def test_without_jmespath_rules_are_refused_and_everything_else_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_language.importlib.util, "find_spec", lambda _name: None)
    assert codes([]) == []
    assert codes([rule("verdict.ok")]) == ["GF-RULE-JMESPATH"]


def judged(there: Node, *asked: dict[str, Any]) -> dict[str, Any]:
    return judge({"n1": with_rules(there, *asked)})


@pytest.mark.parametrize(
    ("expression", "holds", "why"),
    [
        ("host == 'n1'", True, ""),
        ("host == 'n2'", False, ""),
        ("verdict.ok && gpu.count == `2`", True, ""),
        # Neither a list nor a text nor a number is true.
        ("gpu.devices[0].name", False, "GF-RULE-NOT-BOOLEAN: it answers a text here"),
        ("gpu.count", False, "GF-RULE-NOT-BOOLEAN: it answers a number here"),
        ("not_null(gpu.devices)", False, "GF-RULE-NOT-BOOLEAN: it answers a list here"),
        # What is not known does not hold.
        ("node.gcc > `9`", False, "not known"),
        ("gpu.fabric.manager_active", False, "not known"),
        ("!(gpu.fabric.manager_active)", True, ""),
        ("starts_with(gpu.fabric.manager_version, '5')", False, "GF-RULE-UNDECIDED"),
        ("contains('abc', `1`)", False, "GF-RULE-UNDECIDED"),
        ("verdict.performence[0] == `null`", False, "GF-RULE-NAME: there is no performence"),
        ("plan.stages.pytorsh.wanted == `null`", False, "GF-RULE-NAME"),
        ("verdict.environments[].checks[].measured.nobody_measures_this | length(@) == `0`", True, ""),
    ],
)
def test_only_true_holds(expression: str, holds: bool, why: str) -> None:
    answer = judged(node(recorded("a100-mig")), rule(expression))["rules"][0]
    assert answer["hosts_failing"] == ([] if holds else ["n1"])
    assert answer["why"].get("n1", "").startswith(why)
    assert bool(answer["why"]) == bool(why)


@pytest.mark.parametrize(("severity", "fails"), [("error", True), ("warning", False), ("info", False)])
def test_only_an_error_fails_the_node(severity: str, fails: bool) -> None:
    judgement = judged(node(recorded("a100-mig")), rule("gpu.count == `8`", severity=severity, advice="buy more"))
    assert lines(judgement) == [f"n1: rule r does not hold ({severity})", "  buy more"]
    assert judgement["failing"] == (
        {
            "n1": [
                "GF-RULE-FAILED: the rule r does not hold on n1",
                "  cause: a rule of this site (verify_rules): gpu.count == `8`",
                "  mend:  buy more",
            ]
        }
        if fails
        else {}
    )


def test_each_node_has_its_own_rules_and_those_it_shares_are_told_once() -> None:
    there = node(recorded("a100-mig"))
    both, one = rule("gpu.count == `8`", name="both"), rule("node.gcc > `9`", name="one")
    judgement = judge(
        {"n2": with_rules(there, both, one), "n1": with_rules(there, both), "n3": there, "n10": with_rules(there, both)}
    )
    assert [(row["name"], row["hosts"], row["hosts_failing"]) for row in judgement["rules"]] == [
        ("both", ["n1", "n2", "n10"], ["n1", "n2", "n10"]),
        ("one", ["n2"], ["n2"]),
    ]
    assert lines(judgement) == [
        "n[1-2,10]: rule both does not hold (error)",
        "n2: rule one does not hold (error)",
        "  n2: not known",
    ]


def test_a_node_that_is_not_verified_is_not_asked() -> None:
    there = with_rules(node(recorded("a100-mig"), plan_digest="former"), rule("host == 'x'"))
    judgement = judge({"n1": there, "n2": {**there, "verdict": None}})
    assert (judgement["rules"], judgement["failing"]) == ([], {})


def test_what_a_rule_sees_is_what_the_page_says() -> None:
    there = with_rules(
        node(recorded("a100-mig")), rule("keys(@) | sort(@) == ['cuda','gpu','host','node','plan','verdict']")
    )
    seen = "host,gpu,cuda,node,verdict,plan"
    assert all(f"{name}" in PAGE.read_text(encoding="utf-8") for name in seen.split(","))
    document = rules._document("n1", there["plan"]["facts"], there["verdict"], there["plan"])
    assert sorted(document) == sorted(seen.split(","))


def test_words_of_a_rule_move_no_cursor() -> None:
    hostile = rule("host == 'x'", name="\x1b[2Jred", advice="a\nb\u202ec")
    told = lines(judged(node(recorded("a100-mig")), hostile))
    assert told == ["n1: rule red does not hold (error)", "  a b?c"]


# ---- the examples of the page ---------------------------------------------------------------------------------------


def examples() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(verify_rules:.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [each for block in blocks for each in yaml.safe_load(block)["verify_rules"]]


EXAMPLES = {each["name"]: each for each in examples()[1:]}


def changed(recording: str, change: Callable[[Node], Any]) -> Node:
    there = copy.deepcopy(node(recorded(recording)))
    change(there)
    return there


def first_gpu(**values: Any) -> Callable[[Node], Any]:
    return lambda there: there["plan"]["facts"]["gpu"]["devices"][0].update(values)


def checks(there: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = there["verdict"]["environments"][0]["checks"]
    return found


def as_recorded(name: str) -> Node:
    return node(recorded(name))


def driver(there: Node, branch: str) -> None:
    there["plan"]["facts"]["gpu"]["driver"]["branch"] = branch


# For each example nodes on which it does not hold.
BROKEN: dict[str, list[Node]] = {
    "ecc": [as_recorded("xid-and-ecc")],
    "ecc-on": [changed("a100-mig", first_gpu(ecc={"enabled": False, "uncorrected": None}))],
    "pcie-width": [
        changed("a100-mig", first_gpu(pcie={"generation": 4, "generation_max": 4, "width": 8, "width_max": 16}))
    ],
    "driver-branch": [changed("a100-mig", lambda there: driver(there, "550"))],
    "persistence": [changed("a100-mig", first_gpu(persistence=False))],
    "eight-gpus": [as_recorded("a100-mig"), as_recorded("debian12-none")],
    "xid": [as_recorded("xid-and-ecc")],
    "loss": [changed("a100-mig", lambda there: checks(there)[0]["measured"].update(loss_end=0.5))],
    "nccl": [
        changed(
            "a100-mig",
            lambda there: there["plan"]["stages"]["pytorch"]["environments"][0]["lock"].update(
                text="nvidia-nccl-cu12==2.20.5"
            ),
        )
    ],
    "shadowed": [as_recorded("shadowed-torch")],
    "matmul": [node(recorded("a100-mig"), figure("gpu_gemm_bf16", 150.0))],
    "one-kind": [as_recorded("mixed-v100-a100-h100")],
}
# And nodes on which it does; healthy oddities for those that suit every site.
HEALTHY = [
    "a100-mig", "a100-x16-nvswitch", "debian12-a100", "debian12-none", "h100-x8-nvswitch", "ubuntu24-rtx4090", "wsl2", "wsl2-rtx4090",
    "vgpu-guest", "vm-t4", "k80", "jetson-orin", "grace-hopper", "gb10-spark", "passthrough-host", "mixed-v100-a100-h100", "unknown-gpu",
]  # fmt: skip
ANYWHERE = ("ecc", "pcie-width", "xid", "loss", "nccl", "shadowed", "matmul")
WHOLE: dict[str, list[Node]] = {
    **{name: [as_recorded(each) for each in HEALTHY] for name in ANYWHERE},
    "ecc-on": [as_recorded("a100-mig"), as_recorded("debian12-none"), as_recorded("ubuntu24-rtx4090")],
    "driver-branch": [as_recorded("a100-mig"), as_recorded("debian12-none")],
    "persistence": [as_recorded("a100-mig"), as_recorded("debian12-none"), as_recorded("ubuntu24-rtx4090")],
    "eight-gpus": [as_recorded("h100-x8-nvswitch")],
    "one-kind": [as_recorded("a100-mig"), as_recorded("debian12-none")],
}


def test_the_page_has_examples_and_each_has_nodes_of_both_kinds() -> None:
    assert len(EXAMPLES) >= 8
    assert set(EXAMPLES) == set(BROKEN) == set(WHOLE)
    assert {each["severity"] for each in EXAMPLES.values()} == set(rules.SEVERITIES)


@pytest.mark.parametrize("recording", sorted(path.parent.name for path in NODES.glob("*/expected.json")))
def test_no_recorded_node_refuses_an_example(recording: str) -> None:
    facts = {**recorded(recording), "node": {**recorded(recording)["node"], "managed": []}}
    assert rules.problems(list(EXAMPLES.values()), facts) == []
    assert rules.problems(examples()[:1], facts) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_holds_where_it_should(name: str) -> None:
    for there in WHOLE[name]:
        answer = judged(there, EXAMPLES[name])["rules"][0]
        assert (answer["hosts_failing"], answer["why"]) == ([], {}), there["plan"]["facts"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_not_hold_where_it_should_not(name: str) -> None:
    for there in BROKEN[name]:
        answer = judged(there, EXAMPLES[name])["rules"][0]
        assert (answer["hosts_failing"], answer["why"]) == (["n1"], {})


def test_the_rule_of_the_example_inventory_is_one_of_the_page() -> None:
    text = (PAGE.parents[1] / "inventory/cluster.example/group_vars/all.yml").read_text(encoding="utf-8")
    commented = text[text.index("# verify_rules:") :]
    shown = yaml.safe_load(re.sub(r"^# ?", "", commented, flags=re.MULTILINE))["verify_rules"]
    assert shown[0]["expression"] == EXAMPLES["ecc"]["expression"]
    assert codes(shown) == []
