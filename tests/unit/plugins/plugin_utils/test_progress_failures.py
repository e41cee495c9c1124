"""The failures of a run, each told once; and nothing that a node says moves the cursor."""

from __future__ import annotations

import pytest
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.plugin_utils.fleet_text import plain
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress import Progress
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_failures import (
    UNTOLD,
    End,
    Failure,
    end_line,
    failure,
    failure_lines,
)
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_text import line


def full(host: str) -> dict[str, str]:
    """As a module's result has it."""
    message = f"/opt on {host} has 3 GiB free, 12 are needed"
    return {"msg": str(GpufleetError("GF-DISK-SPACE", message, "a full disk", f"make room on {host}, then run again"))}


def test_an_error_with_a_code_is_taken_apart() -> None:
    assert failure(full("n7")) == Failure(
        "GF-DISK-SPACE",
        "/opt on n7 has 3 GiB free, 12 are needed",
        (),
        "a full disk",
        "make room on n7, then run again",
    )


def test_the_same_failure_of_many_nodes_is_told_once() -> None:
    failures = {f"n{each}": failure(full(f"n{each}")) for each in range(1, 129)}
    assert failure_lines(failures) == [
        "GF-DISK-SPACE on n[1-128] (128 nodes): /opt on NODE has 3 GiB free, 12 are needed",
        "  cause: a full disk",
        "  mend: make room on NODE, then run again",
    ]


def test_one_node_keeps_its_name() -> None:
    assert failure_lines({"n7": failure(full("n7"))}) == [
        "GF-DISK-SPACE on n7: /opt on n7 has 3 GiB free, 12 are needed",
        "  cause: a full disk",
        "  mend: make room on n7, then run again",
    ]


def test_a_name_within_another_name_is_left_alone() -> None:
    failures = {
        "n1": failure({"msg": "GF-A: n1 and n11 and x-n1 and n1.local"}),
        "n2": failure({"msg": "GF-A: n2 and n11 and x-n1 and n2.local"}),
    }
    assert failure_lines(failures) == ["GF-A on n[1-2] (2 nodes): NODE and n11 and x-n1 and NODE.local"]


def test_different_messages_of_one_code_stand_below_it_the_commonest_first() -> None:
    failures = {f"n{each}": Failure("GF-X", "often", (), "c", "m") for each in range(1, 6)}
    failures |= {f"m{each}": Failure("GF-X", f"message {each}", (), "c", "m") for each in range(1, 6)}
    assert failure_lines(failures) == [
        "GF-X on m[1-5], n[1-5] (10 nodes):",
        "  n[1-5]: often",
        "  m1: message 1",
        "  m2: message 2",
        "  and 3 more that differ",
        "  cause: c",
        "  mend: m",
    ]


def test_the_checks_of_a_verdict_are_details() -> None:
    text = (
        "GF-VERIFY-FAILED: 1 check failed on n7\n  default/gpu_kernel: no kernel image\n"
        "  cause: the driver does not run\n  mend:  look at nvidia-smi"
    )
    assert failure_lines({"n7": failure({"msg": text}), "n8": failure({"msg": text.replace("n7", "n8")})}) == [
        "GF-VERIFY-FAILED on n[7-8] (2 nodes): 1 check failed on NODE",
        "  default/gpu_kernel: no kernel image",
        "  cause: the driver does not run",
        "  mend: look at nvidia-smi",
    ]


def test_a_loop_says_what_its_item_said() -> None:
    result = {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, **full("n7")}]}
    assert failure(result).code == "GF-DISK-SPACE"


def test_several_codes_of_a_plan_stay_together() -> None:
    found = failure({"msg": "GF-CUDA-NONE, GF-GPU-OLD: this node cannot be planned, see the plan above"})
    assert (found.code, found.message) == (
        "GF-CUDA-NONE, GF-GPU-OLD",
        "this node cannot be planned, see the plan above",
    )


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({}, UNTOLD.message),
        ({"msg": None}, UNTOLD.message),
        ({"msg": "\n\n"}, UNTOLD.message),
        ({"results": [1, {"failed": True}], "msg": "One or more items failed"}, "One or more items failed"),
        ({"msg": "MODULE FAILURE\nsee stdout"}, "MODULE FAILURE"),
        ({"msg": {"a": 1}}, "{'a': 1}"),
        ({"stderr": "no such file"}, "no such file"),
    ],
)
def test_a_failure_without_a_code_says_what_there_is(result: dict[str, object], message: str) -> None:
    assert failure(result)[:2] == ("failed", message)


def test_nodes_that_are_not_reached_are_one_failure() -> None:
    failures = {
        host: failure({"msg": f"Failed to connect to the host via ssh: connect to host {host} port 22: refused"}, True)
        for host in ("gpu01.site", "gpu02.site")
    }
    found = failure_lines(failures)
    assert found[0].startswith("not reached on gpu[01-02].site (2 nodes): Failed to connect to the host via ssh")
    assert found[-1].startswith("  mend: try ssh")


def test_a_long_message_is_cut_and_the_names_are_not() -> None:
    failures = {f"host-{each * 7919}": Failure("GF-X", "m" * 5000) for each in range(40)}
    (found,) = failure_lines(failures)
    assert len(found) < 2000 and ",308841] (40 nodes)" in found and found.endswith("...")


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End(128, 0, 0, 0, 252, 245_000_000_000), "gpufleet all 128 nodes got through, 245.0 GB transferred, in 4 min"),
        (End(128, 2, 1, 0, 30, 0), "gpufleet 125 of 128 nodes got through, 2 failed, 1 not reached, in 30 s"),
        (End(4, 1, 0, 3, 3, 0), "gpufleet 0 of 4 nodes got through, 1 failed, 3 stopped because others failed, in 3 s"),
        (End(1, 0, 0, 0, 40, 0), "gpufleet the node got through, in 40 s"),
        (End(1, 1, 0, 0, 40, 0), "gpufleet the node did not get through, in 40 s"),
    ],
)
def test_the_run_in_one_line(end: End, text: str) -> None:
    assert end_line(end) == text


HOSTILE = [
    "\x1b[2J\x1b[H",  # clear the screen, go home
    "\x1b[31mred\x1b[0m",
    "\x1b[10;10Hmoved",
    "\x1b[1A\x1b[2Kgone",  # the line above
    "\x1b]0;title\x07",  # the window's title
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",  # a link
    "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
    "\x1bP1$r0m\x1b\\",  # a device control string
    "\x1bc",  # full reset
    "\x1b7\x1b8",
    "\x1b",  # cut off
    "\x1b[",
    "\x1b[999999999C",
    "\x1b[?1049h\x1b[?25l",  # another screen, no cursor
    "\x9b2J",  # the same in eight bits
    "\x9d0;title\x9c",
    "\x90q\x9c",
    "one\rtwo",  # over the line's beginning
    "one\ntwo\x0b\x0cthree",
    "\x08\x08\x08back",
    "tab\tbell\x07null\x00delete\x7f",
    "\u202eright to left\u202c",
    "\u2066isolated\u2069\u200f\u200e",
    "\ufeffmark\u200bwidth\u200d",
    "\u2028line\u2029paragraph\x85",
    "a\u0301\u0302\u0303\u0304\u0305" * 20,  # marks that pile up
    "\U000e0041\U000e0042tags",
    "\udc9b31m",  # no character at all
    "\uff1b\u4e2d\u6587",  # twice as wide as it counts
    "\x0e\x0fother characters",
    "\x05\x06answer back",
    "\x1b[6n\x1b[c",  # the terminal would type
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_hostile_gets_to_a_terminal(text: str) -> None:
    told = failure({"msg": f"GF-X: {text}\n  {text}\n  cause: {text}\n  mend:  {text}"})
    lines = failure_lines({f"n{text}": told, "n2": told, f"{text}3": failure({"msg": text})})
    progress = Progress(0.0)
    progress.begin_play([f"n{text}", "n2"], [f"n{text}", "n2"], [text])
    progress.begin_step("t", text, text, 2)
    for host in (f"n{text}", "n2"):
        progress.start("t", host, 0.0)
    progress.finish("t", "n2", 1.0)
    lines.append(line(progress, 2.0))
    assert all(" " <= character <= "~" for each in lines for character in each), lines
    assert len(line(progress, 2.0, 60)) <= 60


def test_there_are_enough_of_them_and_plain_words_stay() -> None:
    assert len(HOSTILE) >= 20
    assert plain("NVIDIA A100-SXM4-40GB: 4 x") == "NVIDIA A100-SXM4-40GB: 4 x"
