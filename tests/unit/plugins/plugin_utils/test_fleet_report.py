"""The report as data and as text: states, what to do, drift, pictures, and that no text from a node does anything."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils import (
    report_files,
    report_pictures,
    report_plot,
    report_render,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_attention import command_for
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_document import make
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_drift import same_version
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_pictures import pictures
from ansible_collections.gpufleet.stack.plugins.plugin_utils.report_text import cell, clean, markdown
from markdown_it import MarkdownIt

from tests.report import fleets
from tests.report.hostile import STRINGS

Row = dict[str, Any]
SCHEMA = json.loads((Path(__file__).parents[4] / "docs/schemas/report.schema.json").read_text(encoding="utf-8"))


def report(nodes: dict[str, Row], **more: Any) -> Row:
    document = make({"at": fleets.AT, "title": "t", "nodes": nodes, "inventory": list(nodes), **more})
    jsonschema.validate(document, SCHEMA)
    return document


def healthy(kind: int = 0) -> Row:
    return fleets.node(fleets.plan(kind), fleets.verdict(kind, fleets.random.Random(1)))


@pytest.fixture(scope="module")
def large() -> Row:
    given = fleets.fleet(128)
    given["former"] = make(fleets.before(given))
    return make(given)


# ---- one node -----------------------------------------------------------------------------------------------------------


def test_a_verified_node_is_told_as_it_was_measured() -> None:
    row = report({"n1": healthy()})["nodes"]["n1"]
    assert (row["state"], row["gpu"], row["driver"]) == ("verified", "8 × NVIDIA H100 80GB HBM3", "570.195.03")
    assert (row["cuda"], row["cudnn"], row["python"], row["torch"]) == ("11.8", "8.9.6.50", "3.11.2", "2.0.1+cu118")
    assert (row["problems"], row["verdict"]["failed"], len(row["loss"])) == ([], 0, 51)


def test_a_verdict_of_the_first_schema_is_read_too() -> None:
    node = healthy(2)
    for key in ("level", "user", "performance"):
        del node["verdict"][key]
    training = next(c for c in node["verdict"]["environments"][0]["checks"] if c["name"] == "mlp_training")
    del training["measured"]["loss_curve"]
    row = report({"n1": node})["nodes"]["n1"]
    assert (row["state"], row["verdict"]["level"], row["performance"]) == ("verified", None, [])
    assert [step for step, _loss in row["loss"]] == [0, 500]


@pytest.mark.parametrize(
    ("node", "state", "code"),
    [
        (fleets.node(None, None), "lost", "GF-REPORT-LOST"),
        (fleets.node(fleets.plan(0), None), "unverified", "GF-REPORT-UNVERIFIED"),
        ({**healthy(), "finished": False}, "verified", None),
        ({**healthy(), "plan": fleets.plan(0, ("pytorch",)), "finished": False}, "unverified", "GF-REPORT-UNVERIFIED"),
        (
            {
                **healthy(),
                "plan": fleets.plan(0, ("pytorch",), drift={"pytorch": ["a file is gone"]}),
                "finished": False,
            },
            "drifted",
            "GF-REPORT-DRIFT",
        ),
        ({**healthy(), "plan": fleets.plan(0, drift={"pytorch": ["a file is gone"]})}, "verified", None),
        ({**healthy(), "verified": False}, "verified", None),
        ({**healthy(), "plan": fleets.plan(0, ("verify",)), "finished": False}, "verified", None),
        (
            {**healthy(), "plan": fleets.plan(0, ("verify",)), "finished": False, "verified": False},
            "unverified",
            "GF-REPORT-UNVERIFIED",
        ),
        ({**healthy(), "plan": fleets.plan(0, ("pytorch",)), "verified": False}, "unverified", "GF-REPORT-UNVERIFIED"),
    ],
)
def test_states(node: Row, state: str, code: str | None) -> None:
    row = report({"n1": node})["nodes"]["n1"]
    assert row["state"] == state
    assert [problem["code"] for problem in row["problems"]] == ([code] if code else [])


def test_a_verdict_about_another_plan_proves_nothing() -> None:
    node = healthy()
    node["verdict"]["plan_digest"] = "another"
    row = report({"n1": node})["nodes"]["n1"]
    assert (row["state"], row["verdict"], row["checks"]) == ("unverified", None, [])
    assert row["problems"][0]["causes"][0]["cause"] == "its last verdict is about another plan"


def test_versions_that_the_verdict_measured_come_first() -> None:
    node = healthy()
    node["verdict"].update(driver="570.1.2")
    node["verdict"]["environments"][0]["python"] = "3.11.9"
    row = report({"n1": node})["nodes"]["n1"]
    assert (row["driver"], row["python"]) == ("570.1.2", "3.11.9")


def test_versions_that_the_run_brought_are_those_of_the_plan() -> None:
    node = healthy()
    node["plan"] = fleets.plan(0, ("nvidia_driver", "cuda_toolkit"))
    node["plan"]["facts"]["gpu"]["driver"] = {"installed_version": None, "loaded_version": None}
    node["plan"]["facts"]["cuda"]["toolkits"] = []
    finished = report({"n1": node})["nodes"]["n1"]
    assert (finished["driver"], finished["cuda"]) == ("570", "11.8")
    stopped = report({"n1": {**node, "finished": False}})["nodes"]["n1"]
    assert (stopped["driver"], stopped["cuda"]) == (None, None)


def test_drift_is_put_right_by_a_role_that_ran_to_its_end() -> None:
    drift = {"pytorch": ["a file is gone"]}
    found = {
        "n1": {**healthy(), "plan": fleets.plan(0, ("pytorch",), drift=drift)},
        "n2": {**healthy(), "plan": fleets.plan(0, drift=drift)},  # left out by the run's tags
        "n3": {**healthy(), "plan": fleets.plan(0, ("pytorch",), drift=drift), "finished": False},
    }
    document = report(found)
    assert [row["drift"][0]["mended"] for row in document["nodes"].values()] == [True, False, False]
    assert [(group["names"], group["mended"]) for group in document["drift"]["altered"]] == [("n[1-3]", False)]


# ---- what to do ---------------------------------------------------------------------------------------------------------


def test_what_to_do_is_told_by_urgency_with_cause_and_command(large: Row) -> None:
    told = [(item["title"], item["names"], item["code"]) for item in large["attention"]]
    assert told[0] == ("failed", "n7", "GF-VERIFY-FAILED")
    assert told[1] == ("failed", "n[16-17]", "GF-VERIFY-FAILED")
    assert [title for title, _names, _code in told[2:]] == [
        "cannot be planned", "not reached", "reboot needed", "fleet check", "outlier", "rule",
    ]  # fmt: skip
    first = large["attention"][0]
    assert first["command"] == "ansible-playbook site.yml -l n7"
    assert "2.8.0+cu128" in first["details"][0]
    assert first["causes"][0]["mend"].startswith("run the playbook again")


def test_a_cause_is_told_once_for_all_that_mends_it() -> None:
    conflict = {
        "code": "GF-TORCH-UNKNOWN",
        "message": "torch 2.9.9 is not known",
        "because": ["the nearest are others"],
        "fixes": [{"pytorch_version": "2.9.1"}, {"pytorch_version": "2.10.0"}],
    }
    document = report({"n1": fleets.node({**fleets.plan(0), "ok": False, "conflicts": [conflict]}, None)})
    text, page = report_render.md(document), report_render.html(document)
    assert text.count("the nearest are others") == 1
    assert [line.strip().partition(":")[0] for line in text.splitlines() if line.startswith("  - ")] == [
        "- cause",
        "- mend",
        "- or",
    ]
    # Under what is to be done, and in the details of the node.
    assert page.count("the nearest are others") == page.count("<dt>or</dt>") == 2


def test_the_same_failure_of_many_nodes_is_told_once() -> None:
    dice = fleets.random.Random(1)
    nodes = {
        f"n{i}": fleets.node(fleets.plan(0), fleets.verdict(0, dice, fleets.wrong_torch()), finished=False)
        for i in range(1, 60)
    }
    attention = report(nodes)["attention"]
    assert [(item["names"], len(item["details"])) for item in attention] == [("n[1-59]", 1)]
    assert attention[0]["command"] == "ansible-playbook site.yml"


@pytest.mark.parametrize("name", ["n1;touch /tmp/x", "$(x)", "-x", "a b", "n[1:3]", "!n1", ""])
def test_no_command_names_what_a_shell_or_a_pattern_would_read_otherwise(name: str) -> None:
    assert command_for(["n1", name]) == "ansible-playbook site.yml"


def test_outliers_and_rules_are_with_their_nodes(large: Row) -> None:
    outliers = {host: row["outliers"] for host, row in large["nodes"].items() if row["outliers"]}
    assert list(outliers) == ["n65", "n107"]
    assert outliers["n65"][0].startswith("GPU 0: GPU memory bandwidth 2,")
    assert "(-22 %)" in outliers["n65"][0]
    assert [rule["name"] for rule in large["rules"]] == ["kernel", "memory"]


# ---- drift --------------------------------------------------------------------------------------------------------------


def test_drift_since_the_last_report(large: Row) -> None:
    drift = large["drift"]
    changed = {(group["part"], group["from"], group["to"]): group["names"] for group in drift["changed"]}
    assert changed["driver", "570.133.20", "570.195.03"] == "n[35,66,97]"
    assert changed["torch", "2.0.1+cu118", "2.8.0+cu128"] == "n7"
    assert (drift["since"], drift["new"]["names"], drift["gone"]["names"]) == (fleets.BEFORE, "n128", "old1")
    assert [(group["names"], group["part"], group["mended"]) for group in drift["altered"]] == [
        ("n[2-3]", "cuDNN", True),
        ("n[2-4]", "PyTorch", True),
    ]


def test_a_report_of_the_same_fleet_finds_no_drift(large: Row) -> None:
    given = fleets.fleet(128)
    given["former"] = large
    drift = make(given)["drift"]
    assert (drift["changed"], drift["new"]["nodes"], drift["gone"]["nodes"]) == ([], [], [])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("535", "535.183.01", True),
        ("570.1", "570.10", False),
        ("11.8", None, False),
        (None, None, True),
        ("2.0.1", "2.0.1", True),
    ],
)
def test_a_series_is_no_other_version_than_one_of_it(one: str | None, other: str | None, same: bool) -> None:
    assert same_version(one, other) is same


def test_nodes_that_the_run_left_out_keep_their_row() -> None:
    first = report({name: healthy() for name in ("n1", "n2", "n3")})
    nodes = {"n1": healthy()}
    second = report(nodes, inventory=["n1", "n2"], former=first, at="2026-11-26T00:00:00Z")
    assert list(second["nodes"]) == ["n1", "n2"]
    assert [row["carried"] for row in second["nodes"].values()] == [False, True]
    assert second["nodes"]["n2"]["at"] == fleets.AT
    assert second["drift"]["gone"]["nodes"] == ["n3"]
    assert second["summary"]["looked_at"] == 1


@pytest.mark.parametrize(
    "former",
    [
        None,
        {},
        {"schema": 99},
        {"schema": 1, "nodes": []},
        {"schema": 1, "at": fleets.AT, "nodes": {"n1": 3, "n2": {}}},
    ],
)
def test_a_former_report_that_cannot_be_read_is_none(former: Any) -> None:
    document = report({"n1": healthy()}, inventory=["n1", "n2"], former=former)
    assert document["nodes"]["n1"]["changes"] == []
    assert list(document["nodes"]) == ["n1"]


# ---- pictures -----------------------------------------------------------------------------------------------------------


def test_pictures_of_what_was_measured(large: Row) -> None:
    shown = {picture["title"]: picture for picture in pictures(large)}
    assert list(shown) == [
        "Training loss", "CPU matrix product", "GPU GEMM TF32", "GPU GEMM bfloat16", "GPU memory bandwidth",
        "host to GPU", "All-reduce across nodes",
    ]  # fmt: skip
    assert shown["GPU memory bandwidth"]["series"][-1]["labels"] == ["n65 GPU 0", "n107 GPU 0"]
    assert shown["Training loss"]["summary"].startswith("the median falls from 41.5 to 0.000")


def test_a_loss_below_the_axis_is_told_as_it_is() -> None:
    found = report_pictures._loss({"n1": {"loss": [[0, 42.5], [500, 6.8e-13]]}})
    assert found is not None
    assert found["summary"] == "the median falls from 42.5 to 6.8e-13 in 500 steps"
    assert found["series"][0]["points"][-1][1] == report_pictures.SMALLEST_LOSS


def test_a_curve_that_strays_is_drawn_by_itself() -> None:
    nodes = {f"n{number}": healthy() for number in range(1, 5)}
    training = next(c for c in nodes["n3"]["verdict"]["environments"][0]["checks"] if c["name"] == "mlp_training")
    training["measured"]["loss_curve"] = [[step, 41.5] for step, _loss in training["measured"]["loss_curve"]]
    loss = pictures(report(nodes))[0]
    assert [series["name"] for series in loss["series"] if series["kind"] == "stray"] == ["n3"]


def test_a_drawing_holds_shapes_and_texts_only(large: Row) -> None:
    for picture in pictures(large):
        root = report_plot.ElementTree.fromstring(report_plot.draw(picture))
        tags = {element.tag for element in root.iter()}
        assert tags <= report_plot.ELEMENTS
        assert {name for element in root.iter() for name in element.attrib} - {
            "aria-hidden",
            "focusable",
        } <= report_plot.ATTRIBUTES
        assert len(root.findall(".//path")) > 4


def test_without_the_drawing_package_the_report_says_which_one_it_is(
    large: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_plot, "drawer", lambda: None)
    page = report_render.html(large)
    assert "they need pygal" in page
    assert "<figure" not in page
    assert page.count("<tbody") == 128


# ---- files --------------------------------------------------------------------------------------------------------------


def test_every_format_is_written_and_the_last_one_kept(tmp_path: Path) -> None:
    directory = str(tmp_path / "new")
    assert report_files.former(directory) is None
    first = report({"n1": healthy()})
    names = [Path(path).name for path in report_files.write(directory, first)]
    assert names == ["report.html", "report.md", "report.csv", "report.json"]
    assert report_files.former(directory) == first
    report_files.write(directory, report({"n1": healthy(1)}, former=first))
    assert json.loads((tmp_path / "new/report-former.json").read_text()) == first


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GpufleetError, match="GF-REPORT-UNWRITABLE"):
        report_files.write(str(tmp_path / "file"), report({"n1": healthy()}))


def test_a_thousand_nodes_stay_small() -> None:
    given = fleets.fleet(1000)
    given["former"] = make(fleets.before(given))
    document = make(given)
    jsonschema.validate(document, SCHEMA)
    assert len(report_render.html(document).encode()) <= 1_000_000 + 1000 * 6_000
    assert len(report_render.md(document).encode()) < 60_000


def test_an_empty_fleet() -> None:
    document = report({})
    assert "0</b> of 0 nodes" in report_render.html(document)
    assert report_render.csv_text(document).count("\n") == 1


# ---- texts that want something ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile() -> Row:
    return make(fleets.hostile())


def obeys(text: str) -> list[str]:
    """The characters of a text that a terminal or an editor obeys."""
    return [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize(
    "render", [report_render.html, report_render.md, report_render.csv_text, report_render.json_text]
)
def test_no_format_moves_a_cursor_or_turns_the_writing(hostile: Row, render: Any) -> None:
    assert len(STRINGS) >= 60
    assert obeys(render(hostile)) == []


@pytest.mark.parametrize("text", STRINGS)
def test_a_text_is_one_harmless_line(text: str) -> None:
    found = clean(text)
    assert obeys(found) == []
    assert "\n" not in found
    assert len(found) <= 1000


def test_no_cell_of_the_csv_is_a_formula(hostile: Row) -> None:
    rows = list(csv.reader(io.StringIO(report_render.csv_text(hostile))))
    assert len(rows) == 1 + len(hostile["nodes"])
    assert {len(row) for row in rows} == {18}
    assert [c for row in rows for c in row if unicodedata.normalize("NFKC", c[:1]) in ("=", "+", "-", "@")] == []
    assert cell("=1+1") == "'=1+1"
    assert (cell(-3), cell(None), cell("n1")) == (-3, "", "n1")


def test_markdown_shows_the_texts_and_does_nothing_else(hostile: Row) -> None:
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(report_render.md(hostile))
    tags = {found.split(">")[0].split()[0].strip("</") for found in page.split("<")[1:]}
    assert tags <= {
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "strong",
        "code",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "hr",
        "br",
        "em",
    } - {"em", "hr"}
    assert page.count("<h2") == 4
    # What programs turn into a link or a mention by themselves.
    text = report_render.md(hostile)
    assert "http://evil" not in text
    assert "www.evil" not in text
    assert "@everyone" not in text


def test_markdown_escapes() -> None:
    assert markdown("a|b*c_d [x](y) <i> & http://x @me") == (
        r"a\|b\*c\_d \[x\]\(y\) &lt;i&gt; &amp; http:/&#47;x &#64;me"
    )


def test_json_keeps_the_names_as_they_are_and_is_ascii(hostile: Row) -> None:
    text = report_render.json_text(hostile)
    assert text.isascii()
    jsonschema.validate(json.loads(text), SCHEMA)
    assert set(json.loads(text)["nodes"]) == set(STRINGS)
