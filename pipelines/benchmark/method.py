"""How one process measures one workload: call by call until the samples are steady, within a limit of time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import NamedTuple

from pipelines.benchmark.stats import BATCH, warm_up
from pipelines.benchmark.workload import Resources, Workload

Clock = Callable[[], float]


class Series(NamedTuple):
    """Seconds of each call that counts, and how many before did not."""

    seconds: list[float]
    dropped: int


class InvalidError(Exception):
    """There is no figure, for this reason."""


def measure(workload: Workload, resources: Resources, *, repeats: int, limit: float, clock: Clock) -> Series:
    """At least ``repeats`` calls in a steady state; one more, not counted, has to give its own right result.

    Raises ``InvalidError`` where the calls are not steady within ``limit`` seconds, or their result is wrong.
    """
    workload.setup(resources)
    try:
        series = _steady(workload, repeats, limit, clock)
        workload.spoil()
        workload.run()
        wrong = workload.check()
        if wrong:
            raise InvalidError(wrong)
        return series
    finally:
        workload.teardown()


def _steady(workload: Workload, repeats: int, limit: float, clock: Clock) -> Series:
    collecting = gc.isenabled()
    gc.disable()
    try:
        seconds: list[float] = []
        ends = clock() + limit
        while True:
            began = clock()
            workload.run()
            now = clock()
            seconds.append(now - began)
            if seconds[-1] <= 0:
                raise InvalidError("a call was over before the clock moved: it is too short to be measured")
            if len(seconds) >= repeats and len(seconds) % BATCH == 0:
                dropped = warm_up(seconds)
                if dropped is not None and len(seconds) - dropped >= repeats:
                    return Series(seconds[dropped:], dropped)
            if now >= ends:
                raise InvalidError(_unsteady(seconds, repeats, limit))
    finally:
        if collecting:
            gc.enable()


def _unsteady(seconds: list[float], repeats: int, limit: float) -> str:
    dropped = warm_up(seconds)
    kept = 0 if dropped is None else len(seconds) - dropped
    found = f"{len(seconds)} calls of {min(seconds):.3g} to {max(seconds):.3g} s, {kept} of them steady"
    return f"not steady within {limit:g} s: {found}, needed: {repeats}"
