"""Measure how far verdicts of ``deep bench`` can be trusted: what docs/performance.md says of them.

A small matrix product is measured again and again, each result in fresh processes as ``deep bench run`` does it.
Each result is compared with the one before it, and some with results of code that takes a little longer: by a real
delay within each call, of which the comparison knows nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.planted import MILLISECOND, Spin, spin
from benchmarks.testbed import conclude, machine, parser, reached, table
from pipelines.benchmark import compare, engine, method
from pipelines.benchmark.model import Parameters, Plan, Result
from pipelines.benchmark.workload import Resources

PART = "power"
KERNEL = "benchmarks.planted:Kernel"
SLOWER = (0.03, 0.05, 0.10)
COMPARISONS = 200
# Of so many comparisons without a change one is also made with each of the slower ones.
EVERY = 4
# Percent: false alarms of comparisons without a change; what the harness adds to a call of a millisecond.
FALSE_ALARMS, OVERHEAD = 1.0, 1.0
ROUNDS = 50


@dataclass(frozen=True)
class Found:
    """Verdicts of the comparisons by how much slower the code was (0: not at all), and the overhead in percent."""

    verdicts: dict[float, dict[str, int]]
    overhead: float


def measured(delay: float, processes: int) -> Result:
    """One result of the kernel, as ``deep bench run`` measures it with one thread."""
    parameters: dict[str, Parameters] = {"kernel": {"delay": delay}}
    plan = Plan(threads=1, processes=processes, parameters=parameters)
    return engine.run({"kernel": KERNEL}, plan).results[0]


def power(comparisons: int, processes: int) -> dict[float, dict[str, int]]:
    """Verdicts by how much slower the code was; everything in turns, so that the machine's moods meet all alike."""
    first = measured(0.0, processes)
    if first.summary is None:
        raise SystemExit(f"this machine does not become steady: {'; '.join(first.reasons)}")
    call = first.work / first.summary.median / 1e9
    verdicts: dict[float, Counter[str]] = {slower: Counter() for slower in (0.0, *SLOWER)}
    before = first
    for at in range(comparisons):
        after = {slower: measured(slower * call, processes) for slower in (*(SLOWER if at % EVERY == 0 else ()), 0.0)}
        for slower, one in after.items():
            (outcome,) = compare.compared([before], [one])
            verdicts[slower][outcome.verdict] += 1
        before = after[0.0]
        print(f"{at + 1} of {comparisons}: {dict(verdicts[0.0])}", file=sys.stderr, flush=True)
    return {slower: dict(counted) for slower, counted in verdicts.items()}


def overhead() -> float:
    """What the harness adds to calls of a millisecond, in percent of what a bare loop takes for as many."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        one = Spin()
        method.measure(one, Resources(1), repeats=30, limit=60, clock=time.perf_counter)
        ours = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(one.calls):
            spin(MILLISECOND)
        rounds.append(ours / (time.perf_counter() - began))
    return 100 * (statistics.median(rounds) - 1)


def percent(verdicts: dict[str, int], verdict: str) -> float:
    """The share of a verdict."""
    return 100 * verdicts.get(verdict, 0) / sum(verdicts.values())


def at_most(verdicts: dict[str, int], verdict: str) -> float:
    """The share of a verdict that is not exceeded, at 95 % (C. J. Clopper and E. S. Pearson, 1934)."""
    from scipy import stats

    counted = stats.binomtest(verdicts.get(verdict, 0), sum(verdicts.values()), alternative="less")
    return 100 * float(counted.proportion_ci(0.95, method="exact").high)


def render(found: Found, minutes: float) -> str:
    """What was measured, for docs/performance.md."""
    same = found.verdicts[0.0]
    alarms, bound = percent(same, "regression"), at_most(same, "regression")
    bounds = [
        ("comparisons without a change called a regression", alarms, FALSE_ALARMS),
        ("added to a call of a millisecond", found.overhead, OVERHEAD),
    ]
    kinds: Sequence[str] = ("regression", "no regression", "inconclusive")
    return "\n".join([
        f"Measured on {datetime.now(UTC).date().isoformat()} in {minutes:.0f} minutes: {machine()}.",
        f"So many comparisons show that at most {bound:.1f} % are false alarms (at 95 %).",
        *table(
            ("what", "measured", "bound", ""),
            [(what, f"{value:.2f} %", f"{bound:g} %", reached(value, bound)) for what, value, bound in bounds],
        ),
        *table(
            ("the code was slower by", "comparisons", *kinds),
            [
                (f"{slower:.0%}", sum(counts.values()), *(f"{percent(counts, kind):.1f} %" for kind in kinds))
                for slower, counts in found.verdicts.items()
            ],
        ),
    ])  # fmt: skip


def main() -> None:
    """Measure, and write it into the page when told to."""
    asked = parser(__doc__)
    asked.add_argument(
        "--comparisons", type=int, default=COMPARISONS, help="without a change; a quarter as many with each"
    )
    asked.add_argument("--processes", type=int, default=8, help="for each result")
    options = asked.parse_args()

    def measure() -> Found:
        return Found(power(options.comparisons, options.processes), overhead())

    conclude(PART, measure, render, write=options.write)


if __name__ == "__main__":
    main()
