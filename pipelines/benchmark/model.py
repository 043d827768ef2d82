"""What a run of benchmarks leaves: the machine, and of each workload its samples, their summary, whether they hold."""

from __future__ import annotations

import random
import statistics
from datetime import datetime
from typing import Literal

from pydantic import Field

from sqa.standard import Strict

SCHEMA = 1
# Seconds that a process may take until it is steady, at most.
LONGEST_LIMIT = 86400

Status = Literal["valid", "suspect", "invalid"]
Direction = Literal["higher", "lower"]
Device = Literal["cpu", "gpu"]
Parameters = dict[str, int | float | str]
# Units of figures: which direction is better, and how many FLOP, bytes, images or seconds make one of it.
UNITS: dict[str, tuple[Direction, float]] = {
    "GFLOP/s": ("higher", 1e9),
    "GB/s": ("higher", 1e9),
    "img/s": ("higher", 1.0),
    "sequences/s": ("higher", 1.0),
    "ms": ("lower", 1e-3),
    "us": ("lower", 1e-6),
}


# The parameter that says how many GPUs a workload has used that uses several.
GPU_COUNT = "processes"


def figure(value: float) -> str:
    """A figure for people: four digits that count, and no exponent where a person would not write one."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:.10g}" if 1e-4 <= abs(rounded) < 1e8 else f"{value:.4g}"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 GPU``, ``2 GPUs``, ``2 processes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


class Cpu(Strict):
    """The processors that this process may use.

    ``cores`` are physical, ``count`` those the kernel shows, ``usable`` those that this process may run on; ``quota``:
    as many of them as its control group grants, nothing without a limit. ``max_mhz``, with boost, and ``governor`` are
    those of cpufreq, which virtual machines lack. ``cache``: all last-level caches together, in bytes.
    """

    model: str
    architecture: str
    count: int
    cores: int
    usable: int
    quota: float | None = None
    mhz: float | None = None
    max_mhz: float | None = None
    governor: str | None = None
    flags: tuple[str, ...] = ()
    cache: int | None = None
    virtual: bool = False

    @property
    def share(self) -> float:
        """How many of them this process has, of which a quota may grant parts."""
        return min(self.usable, self.quota or self.usable)

    @property
    def granted(self) -> int:
        """How many threads can run at once."""
        return max(1, int(self.share))


class Gpu(Strict):
    """One GPU as NVML describes it; what it does not say is nothing. Memory is in bytes, clocks are in MHz, power in W.

    ``capability``: CUDA's compute capability, which says what arithmetic the GPU has.
    ``slices``: by which MIG has divided it; ``slice``: CUDA's name of the one that was measured.
    ``processes``: of others on it; ``mps``: clients of the Multi-Process Service; ``slowed``: why its clock is down.
    """

    index: int
    model: str
    uuid: str
    simulated: bool
    memory: int | None = None
    capability: tuple[int, int] | None = None
    driver: str | None = None
    cuda: str | None = None
    clock: int | None = None
    max_clock: int | None = None
    memory_clock: int | None = None
    power_limit: int | None = None
    slowed: tuple[str, ...] | None = None
    mig: bool | None = None
    slices: tuple[str, ...] = ()
    slice: str | None = None
    mps: int | None = None
    ecc: bool | None = None
    ecc_errors: int | None = None
    processes: int | None = None
    pcie: str | None = None
    max_pcie: str | None = None


class Machine(Strict):
    """Where something was measured; memory is in bytes, load that of the minute before.

    ``container``: what this process runs in, nothing on a host. ``gpus``: those that were measured first.
    ``gpu_problem``: why NVML says nothing of GPUs that
    seem to be there.
    """

    host: str
    kernel: str
    system: str
    container: str | None
    load: float
    cpu: Cpu
    memory: int
    memory_available: int
    memory_limit: int | None
    libraries: dict[str, str]
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str | None = None

    def device(self, kind: str) -> str:
        """The model of the device that a workload of this kind uses: figures are only compared within one."""
        if kind == "gpu":
            return self.gpus[0].slice or self.gpus[0].model
        return f"{self.cpu.model}, {self.cpu.share:g} CPUs"

    def kind(self, device: str) -> Device:
        """What a device model of this machine is."""
        return "gpu" if self.gpus and device == self.device("gpu") else "cpu"


class GpuActivity(Strict):
    """What happened on a GPU during a run, as NVML told it so many times; what it does not tell is nothing.

    ``slowed``: why its clock was down at any time; ``processes``: the most of others that were on it at once; ``mps``:
    the most clients of the Multi-Process Service; ``ecc_errors``: uncorrected ones that were new.
    """

    uuid: str
    looks: int
    slowed: tuple[str, ...] | None = None
    processes: int | None = None
    mps: int | None = None
    ecc_errors: int | None = None


class Activity(Strict):
    """What else happened during a run, as shares of the time of the processors that this process may use.

    ``others``: what other programs used; ``stolen``: what a hypervisor gave to other machines. ``gpus``: of a run on
    GPUs, all of the machine.
    """

    others: float
    stolen: float
    gpus: tuple[GpuActivity, ...] = ()


class Summary(Strict):
    """The samples in their unit: the median with its confidence interval, and percentiles."""

    median: float
    low: float
    high: float
    p5: float
    p25: float
    p75: float
    p95: float


class Result(Strict):
    """One workload: ``samples`` in ``unit``, a list for each process, without the ``dropped`` calls that warmed up.

    ``work``: FLOP, bytes or examples of one call; ``traffic``: bytes that a call has to move at least, where that is
    known of one whose work is FLOP. An invalid result has no summary.
    """

    workload: str
    device: str
    unit: str
    direction: Direction
    parameters: Parameters
    threads: int
    work: float
    traffic: float | None = None
    status: Status
    reasons: tuple[str, ...] = ()
    samples: tuple[tuple[float, ...], ...] = ()
    dropped: tuple[int, ...] = ()
    summary: Summary | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs it has used, if its device is one."""
        return int(self.parameters.get(GPU_COUNT, 1))

    @property
    def pooled(self) -> list[float]:
        """The samples of all processes."""
        return [value for process in self.samples for value in process]

    @property
    def medians(self) -> list[float]:
        """One figure of each process: calls of one are alike, and are no independent samples."""
        return [statistics.median(process) for process in self.samples]


