"""How far a run is, with a clock that stands still: counts, the estimate, the line at any width, the pace off a terminal."""

from __future__ import annotations

import random

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress import Progress
from ansible_collections.gpufleet.stack.plugins.plugin_utils.progress_text import (
    Pace,
    clock,
    duration,
    line,
    size,
    span_text,
)

STAGES = ["plan", "nvidia_driver", "cuda_toolkit", "cudnn", "python", "pytorch", "verify"]


def fleet(number: int, batch: int | None = None) -> Progress:
    progress = Progress(0.0)
    names = [f"n{each:03d}" for each in range(1, number + 1)]
    progress.begin_play(names[: batch or number], names, STAGES)
    return progress


def waves(progress: Progress, seconds: float, forks: int, until: float, total: int | None = None) -> None:
    """Every node takes as long as any other; as many as there are forks work at once."""
    names = sorted(progress.in_batch)
    progress.begin_step("t", "pytorch", "Build", len(names) if total is None else total)
    for index, name in enumerate(names):
        began = index // forks * seconds
        if began <= until:
            progress.start("t", name, began)
        if began + seconds <= until:
            progress.finish("t", name, began + seconds)


def test_nodes_are_counted_as_they_start_and_finish() -> None:
    progress = fleet(128)
    waves(progress, 60, 20, 130)
    step = progress.shown()
    assert step is not None
    assert (step.done, len(step.running), step.total) == (40, 20, 128)
    assert line(progress, 130) == (
        "gpufleet 2:10 | pytorch 6/7 | Build | 40 of 128 done, 20 running | step: 4 to 5 min more"
    )


@pytest.mark.parametrize("now", [61.0, 90.0, 119.0, 150.0, 200.0, 300.0])
def test_the_estimate_of_equal_nodes_has_the_truth_as_its_end(now: float) -> None:
    progress = fleet(128)
    waves(progress, 60, 20, now)
    step = progress.shown()
    assert step is not None
    span = step.left(now)
    assert span is not None
    assert 7 * 60 - now - 40 <= span[0] <= 7 * 60 - now == span[1]


def test_the_estimate_of_unequal_nodes_has_the_truth_in_it() -> None:
    """Seeded: 300 nodes, 20 at a time, 40 to 120 seconds each; asked a third and two thirds through."""
    draw = random.Random(6)  # noqa: S311 - lengths of tasks
    lengths = {f"n{each:03d}": draw.uniform(40, 120) for each in range(300)}
    events: list[tuple[float, str, bool]] = []
    free = [0.0] * 20
    for name, seconds in lengths.items():
        began = min(free)
        free[free.index(began)] = began + seconds
        events += [(began, name, True), (began + seconds, name, False)]
    end = max(free)
    for part in (0.33, 0.67):
        progress = Progress(0.0)
        progress.begin_play(lengths, lengths, STAGES)
        progress.begin_step("t", "pytorch", "Build", 300)
        for now, name, begins in sorted(events):
            if now <= end * part:
                progress.start("t", name, now) if begins else progress.finish("t", name, now)
        step = progress.shown()
        assert step is not None
        span = step.left(end * part)
        assert span is not None and span[0] <= end * (1 - part) <= span[1]


def test_there_is_no_estimate_before_there_is_ground_for_one() -> None:
    progress = fleet(128)
    progress.begin_step("t", "pytorch", "Build", 128)
    step = progress.shown()
    assert step is not None
    for name in ("n001", "n002", "n003", "n004"):
        progress.start("t", name, 0.0)
    for now, name in ((60.0, "n001"), (61.0, "n002")):
        progress.finish("t", name, now)
        assert step.left(62.0) is None
    progress.finish("t", "n003", 62.0)
    assert step.left(62.0) is not None
    assert "more" in line(progress, 62.0)


def test_a_node_alone_gets_no_estimate_and_no_counts() -> None:
    progress = fleet(1)
    progress.begin_step("t", "pytorch", "Build, prove and activate each environment", 1)
    progress.start("t", "n001", 0.0)
    assert line(progress, 600.0) == "gpufleet 10:00 | pytorch 6/7 | Build, prove and activate each environment"


def test_nodes_that_take_longer_than_all_others_are_named_and_nothing_is_foretold() -> None:
    progress = fleet(30)
    waves(progress, 60, 30, 0)
    for each in range(1, 29):
        progress.finish("t", f"n{each:03d}", 60.0)
    assert "more" in line(progress, 20.0) or "waiting" in line(progress, 20.0)
    text = line(progress, 300.0)
    assert "more" not in text
    assert "28 of 30 done, 2 running | waiting for n[029-030]" in text


def test_skipped_nodes_say_nothing_about_those_that_work() -> None:
    progress = fleet(100)
    progress.begin_step("t", "pytorch", "Build", 100)
    for each in range(1, 51):  # every fifth works for a minute, the others are skipped at once
        name = f"n{each:03d}"
        progress.start("t", name, 0.0)
        progress.finish("t", name, 60.0 if each % 5 == 0 else 0.1, skipped=each % 5 != 0)
    for each in range(51, 61):
        progress.start("t", f"n{each:03d}", 60.0)
    step = progress.shown()
    assert step is not None
    span = step.left(60.0)
    # 40 wait and 8 of them will work, in one round after those that run: two minutes. All of them would be five rounds of ten.
    assert span is not None and span[1] == 120


