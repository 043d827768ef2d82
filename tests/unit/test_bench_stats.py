"""The statistics of benchmarks, against SciPy and against cases whose answer is known."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pipelines.benchmark import history, stats


def gauss(level: float, count: int, seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(level, 0.01) for _ in range(count)]


def naive_mser(samples: list[float]) -> int:
    """MSER-5 as its formula reads, to hold the running sums against."""
    batches = [np.mean(samples[at : at + 5]) for at in range(0, len(samples) - 4, 5)]
    errors = [float(np.var(batches[at:]) / (len(batches) - at)) for at in range(len(batches) - 4)]
    return errors.index(min(errors)) * 5


@pytest.mark.parametrize("seed", range(6))
def test_the_warm_up_is_the_one_of_the_formula(seed: int) -> None:
    samples = [2.0 * math.exp(-at / 6) + value for at, value in enumerate(gauss(1.0, 120, seed))]
    dropped = stats.warm_up(samples)
    assert dropped == naive_mser(samples)
    assert dropped is not None
    assert 10 <= dropped <= 60


def test_a_level_without_a_warm_up_loses_nothing() -> None:
    assert stats.warm_up([1.0] * 60) == 0


def test_too_few_samples_and_a_drift_are_not_steady() -> None:
    assert stats.warm_up([1.0] * 59) is None
    drift = [1 + at / 100 + value for at, value in enumerate(gauss(0.0, 200, 3))]
    assert stats.warm_up(drift) is None
    step = [1.0] * 70 + [2.0] * 50
    assert stats.warm_up(step) is None


def test_large_numbers_with_little_scatter_lose_no_digits() -> None:
    samples = [1e9 + value for value in gauss(0.0, 100, 5)]
    assert stats.warm_up(samples) == stats.warm_up([value - 1e9 for value in samples])


def test_the_interval_of_one_process_is_that_of_scipy() -> None:
    samples = gauss(10.0, 60, 7)
    ours = stats.summary([samples], seed=1)
    theirs = scipy_stats.bootstrap((samples,), np.median, method="percentile", n_resamples=9999, rng=2)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=width / 4)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=width / 4)
    assert ours.median == np.median(samples)
    assert [ours.p5, ours.p95] == pytest.approx(list(np.percentile(samples, (5, 95))))
    assert ours == stats.summary([samples], seed=1)
    assert ours != stats.summary([samples], seed=2)


def test_processes_that_differ_widen_the_interval() -> None:
    """Samples of a process are alike: as if they were independent, the interval would be far too narrow."""
    groups = [gauss(10.0 + at / 10, 50, at) for at in range(5)]
    apart, pooled = stats.summary(groups, 1), stats.summary([[value for one in groups for value in one]], 1)
    assert apart.high - apart.low > 2 * (pooled.high - pooled.low)


def test_the_change_is_that_of_hodges_and_lehmann() -> None:
    before, after = [1.0, 2.0, 4.0, 5.0, 10.0], [2.0, 3.0, 4.0, 5.0, 6.0]
    ratios = sorted(b / a - 1 for a in before for b in after)
    # Of 25 ratios the third from each end: 12.5 - 1.96 * sqrt(25 * 11 / 12) is 3.1.
    assert stats.change(before, after) == pytest.approx((ratios[12], ratios[2], ratios[-3]))
    assert stats.change([1.0], [3.0]) == (2.0, 2.0, 2.0)


def test_intervals_hold_a_known_change_as_often_as_they_say() -> None:
    held = 0
    for seed in range(400):
        _, low, high = stats.change(gauss(1.0, 8, seed), gauss(0.95, 8, seed + 1000))
        held += low <= -0.05 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_the_test_asks_for_the_worse_side() -> None:
    before, after = gauss(10.0, 30, 1), gauss(9.5, 30, 2)
    theirs = scipy_stats.mannwhitneyu(after, before, alternative="less", method="exact").pvalue
    assert stats.p_value(before, after, "higher", 0.0) == theirs < 0.001
    assert stats.p_value(before, after, "lower", 0.0) > 0.99


@pytest.mark.parametrize(("tests", "level"), [(1, 0.01), (2, 0.01), (3, 0.01), (30, 0.01), (30, 0.0001), (1, 0.1)])
def test_the_fewest_samples_suffice_and_fewer_do_not(tests: int, level: float) -> None:
    """The clearest difference there can be, corrected for all tests; one at 95 % is needed in any case."""
    few = stats.fewest(tests, level)

    def least(count: int) -> float:
        after, before = [1.0 + at / 100 for at in range(count)], [2.0 + at / 100 for at in range(count)]
        return stats.p_value(before, after, "higher", 0.02)

    assert least(few) * tests < level
    assert least(few - 1) * tests >= level or least(few - 1) >= 0.025


def test_more_tests_need_more_samples() -> None:
    assert [stats.fewest(tests, 0.01) for tests in (1, 2, 3, 9, 10, 34, 35)] == [5, 5, 6, 6, 7, 7, 8]


def test_only_what_is_worse_by_more_than_the_margin_counts() -> None:
    before = gauss(1.0, 8, 1)
    for direction, worse in (("higher", -1), ("lower", 1)):
        by = {change: [value * (1 + worse * change) for value in before] for change in (0.019, 0.021, 0.06)}
        p = {change: stats.p_value(before, after, direction, 0.02) for change, after in by.items()}  # type: ignore[arg-type]
        assert p[0.019] > 0.5 >= p[0.021]
        assert p[0.06] < 0.01


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_a_new_level_is_found_where_it_begins() -> None:
    values = gauss(10.0, 12, 1) + gauss(9.0, 12, 2)
    assert history.changes(values) == [12]


@pytest.mark.parametrize("values", [gauss(10.0, 40, 3), [5.0] * 20, gauss(1.0, 5, 1), [], [1.0]])
def test_a_level_has_no_change(values: list[float]) -> None:
    assert history.changes(values) == []


def test_one_odd_run_is_no_new_level() -> None:
    values = gauss(10.0, 24, 4)
    values[11] = 6.0
    assert history.changes(values) == []
