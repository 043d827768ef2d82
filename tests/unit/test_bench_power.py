"""What the benchmark of the verdicts computes, and that what it plants is there."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import benchmark_power as power
from benchmarks import benchmark_quick as quick
from benchmarks import benchmark_ways as ways
from benchmarks import planted, testbed
from pipelines.benchmark.workload import Resources
from tests.unit.bench_toys import noise, result


def test_the_planted_delay_is_within_the_call_and_unknown_to_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    spun: list[float] = []
    monkeypatch.setattr(planted, "spin", spun.append)
    slow, plain = planted.Kernel(delay=0.25), planted.Kernel()
    for one in (slow, plain):
        one.setup(Resources(1))
        one.run()
        assert one.check() is None
    assert spun == [0.25]
    assert slow.parameters == plain.parameters


def test_comparisons_are_counted_by_what_was_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    call = 2.0 * 1024**3 / 100e9

    def measured(delay: float, processes: int) -> object:
        return result(noise(100 / (1 + delay / call), seed=int(1e6 * delay) + 1), "kernel")

    monkeypatch.setattr(power, "measured", measured)
    found = power.power(5, processes=8)
    assert found == {0.0: {"no regression": 5}, **{slower: {"regression": 2} for slower in power.SLOWER}}


def test_the_page_says_what_was_reached() -> None:
    verdicts = {0.0: {"no regression": 195, "regression": 4, "inconclusive": 1}, 0.03: {"regression": 200}}
    lines = power.render(power.Found(verdicts, overhead=0.4), minutes=20.4).splitlines()
    assert "| comparisons without a change called a regression | 2.00 % | 1 % | **not reached** |" in lines
    assert "| added to a call of a millisecond | 0.40 % | 1 % | reached |" in lines
    assert "| 0% | 200 | 2.0 % | 97.5 % | 0.5 % |" in lines
    assert "in 20 minutes" in lines[0]
    assert "at most 4.5 % are false alarms" in lines[1]
    assert "\nnew\n" in testbed.write(testbed.PAGE.read_text(encoding="utf-8"), power.PART, "new")


def test_the_page_says_what_the_way_costs() -> None:
    found = [ways.Run(waited=1.0, overhead=over) for over in (2.0, 6.0, 3.04)]
    lines = ways.render(ways.Found({"a job": found}), minutes=2).splitlines()
    assert lines[-1] == "| a job | 1.0 (1.0, 1.0, 1.0) | 3.0 (2.0, 6.0, 3.0) |"
    assert "\nnew\n" in testbed.write(testbed.PAGE.read_text(encoding="utf-8"), ways.PART, "new")


def test_the_page_says_what_a_container_costs() -> None:
    same = {"workload": "memory-copy", "verdict": "no regression", "change": 0.001, "low": -0.01, "high": 0.012}
    suspect = same | {"verdict": "inconclusive", "change": None, "reason": "suspect now: stolen"}
    against: dict[str, dict[str, Any]] = {
        quick.AGAIN: {"outcomes": [same], "differences": []},
        quick.CONTAINER: {"outcomes": [suspect], "differences": ["20260102-toy: blas was a, is b"]},
    }
    seconds = {quick.BARE: 200.0, quick.CONTAINER: 45.0, quick.AGAIN: 38.0, "two comparisons": 2.0}
    lines = quick.render(quick.Found(seconds, 160.0, {"waited": 0.5, "overhead": 2.0}, against), 2).splitlines()
    assert "| until there is a verdict, seconds | 201 | 180 | **not reached** |" in lines
    assert "| in a container, seconds | 45 |" in lines
    cells = "| +0.1% (-1.0% to +1.2%), no regression | inconclusive: suspect now: stolen |"
    assert f"| memory-copy {cells}" in lines
    assert lines[-1] == "What else differs in the container: blas was a, is b."
    assert "\nnew\n" in testbed.write(testbed.PAGE.read_text(encoding="utf-8"), quick.PART, "new")