def test_a_step_that_nobody_can_count_has_no_total_and_no_estimate() -> None:
    progress = fleet(10)
    progress.begin_step("t", "nvidia_driver", "Bring the node back to what it had", None)
    for each in range(1, 6):
        progress.start("t", f"n{each:03d}", 0.0)
    for each in range(1, 5):
        progress.finish("t", f"n{each:03d}", 100.0)
    assert "4 done, 1 running" in line(progress, 101.0)
    assert "more" not in line(progress, 101.0)


def test_failed_nodes_come_to_no_further_step_and_rescued_ones_do() -> None:
    progress = fleet(10)
    progress.begin_step("a", "plan", "Look", 10)
    for each in range(1, 11):
        progress.start("a", f"n{each:03d}", 0.0)
        progress.finish("a", f"n{each:03d}", 1.0, lost=each <= 3)
    progress.begin_step("b", "nvidia_driver", "Rescue", None)
    progress.start("b", "n001", 1.0)
    progress.finish("b", "n001", 2.0)
    progress.begin_step("c", "pytorch", "Build", 10)
    assert "0 of 8 done, 0 running, 2 failed" in line(progress, 3.0)


def test_a_batch_says_which_nodes_of_the_play_it_is() -> None:
    progress = fleet(128, batch=20)
    names = [f"n{each:03d}" for each in range(1, 129)]
    progress.begin_step("t", "pytorch", "Build", 20)
    assert "nodes 1 to 20 of 128" in line(progress, 1.0)
    progress.begin_play(names[20:40], names, STAGES)
    progress.begin_step("t2", "pytorch", "Build", 20)
    assert "nodes 21 to 40 of 128" in line(progress, 2.0)


def test_with_a_free_strategy_the_step_is_shown_that_holds_the_others_up() -> None:
    progress = fleet(4)
    for key, name in (("a", "first"), ("b", "second")):
        progress.begin_step(key, "pytorch", name, 4)
        progress.start(key, "n001" if key == "b" else "n002", 0.0)
    progress.begin_step("a", "pytorch", "first", 4)
    assert "| first |" in line(progress, 1.0)
    progress.finish("a", "n002", 2.0)
    assert "| second |" in line(progress, 2.0)


def test_a_node_that_begins_with_a_task_is_through_with_the_one_before() -> None:
    progress = fleet(3)
    progress.begin_step("a", "pytorch", "include", 3)
    progress.start("a", "n001", 0.0)
    progress.begin_step("b", "pytorch", "included", 1)
    progress.start("b", "n001", 1.0)
    assert "| included | 0 of 1 done, 1 running" in line(progress, 1.0)


@pytest.mark.parametrize("width", [0, 1, 5, 12, 20, 39, 40, 60, 79, 80, 100, 300])
def test_the_line_fits_every_terminal(width: int) -> None:
    progress = fleet(128)
    waves(progress, 60, 20, 130)
    progress.fetched = 12_400_000_000
    text = line(progress, 130, width)
    assert len(text) <= width
    if width >= 39:
        assert text.startswith("2:10 | pytorch 6/7")
    if width >= 100:
        assert "12.4 GB transferred" in text and "more" in text
    if width >= 140:
        assert "Build" in text


def test_what_weighs_least_goes_first() -> None:
    progress = fleet(128)
    waves(progress, 60, 20, 130)
    progress.fetched = 12_400_000_000
    assert line(progress, 130, 93).split(" | ") == [
        "2:10",
        "pytorch 6/7",
        "40 of 128 done, 20 running",
        "12.4 GB transferred",
        "step: 4 to 5 min more",
    ]
    assert line(progress, 130, 79) == "2:10 | pytorch 6/7 | 40 of 128 done, 20 running | step: 4 to 5 min more"
    assert line(progress, 130, 60) == "2:10 | pytorch 6/7 | 40 of 128 done, 20 running"


def test_off_a_terminal_an_hour_is_told_in_fewer_than_25_lines() -> None:
    pace = Pace(30.0, 0.0)
    due = [now for now in range(12 * 3600) if pace.ask(float(now))]
    assert due[:6] == [30, 60, 90, 120, 150, 210]
    assert len([now for now in due if now <= 3600]) <= 23
    # Services end a job that is silent for ten minutes.
    assert max(later - former for former, later in zip(due, due[1:])) <= 480


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "under 1 min"), (59, "under 1 min"), (60, "1 min"), (440, "7 min"), (1500, "25 min"), (1610, "25 min"), (7300, "2 h")],
)  # fmt: skip
def test_an_estimate_is_no_more_exact_than_it_can_be(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("least", "most", "text"),
    [(5, 40, "under 1 min"), (5, 130, "up to 2 min"), (250, 290, "4 to 5 min"), (3000, 9000, "50 min to 2 h")],
)
def test_a_span_is_no_longer_than_it_must_be(least: float, most: float, text: str) -> None:
    assert span_text(least, most) == text


def test_times_and_sizes() -> None:
    assert [clock(each) for each in (-1, 0, 59.9, 61, 3723)] == ["0:00", "0:00", "0:59", "1:01", "1:02:03"]
    assert [size(each) for each in (900, 5_000_000, 2_330_000_000, 3 * 10**12)] == [
        "1 kB",
        "5.0 MB",
        "2.3 GB",
        "3.0 TB",
    ]
