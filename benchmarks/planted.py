"""What ``benchmark_power`` measures: apart from it, since each of many processes imports this and nothing else."""

from __future__ import annotations

import time
from typing import override

from pipelines.benchmark.cpu import Gemm64
from pipelines.benchmark.model import Parameters
from pipelines.benchmark.workload import Resources, Workload

MILLISECOND = 1e-3


class Kernel(Gemm64):
    """A product of about a millisecond that takes ``delay`` seconds longer than it has to."""

    name = "kernel"

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(size=320)
        self.delay = delay

    @property
    def parameters(self) -> Parameters:
        """Without the delay: the comparison must not know of it."""
        return {"size": self.size}

    @override
    def run(self) -> None:
        super().run()
        if self.delay:
            spin(self.delay)


class Spin(Workload):
    """Nothing but a millisecond."""

    name, unit = "spin", "ms"
    calls = 0

    @property
    def parameters(self) -> Parameters:
        """None."""
        return {}

    @override
    def setup(self, resources: Resources) -> None:
        """Nothing to make."""

    @override
    def run(self) -> None:
        spin(MILLISECOND)
        self.calls += 1

    @override
    def check(self) -> str | None:
        return None

    @override
    def teardown(self) -> None:
        """Nothing to give back."""


def spin(seconds: float) -> None:
    """Keep the processor for so long."""
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass
