"""What a workload is, and those there are: each in a module that is imported when it is run."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pipelines.benchmark.model import Direction, Parameters
from testbed.errors import DeepError

# Where each is defined. They are imported by the processes that measure: libraries read their number of threads once.
WORKLOADS = {
    "gemm-fp64": "pipelines.benchmark.cpu:Gemm64",
    "gemm-fp32": "pipelines.benchmark.cpu:Gemm32",
    "memory-copy": "pipelines.benchmark.cpu:Copy",
    "memory-triad": "pipelines.benchmark.cpu:Triad",
}
# Variables by which the libraries that may be below numpy are told how many threads to use.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


class Workload(ABC):
    """Something that is done again and again, with a known amount of work.

    ``unit`` is that of its figure: ``GFLOP/s`` or ``GB/s`` (10^9 a second) where ``direction`` is ``higher``, ``ms``
    for one call where it is ``lower``. ``work``: FLOP or bytes of one call, known after ``setup``.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Direction] = "higher"
    kind: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    work: float = 0.0

    @property
    @abstractmethod
    def parameters(self) -> Parameters:
        """What makes figures comparable: sizes and types."""

    @abstractmethod
    def setup(self, threads: int) -> None:
        """Make the data; raises ``DeepError`` where the machine has no room for them."""

    @abstractmethod
    def run(self) -> None:
        """Do the work once, and return when it is done."""

    @abstractmethod
    def check(self) -> str | None:
        """What is wrong with the result of the last call; ``None`` where it is right."""

    @abstractmethod
    def teardown(self) -> None:
        """Give back what ``setup`` has taken."""

    def value(self, seconds: float) -> float:
        """The figure of a call that took so long, in ``unit``."""
        return self.work / seconds / 1e9 if self.direction == "higher" else seconds * 1e3


def load(place: str) -> type[Workload]:
    """The workload defined at ``MODULE:CLASS``."""
    module, _, name = place.partition(":")
    found: type[Workload] = getattr(importlib.import_module(module), name)
    return found


def chosen(names: list[str]) -> dict[str, str]:
    """The workloads of these names and where they are; all where none is named."""
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise DeepError(
            "no such workload", found=", ".join(unknown), needed=f"some of {', '.join(WORKLOADS)}",
            next_step="deep bench run --help",
        )  # fmt: skip
    return {name: WORKLOADS[name] for name in dict.fromkeys(names or WORKLOADS)}
