"""The test for outliers: its bounds, small groups, values that are all the same or come in steps."""

from __future__ import annotations

from statistics import NormalDist

import pytest
from ansible_collections.gpufleet.stack.plugins.plugin_utils import outliers

from .judging import seeded


def worse(values: list[float], better: str = "higher", tests: int | None = None) -> list[int]:
    return outliers.worse(values, better, tests or len(values))


# From tables of Student's t, one-sided.
@pytest.mark.parametrize(
    ("value", "freedom", "chance"),
    [(6.314, 1, 0.05), (4.303, 2, 0.025), (2.353, 3, 0.05), (3.747, 4, 0.01), (2.571, 5, 0.025), (2.750, 30, 0.005)],
)
def test_the_tail_of_students_t_is_that_of_the_tables(value: float, freedom: int, chance: float) -> None:
    assert outliers._beyond(value, freedom) == pytest.approx(chance, rel=2e-3)


def test_the_bound_is_the_quantile_of_its_tail_and_goes_to_the_normal_one() -> None:
    assert outliers.bound(4, 1) == pytest.approx(3.747, abs=1e-3)
    assert outliers.bound(5000, 128) == pytest.approx(NormalDist().inv_cdf(0.99 ** (1 / 128)), rel=2e-3)
    assert outliers.bound(outliers.degrees(8), 8) > 5 > outliers.bound(outliers.degrees(128), 128)


@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 12, 16, 32, 64, 128])
def test_healthy_groups_of_every_size_name_nobody_more_often_than_stated(count: int) -> None:
    noise, runs = seeded(count), 1500
    named = sum(bool(worse([noise.gauss(100, 2) for _each in range(count)])) for _each in range(runs))
    # 1 % of 1,500 is 15; 25 is two and a half standard deviations more.
    assert named <= 25


@pytest.mark.parametrize("count", [5, 8, 128])
def test_one_at_half_the_speed_is_found_in_a_group_of_every_size(count: int) -> None:
    noise = seeded(1)
    values = [noise.gauss(100, 0.5) for _each in range(count)]
    values[3] = 50.0
    assert worse(values) == [3]


def test_fewer_than_five_are_not_judged() -> None:
    assert worse([100.0, 101.0, 99.0, 1.0]) == []


def test_only_the_worse_side_counts() -> None:
    noise = seeded(2)
    values = [noise.gauss(100, 1) for _each in range(32)]
    values[0], values[1] = 200.0, 50.0
    assert worse(values, "higher") == [1]
    assert worse(values, "lower") == [0]


def test_nearly_half_of_the_group_may_be_wrong() -> None:
    noise = seeded(3)
    values = [noise.gauss(100, 1) for _each in range(64)]
    values[:20] = [noise.gauss(40, 1) for _each in range(20)]
    assert worse(values) == list(range(20))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([12.0] * 8, []),
        ([0.0] * 8, []),
        ([12.0] * 7 + [6.0], [7]),
        ([12.0] * 125 + [6.0] * 3, [125, 126, 127]),
        # One step of the values, be it of the last digit, of whole numbers or of a coarse clock.
        ([12.0] * 7 + [11.9], []),
        ([1200.0] * 31 + [1199.0], []),
        ([12] * 7 + [11], []),
        ([12.0] * 122 + [11.5] * 3 + [12.5] * 3, []),
        ([12.0] * 122 + [11.5] * 2 + [12.5] * 2 + [6.0] * 2, [126, 127]),
        ([12.0] * 110 + [11.5] * 18, []),
    ],
)
def test_values_that_are_the_same_or_come_in_steps(values: list[float], found: list[int]) -> None:
    assert worse(values) == found


def test_a_difference_in_the_fourth_digit_is_none() -> None:
    values = [2901.0 + 0.1 * (place % 3) for place in range(32)]
    values[5] = 2897.5
    assert worse(values) == []
    values[5] = 2800.0
    assert worse(values) == [5]
