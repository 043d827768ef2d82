"""The statistics of benchmarks: when samples are steady, what they say, and how two sets of them differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.benchmark.model import Direction, Summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[Any]

BATCH = 5
# Fewer batches say nothing, and minima among the last few are an accident of few numbers (White, Cobb and Spratt 2000).
FEWEST_BATCHES, LAST_BATCHES = 12, 5
CONFIDENCE = 0.95
# How likely one of the workloads of a comparison may be called slower though it is not.
LEVEL = 0.01
RESAMPLES = 999

Groups = Sequence[Sequence[float]]


def warm_up(samples: Sequence[float]) -> int | None:
    """How many of the first samples belong to the warm-up, ``None`` while the rest is not steady.

    MSER-5: K. P. White, M. J. Cobb, S. C. Spratt, "A comparison of five steady-state truncation heuristics for
    simulation", Winter Simulation Conference 2000. The truncation that makes the standard error of the mean of the
    remaining batches of five least; where that lies in the second half, the samples do not show a steady state.
    """
    count = len(samples) // BATCH
    if count < FEWEST_BATCHES:
        return None
    middle = sum(samples) / len(samples)  # taken off so that squares do not cancel out
    batches = [sum(samples[at * BATCH : (at + 1) * BATCH]) / BATCH - middle for at in range(count)]
    best, least = 0, float("inf")
    total = squares = 0.0
    for start in range(count - 1, -1, -1):
        total += batches[start]
        squares += batches[start] ** 2
        kept = count - start
        error = max(0.0, squares - total**2 / kept) / kept**2
        if kept >= LAST_BATCHES and error <= least:
            best, least = start, error
    return best * BATCH if best <= count // 2 else None


def summary(groups: Groups, seed: int) -> Summary:
    """Median and percentiles of all samples; the interval is that of the median at 95 %."""
    import numpy as np

    pooled = np.concatenate([np.asarray(one, dtype=float) for one in groups])
    resampled = [float(np.median(drawn)) for drawn in _drawn(groups, seed)]
    low, high = _bounds(resampled)
    median, p5, p25, p75, p95 = (float(one) for one in np.percentile(pooled, (50, 5, 25, 75, 95)))
    return Summary(median=median, low=low, high=high, p5=p5, p25=p25, p75=p75, p95=p95)


def change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """By how much ``after`` differs, relative to before, and the interval of that at 95 %; negative: smaller.

    The estimate is that of Hodges and Lehmann (1963), of ratios: the median of all of one after to one before. The
    interval inverts the test of Mann and Whitney (M. Hollander, D. A. Wolfe, E. Chicken, "Nonparametric Statistical
    Methods", 2014, 4.3, in the form for large samples).
    """
    import numpy as np
    from scipy import stats

    ratios = np.sort(np.divide.outer(np.asarray(after), np.asarray(before)).ravel()) - 1
    one, other = len(before), len(after)
    width = stats.norm.ppf((1 + CONFIDENCE) / 2) * (one * other * (one + other + 1) / 12) ** 0.5
    outside = max(0, int(one * other / 2 - width) - 1)
    return float(np.median(ratios)), float(ratios[outside]), float(ratios[-1 - outside])


def p_value(before: Sequence[float], after: Sequence[float], direction: Direction, margin: float) -> float:
    """How likely such samples are if they are not worse by more than ``margin``, relative to before.

    Mann and Whitney's U (1947), one-sided, with the samples before made worse by as much. Its exact distribution,
    which ``fewest`` counts on, is of figures without ties: medians of times hardly have any.
    """
    import numpy as np
    from scipy import stats

    worse, sign = ("less", -1) if direction == "higher" else ("greater", 1)
    shifted = np.asarray(before) * (1 + sign * margin)
    return float(stats.mannwhitneyu(after, shifted, alternative=worse, method="exact").pvalue)


def fewest(tests: int, level: float) -> int:
    """Samples on each side of which as many tests can show something at this level, corrected after Holm.

    Of the C(2n, n) ways to tell n samples from n others one is the likeliest: no test says less than its share. With
    fewer than the interval of ``change`` needs that is not one at 95 %.
    """
    least = min(level / tests, (1 - CONFIDENCE) / 2)
    return next(count for count in itertools.count(1) if 1 / math.comb(2 * count, count) < least)


def holm(values: Sequence[float]) -> list[float]:
    """The values corrected for their number (S. Holm 1979), in the same order."""
    ordered = sorted(range(len(values)), key=lambda at: values[at])
    corrected, highest = [0.0] * len(values), 0.0
    for rank, at in enumerate(ordered):
        highest = max(highest, min(1.0, values[at] * (len(values) - rank)))
        corrected[at] = highest
    return corrected


def _drawn(groups: Groups, seed: int) -> list[Floats]:
    """Samples drawn again: processes first, then samples of each, since those of one process are more alike.

    The two-stage bootstrap (A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application", 1997, 3.8), which
    SciPy does not have; with one process it is the plain one.
    """
    import numpy as np

    arrays = [np.asarray(one, dtype=float) for one in groups]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(len(arrays), size=len(arrays))
        drawn.append(np.concatenate([generator.choice(arrays[at], size=arrays[at].size) for at in chosen]))
    return drawn


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.percentile(values, (50 * (1 - CONFIDENCE), 100 - 50 * (1 - CONFIDENCE)))
    return float(low), float(high)
