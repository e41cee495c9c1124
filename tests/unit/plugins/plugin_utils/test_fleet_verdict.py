"""What the answers of all nodes come to: each fault on its own names who has it, and nobody else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.gpufleet.stack.plugins.filter.fleet_lines import fleet_lines
from ansible_collections.gpufleet.stack.plugins.filter.fleet_verdict import fleet_verdict
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_verdict import make_verdict, name_of

from .fleets import brief, good, stuck

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[4] / "docs/schemas/fleet-verdict.schema.json").read_text(encoding="utf-8")
)
AT = "2026-11-25T18:00:00Z"
ALL = ("finished", "all_reduce", "ddp_parameters", "ddp_equals_single", "pairs")


def judge(fleet: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    """The verdict, after the schema and as JSON can hold it."""
    found = make_verdict(fleet, answers, AT)
    jsonschema.validate(json.loads(json.dumps(found, allow_nan=False)), SCHEMA)
    return found


def named(found: dict[str, Any]) -> list[str]:
    return [name_of(suspect) for suspect in found["suspects"]]


def failed(found: dict[str, Any]) -> list[str]:
    return [check["name"] for check in found["checks"] if check["status"] == "failed"]


def report(answers: dict[str, Any], host: str) -> dict[str, Any]:
    found: dict[str, Any] = answers[host]["ranks"][0]
    return found


def test_all_is_well() -> None:
    fleet = brief()
    found = judge(fleet, good(fleet))
    assert found["ok"] and found["suspects"] == []
    assert {check["name"]: check["status"] for check in found["checks"]} == dict.fromkeys(ALL, "passed")
    assert (found["at"], found["hosts"], found["world_size"]) == (AT, ["n1", "n2", "n3", "n4"], 4)
    # A sum is there when the slowest rank has it.
    assert found["all_reduce"][0] == {"bytes": 4, "seconds": 0.004, "gib_s": 4 / 1e6 / 4}
    assert len(found["pairs"]) == 6 and found["pairs"][0]["hosts"] == ["n1", "n2"]
    assert fleet_lines(found)[0] == "n[1-4]: 4 ranks computed together (gloo), 5 checks passed in 12.0 s"


def test_two_nodes_have_nothing_to_compare_their_link_with() -> None:
    fleet = brief(2)
    found = judge(fleet, good(fleet))
    assert found["ok"]
    assert found["checks"][-1]["status"] == "skipped"
    assert "nothing to compare" in found["checks"][-1]["message"]
    assert fleet_lines(found)[-1] == "one link: 1 GiB/s"


# ---- who did not come to the end ------------------------------------------------------------------------------------


def lost_by_all(answers: dict[str, Any], but: str) -> None:
    """What follows from the end of one: all others lose a connection."""
    for host in answers:
        if host != but:
            stuck(report(answers, host), [4, 1], "all_reduce", "4096 bytes", kind="lost")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "it gave no answer: it is down, frozen or cut off"),
        ({"failed": True, "msg": "Timed out after 140 second(s)."}, "Timed out after 140"),
        ({"unreachable": True, "msg": "Failed to connect to the host via ssh"}, "Failed to connect"),
    ],
    ids=["nothing", "timed out", "unreachable"],
)
def test_a_node_without_an_answer_is_named(answer: Any, why: str) -> None:
    fleet = brief()
    answers = good(fleet)
    lost_by_all(answers, "n3")
    del answers["n3"]
    if answer:
        answers["n3"] = answer
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n3"], ["finished"])
    assert why in found["suspects"][0]["why"]
    assert found["checks"][1]["status"] == "skipped"


def test_a_killed_rank_is_named_and_not_those_that_lost_it() -> None:
    fleet = brief()
    answers = good(fleet)
    lost_by_all(answers, "n2")
    step = {"at": [4, 1], "phase": "all_reduce", "detail": "4096 bytes"}
    report(answers, "n2").update(ended="signal", rc=-9, answer=None, step=step)
    found = judge(fleet, answers)
    assert named(found) == ["n2"]
    assert found["suspects"][0]["why"] == "rank 1 in all_reduce (4096 bytes) was ended by SIGKILL"


def test_a_frozen_rank_is_named_with_its_state() -> None:
    fleet = brief()
    answers = good(fleet)
    lost_by_all(answers, "n1")
    step = {"at": [7, 3], "phase": "training", "detail": "step 4 of 40"}
    report(answers, "n1").update(ended="frozen", rc=-9, state="T", answer=None, step=step)
    found = judge(fleet, answers)
    assert named(found) == ["n1"]
    expected = "rank 0 in training (step 4 of 40) gave no sign of life: its process was stopped"
    assert found["suspects"][0]["why"] == expected


def test_a_rank_with_an_error_of_its_own_is_named() -> None:
    fleet = brief()
    answers = good(fleet)
    lost_by_all(answers, "n4")
    stuck(report(answers, "n4"), [7, 0], "training", kind="own")["answer"]["error"]["text"] = "RuntimeError: no memory"
    found = judge(fleet, answers)
    assert named(found) == ["n4"] and "no memory" in found["suspects"][0]["why"]


def test_a_rank_that_left_no_answer_is_named_with_its_last_words() -> None:
    fleet = brief()
    answers = good(fleet)
    lost_by_all(answers, "n4")
    report(answers, "n4").update(rc=1, answer=None, step=None, stderr="Traceback\nImportError: libcudnn.so.8")
    found = judge(fleet, answers)
    assert named(found) == ["n4"] and "libcudnn" in found["suspects"][0]["why"]


def test_where_all_waited_the_one_behind_is_named() -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        stuck(report(answers, host), [7, 12] if host == "n2" else [7, 13], "training")
    found = judge(fleet, answers)
    assert named(found) == ["n2"] and "waited for it" in found["suspects"][0]["why"]


def test_where_all_are_as_far_nobody_is_named() -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        stuck(report(answers, host), [7, 12], "training")
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == ([], ["finished"])
    assert "suspected: nobody" in fleet_lines(found)[0]


def test_a_link_through_which_nothing_comes_is_named() -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        stuck(report(answers, host), [3, 1] if host in ("n2", "n4") else [3, 2], "pairs", "with rank 3")
    assert named(judge(fleet, answers)) == ["the link n2 - n4"]


def test_a_node_that_never_came_is_named() -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        kind = "lost" if host == "n3" else "stopped"
        stuck(report(answers, host), [1, 0], "rendezvous", kind=kind)
        if host != "n3":
            report(answers, host)["answer"]["missing"] = [2]
    assert named(judge(fleet, answers)) == ["n3"]


@pytest.mark.parametrize(
    ("links", "names"),
    [([[1, 3]], ["the link n2 - n4"]), ([[0, 3], [1, 3], [2, 3]], ["n4"]), ([[0, 3], [1, 3]], ["n4"])],
    ids=["a link", "a node", "most links of a node"],
)
def test_what_cannot_be_reached_is_named(links: list[list[int]], names: list[str]) -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        stuck(report(answers, host), [1, 1], "rendezvous", kind="stopped")["answer"]["unreachable"] = links
    assert named(judge(fleet, answers)) == names


def test_a_node_that_could_not_take_part_is_named_though_the_others_did_well() -> None:
    fleet = {**brief(), "absent": [{"host": "n9", "why": "no route to host"}]}
    found = judge(fleet, good(fleet))
    assert (found["ok"], named(found)) == (False, ["n9"])
    assert "no route to host" in found["suspects"][0]["why"]


# ---- who computes wrongly -------------------------------------------------------------------------------------------


def wrong_sums(answers: dict[str, Any], fleet: dict[str, Any], culprits: set[int]) -> None:
    """All have wrong sums of all ranks, and the halves with a culprit in them are wrong."""
    for host in fleet["hosts"]:
        answer = report(answers, host)["answer"]
        for row in answer["all_reduce"]:
            row["right"] = False
        rank = answer["rank"]
        world = fleet["world_size"]
        answer["halves"] = []
        for bit in range(max(1, (world - 1).bit_length())):
            members = {other for other in range(world) if (other >> bit & 1) == (rank >> bit & 1)}
            row = {"bit": bit, "value": rank >> bit & 1, "right": not members & culprits}
            answer["halves"].append(row)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13])
def test_the_rank_that_adds_wrongly_is_spelled_by_the_halves(count: int) -> None:
    fleet = brief(count)
    for culprit in range(count):
        answers = good(fleet)
        wrong_sums(answers, fleet, {culprit})
        found = judge(fleet, answers)
        assert (named(found), failed(found)) == ([f"n{culprit + 1}"], ["all_reduce"])


def test_one_wrong_result_among_right_ones_names_its_rank() -> None:
    fleet = brief()
    answers = good(fleet)
    report(answers, "n3")["answer"]["all_reduce"][1]["right"] = False
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n3"], ["all_reduce"])
    assert "4096 bytes" in found["checks"][1]["message"]


def test_sizes_that_were_left_out_are_not_measured() -> None:
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        report(answers, host)["answer"]["all_reduce"][1].update(seconds=None, gib_s=None, right=None)
    found = judge(fleet, answers)
    assert found["ok"]
    assert [row["bytes"] for row in found["all_reduce"]] == [4]
    assert found["checks"][1]["measured"] == {"sizes": [4], "left_out": [4096]}


def test_other_parameters_name_the_few() -> None:
    fleet = brief()
    answers = good(fleet)
    report(answers, "n2")["answer"]["training"]["parameters"] = "other"
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n2"], ["ddp_parameters"])


def test_wrong_gradients_name_the_one_whom_most_accuse() -> None:
    """The one who computes wrongly finds all others wrong."""
    fleet = brief()
    answers = good(fleet)
    for host in fleet["hosts"]:
        training = report(answers, host)["answer"]["training"]
        training.update(equal=False, difference="nan", strangers=[0, 1, 3] if host == "n3" else [2])
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n3"], ["ddp_equals_single"])
    assert found["checks"][3]["measured"]["difference"] == "nan"


def test_of_two_who_accuse_each_other_both_are_named() -> None:
    fleet = brief(2)
    answers = good(fleet)
    for host, stranger in (("n1", 1), ("n2", 0)):
        report(answers, host)["answer"]["training"].update(equal=False, difference=1.0, strangers=[stranger])
    assert sorted(named(judge(fleet, answers))) == ["n1", "n2"]


# ---- links ----------------------------------------------------------------------------------------------------------


def rate(answers: dict[str, Any], fleet: dict[str, Any], one: str, other: str, value: float) -> None:
    for host, peer in ((one, other), (other, one)):
        for row in report(answers, host)["answer"]["pairs"]:
            if row["peer"] == fleet["ranks"][peer][0]:
                row["gib_s"] = [0.9 * value, value, 0.95 * value]


@pytest.mark.parametrize("count", [3, 4, 8, 128])
def test_a_slow_node_is_named_and_not_its_links(count: int) -> None:
    fleet = brief(count, forks=count)
    answers = good(fleet)
    drawn = random.Random(count)  # noqa: S311 - a seeded sample
    for number, host in enumerate(fleet["hosts"]):
        for other in fleet["hosts"][number + 1 :]:
            noise = 1 + 0.4 * drawn.random()
            rate(answers, fleet, host, other, 0.05 * noise if "n2" in (host, other) else noise)
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n2"], ["pairs"])


@pytest.mark.parametrize("count", [3, 4, 8])
def test_a_slow_link_is_named_and_not_its_nodes(count: int) -> None:
    fleet = brief(count)
    answers = good(fleet)
    rate(answers, fleet, "n1", "n3", 0.1)
    found = judge(fleet, answers)
    assert named(found) == ["the link n1 - n3"]
    assert "usual is 1" in found["suspects"][0]["why"]


def test_beside_a_rank_that_is_stopped_no_link_is_called_slow() -> None:
    fleet = brief()
    answers = good(fleet)
    rate(answers, fleet, "n1", "n3", 0.1)
    report(answers, "n2").update(ended="frozen", rc=-9, state="T", answer=None)
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["n2"], ["finished"])
    assert "speed of the links is not judged" in found["checks"][-1]["message"]


def test_noise_names_nobody() -> None:
    fleet = brief(6)
    answers = good(fleet)
    # Measured on six ranks that share two cores.
    rates = [1.97, 0.57, 1.31, 1.03, 1.42, 0.53, 0.88, 0.79, 0.93, 1.21, 1.25, 0.69, 1.1, 0.75, 1.5]
    pairs = [(one, other) for one in fleet["hosts"] for other in fleet["hosts"] if one < other]
    for (one, other), value in zip(pairs, rates, strict=True):
        rate(answers, fleet, one, other, value)
    assert judge(fleet, answers)["ok"]


def test_a_link_whose_own_exchanges_differ_is_not_called_slow() -> None:
    """Something else went on: it was 0.3 once, and mostly a tenth of that."""
    fleet = brief()
    answers = good(fleet)
    report(answers, "n1")["answer"]["pairs"][1]["gib_s"] = [0.03, 0.3, 0.04]
    assert judge(fleet, answers)["ok"]
    report(answers, "n1")["answer"]["pairs"][1]["gib_s"] = [0.03, 0.03, 0.04]
    assert named(judge(fleet, answers)) == ["the link n1 - n3"]


def test_of_two_measurements_of_a_link_the_better_one_counts() -> None:
    fleet = brief()
    answers = good(fleet)
    pairs = report(answers, "n1")["answer"]["pairs"]
    again = {**pairs[0], "gib_s": [0.9, 1.0, 0.95]}
    pairs[0]["gib_s"] = [0.05, 0.05, 0.05]
    assert named(judge(fleet, answers)) == ["the link n1 - n2"]
    pairs.append(again)
    found = judge(fleet, answers)
    assert found["ok"] and found["pairs"][0] == {"hosts": ["n1", "n2"], "gib_s": 1.0}


def test_data_that_changed_on_its_way_names_the_link() -> None:
    fleet = brief()
    answers = good(fleet)
    report(answers, "n4")["answer"]["pairs"][0]["right"] = False
    found = judge(fleet, answers)
    assert (named(found), failed(found)) == (["the link n1 - n4"], ["pairs"])


# ---- lines and filters ----------------------------------------------------------------------------------------------


def test_lines_name_the_suspect_first_and_say_what_to_do() -> None:
    fleet = brief()
    answers = good(fleet)
    report(answers, "n2")["answer"]["training"]["parameters"] = "other"
    lines = fleet_lines(judge(fleet, answers))
    assert lines[0] == "GF-FLEET-FAILED: the check of n[1-4] failed; suspected: n2"
    assert any(line.startswith("  cause: n2: ") for line in lines) and lines[-1].startswith("  mend:  ")


def test_the_filter_picks_the_answers() -> None:
    fleet = brief()
    answers = good(fleet)
    variables: dict[str, Any] = {host: {"__verify_fleet_answer": answer} for host, answer in answers.items()}
    assert fleet_verdict(fleet, variables, AT)["ok"]
    variables["n4"] = {}
    assert named(fleet_verdict(fleet, variables, AT)) == ["n4"]
