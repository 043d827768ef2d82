"""Comparisons: the three verdicts, and everything that keeps a comparison from having one."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.benchmark import compare, stats
from pipelines.benchmark.compare import Outcome, Rule, compared, overall
from testbed.errors import DeepError
from tests.unit.bench_toys import H200, MACHINE, noise, result


def only(before: Any, after: Any, rule: Rule | None = None, **options: Any) -> Outcome:
    """The outcome of one workload."""
    (one,) = compared([before], [after], rule, **options)
    return one


@pytest.mark.parametrize("slower", [0.03, 0.05, 0.10])
def test_slower_is_a_regression(slower: float) -> None:
    one = only(result(noise(100.0)), result(noise(100 * (1 - slower), seed=2)))
    assert one.verdict == "regression"
    assert one.change == pytest.approx(-slower, abs=0.005)
    assert one.p is not None
    assert one.p < 1e-3
    assert one.reason.startswith(f"{one.change:+.1%} (")


@pytest.mark.parametrize("level", [100.0, 99.9, 110.0])
def test_as_fast_and_faster_is_none(level: float) -> None:
    assert only(result(noise(100.0)), result(noise(level, seed=5))).verdict == "no regression"


def test_where_lower_is_better_more_is_a_regression() -> None:
    latency = {"unit": "ms", "direction": "lower"}
    before = result(noise(10.0), **latency)
    slower = only(before, result(noise(11.0, seed=5), **latency))
    faster = only(before, result(noise(9.0, seed=5), **latency))
    assert (slower.verdict, faster.verdict) == ("regression", "no regression")
    assert slower.change == pytest.approx(-0.1, abs=0.01)
    assert slower.low is not None
    assert slower.high is not None
    assert slower.low < -0.1 < slower.high < 0


def test_a_sure_but_small_change_is_no_regression() -> None:
    one = only(result(noise(100.0)), result(noise(99.2, seed=5)))
    assert one.verdict == "no regression"
    assert one.high is not None
    assert one.high < 0
    assert only(result(noise(100.0)), result(noise(99.2, seed=5)), Rule(minimum=0.002)).verdict == "regression"


@pytest.mark.parametrize("level", [97.0, 100.0])
def test_wide_intervals_show_nothing(level: float) -> None:
    one = only(result(noise(100.0, scatter=0.2)), result(noise(level, seed=5, scatter=0.2)))
    assert one.verdict == "inconclusive"
    assert one.reason.startswith("the interval is too wide")


def test_processes_that_differ_among_themselves_show_nothing() -> None:
    """Half were slow, now more are: of so many calls that would be sure, of the processes it is not."""
    before = result([*noise(100.0, processes=4), *noise(90.0, processes=4, seed=3)])
    one = only(before, result([*noise(100.0, processes=2, seed=4), *noise(90.0, processes=6, seed=5)]))
    assert one.verdict == "inconclusive"


@pytest.mark.parametrize(("processes", "verdict"), [(4, "inconclusive"), (5, "regression")])
def test_too_few_processes_show_nothing(processes: int, verdict: str) -> None:
    one = only(result(noise(100.0)), result(noise(50.0, processes=processes)))
    assert one.verdict == verdict
    said = "too few processes for 1 workload: 8 before, 4 now, needed at least 5; it looks slower: -50.0% ("
    assert one.reason.startswith(said) == (processes == 4)


def several(count: int, processes: int, level: float = 50.0) -> list[Outcome]:
    """So many workloads of so many processes, once at 100 and once at this level."""
    sides = [result(noise(one, processes=processes, seed=int(one))) for one in (100.0, level + 0.1)]
    before, after = ([one.model_copy(update={"workload": f"w{at}"}) for at in range(count)] for one in sides)
    return compared(before, after)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 30])
def test_the_fewest_processes_can_show_something_of_each_workload(count: int) -> None:
    fewest = stats.fewest(count, Rule().level)
    assert {one.verdict for one in several(count, fewest)} == {"regression"}
    assert {one.p for one in several(count, fewest - 1)} == {None}


def test_too_few_processes_for_so_many_workloads_are_told() -> None:
    one, *others = several(3, 5)
    assert one.reason.startswith("too few processes for 3 workloads: 5 before, 5 now, needed at least 6; it looks")
    assert {each.verdict for each in (one, *others)} == {"inconclusive"}
    assert several(3, 5, 100.0)[0].reason.endswith("needed at least 6")


def test_what_looks_slower_is_never_let_through() -> None:
    """Whether too little was measured, or on a machine that had other work."""
    assert not compare.passes(several(3, 5), lenient=True)
    assert compare.passes(several(3, 5, 100.0), lenient=True)
    assert not compare.passes(several(3, 5, 100.0))
    suspect = result(noise(50.0), status="suspect", reasons=("other work",))
    assert not compare.passes([only(result(noise(100.0)), suspect)], lenient=True)
    other = result(noise(50.0), parameters={"size": 2048})
    assert compare.passes([only(result(noise(100.0)), other)], lenient=True), "figures of something else say nothing"


def test_what_is_likely_slower_and_not_surely_says_so() -> None:
    one = only(result(noise(100.0, scatter=0.09)), result(noise(94.0, seed=5, scatter=0.09)), Rule(level=0.0001))
    assert (one.verdict, one.worse) == ("inconclusive", True)
    assert one.reason.startswith("not sure enough at 0.0001; more processes help; it looks slower: -6")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threads": 2}, "measured otherwise: size 1024, threads 4 before, size 1024, threads 2 now"),
        ({"parameters": {"size": 2048}}, "measured otherwise"),
        ({"unit": "TFLOP/s"}, "measured otherwise"),
        ({"status": "invalid", "summary": None, "reasons": ("never steady",)}, "invalid now: never steady"),
    ],
)
def test_what_is_not_comparable_shows_nothing(changes: dict[str, Any], said: str) -> None:
    one = only(result(noise(100.0)), result(noise(50.0), **changes))
    assert one.verdict == "inconclusive"
    assert one.reason.startswith(said)


def test_a_suspect_figure_shows_nothing() -> None:
    hot: dict[str, Any] = {"status": "suspect", "reasons": ("its clock is held down",)}
    assert only(result(noise(100.0)), result(noise(100.0, seed=5), **hot)).reason.startswith("suspect now: its clock")
    slower = only(result(noise(100.0)), result(noise(50.0, seed=5), **hot))
    assert (slower.verdict, slower.p) == ("inconclusive", None)
    assert slower.change == pytest.approx(-0.5, abs=0.01)
    assert only(result(noise(50.0), **hot), result(noise(100.0))).reason.startswith("suspect before")


def test_workloads_of_one_side_show_nothing() -> None:
    outcomes = compared(
        [result(noise(1.0), "a"), result(noise(1.0), "b")], [result(noise(1.0), "b"), result(noise(1.0), "c")]
    )
    assert [(one.workload, one.verdict) for one in outcomes] == [
        ("a", "inconclusive"), ("b", "no regression"), ("c", "inconclusive"),
    ]  # fmt: skip
    assert outcomes[0].reason == "measured before only"
    assert overall(outcomes) == "inconclusive"


def test_other_devices_are_refused_unless_asked_for() -> None:
    here, there = result(noise(100.0)), result(noise(50.0), device="Other, 64 CPUs")
    with pytest.raises(DeepError, match=r"different devices .*Toy, 4 CPUs and Other, 64 CPUs"):
        only(here, there)
    one = only(here, there, across=True)
    assert (one.verdict, one.p) == ("inconclusive", None)
    assert one.change == pytest.approx(-0.5, abs=0.01)


def test_several_workloads_are_corrected_for() -> None:
    before = [result(noise(100.0, seed=at, calls=10), f"w{at}") for at in range(4)]
    after = [result(noise(100.0, seed=at + 10, calls=10), f"w{at}") for at in range(4)]
    alone = [only(one, other).p for one, other in zip(before, after, strict=True)]
    together = [one.p for one in compared(before, after)]
    assert all(
        one is not None and other is not None and one <= other for one, other in zip(alone, together, strict=True)
    )
    assert min(one or 0 for one in together) == pytest.approx(min(1, 4 * min(one or 0 for one in alone)))


def test_one_regression_decides_and_nothing_shows_nothing() -> None:
    kinds = [Outcome("w", "d", "u", verdict, "") for verdict in ("no regression", "inconclusive", "regression")]
    assert overall(kinds) == "regression"
    assert overall(kinds[:2]) == "inconclusive"
    assert overall(kinds[:1]) == "no regression"
    assert overall([]) == "inconclusive"


def test_what_else_differs_is_told() -> None:
    now = MACHINE.model_copy(
        update={
            "kernel": "Linux 7", "libraries": {"python": "3.12", "scipy": "1.18"},
            "gpus": (H200.model_copy(update={"driver": "590.1"}),),
        }
    )  # fmt: skip
    then = MACHINE.model_copy(update={"gpus": (H200,)})
    found = compare.document([], Rule(), {"before": then}, now)
    assert found["differences"] == [
        "before: kernel was Linux 6, is Linux 7",
        "before: numpy was 2.5.5, is none",
        "before: scipy was none, is 1.18",
        "before: GPU driver was ['580.95.05'], is ['590.1']",
    ]
    assert found["verdict"] == "inconclusive"