class Plan(Strict):
    """How to measure: threads (nothing: as many as the process may use), steady calls in each process, processes.

    ``limit``: seconds within which a process has to be steady. ``parameters``: of workloads by name, for their own.
    ``gpus``: how many a workload may use that uses several.
    """

    device: Device = "cpu"
    gpus: int = Field(default=1, ge=1)
    threads: int | None = Field(default=None, ge=1)
    repeats: int = Field(default=30, ge=1)
    processes: int = Field(default=8, ge=1)
    limit: float = Field(default=120.0, gt=0, le=LONGEST_LIMIT, allow_inf_nan=False)
    seed: int = Field(default_factory=lambda: random.SystemRandom().randrange(2**31))
    label: str = ""
    parameters: dict[str, Parameters] = Field(default_factory=dict)


class Specification(Strict):
    """What to measure and how: the same document wherever it runs. ``workloads``: all of the device where none is."""

    schema_version: Literal[1] = 1
    workloads: tuple[str, ...] = ()
    plan: Plan = Plan()


class Submission(Strict):
    """How a run came to its machine, in seconds of the clock of the one who submitted it.

    ``waited``: until the job said its first word; ``overhead``: all that was not the run itself.
    """

    backend: str
    job: str
    waited: float
    overhead: float


class Run(Strict):
    """What one call of ``deep bench run`` has measured; ``submission``: nothing where it ran right there."""

    schema_version: Literal[1] = 1
    id: str
    label: str
    started: datetime
    ended: datetime
    seed: int
    repeats: int
    processes: int
    machine: Machine
    activity: Activity
    results: tuple[Result, ...]
    submission: Submission | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a figure for each workload."""
        return all(one.status != "invalid" for one in self.results)

    @property
    def gpus(self) -> int:
        """How many GPUs the workload has used that has used most, if the device is one."""
        return max((one.gpus for one in self.results), default=1)
