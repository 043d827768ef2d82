"""What the tests of benchmarks share: a machine, runs of given samples, workloads that do what they are told."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, override

from pipelines.benchmark import stats
from pipelines.benchmark.model import Activity, Cpu, Gpu, Machine, Parameters, Plan, Result, Run, Specification
from pipelines.benchmark.workload import Resources, Workload
from testbed.paths import repo_root

CPU = Cpu(model="Toy", architecture="x86_64", count=4, cores=4, usable=4, flags=("sse2", "avx", "avx2", "fma"))
MACHINE = Machine(
    host="toy", kernel="Linux 6", system="Debian", container=None, load=0.0, cpu=CPU, memory=8 << 30,
    memory_available=4 << 30, memory_limit=None, libraries={"python": "3.12", "numpy": "2.5.5"},
)  # fmt: skip
H200 = Gpu(index=0, model="NVIDIA H200", uuid="GPU-1", simulated=False, memory=150 << 30, driver="580.95.05")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# What the run of ``run()`` was asked by.
SPECIFICATION = Specification(workloads=("gemm-fp64",), plan=Plan(seed=1, repeats=30, processes=3))


def noise(
    level: float, *, calls: int = 25, processes: int = 8, seed: int = 1, scatter: float = 0.005
) -> list[list[float]]:
    """Samples around a level, scattered relative to it."""
    generator = random.Random(seed)
    return [[level * (1 + generator.gauss(0, scatter)) for _ in range(calls)] for _ in range(processes)]


def result(samples: Sequence[Sequence[float]], workload: str = "gemm-fp64", **changes: Any) -> Result:
    """A valid result with these samples, or with what is changed in it."""
    kept = tuple(tuple(one) for one in samples)
    one = Result(
        workload=workload, device="Toy, 4 CPUs", unit="GFLOP/s", direction="higher", parameters={"size": 1024},
        threads=4, work=2.0 * 1024**3, status="valid", samples=kept, dropped=(5,) * len(kept),
        summary=stats.summary(kept, 1),
    )  # fmt: skip
    return one.model_copy(update=changes)


def run(*results: Result, day: int = 0, **changes: Any) -> Run:
    """A run with these results, so many days after the first of January."""
    began = BEGAN + timedelta(days=day)
    one = Run(
        id=f"{began:%Y%m%d}-toy", label="", started=began, ended=began + timedelta(minutes=2), seed=1, repeats=30,
        processes=3, machine=MACHINE, activity=Activity(others=0.0, stolen=0.0),
        results=results or (result(noise(100.0)),),
    )  # fmt: skip
    return one.model_copy(update=changes)


def simulated_nvml(folder: Path) -> None:
    """The simulator's NVML with one T4, for programs whose ``LD_LIBRARY_PATH`` is ``folder``; needs gcc."""
    (folder / "dev").mkdir()
    for name in ("nvidiactl", "nvidia0"):
        (folder / "dev" / name).touch()
    (folder / "conf").write_text(
        "driver_version = 580.95.05\ncuda_version = 13.0\nextra_driver_versions = \nlibrary_dir = /nowhere\n"
        "model = T4\nmemory_mib = 15360\ncompute_capability = 7.5\ngpu = 0 GPU-aaaaaaaa-0000-4000-8000-000000000000\n"
    )
    library = folder / "libnvidia-ml.so.580.95.05"
    define = [f'-DSIMULATOR_CONFIG="{folder / "conf"}"', f'-DSIMULATOR_DEVICES="{folder / "dev"}"']
    flags = ["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-shared", "-Wl,-soname,libnvidia-ml.so.1"]
    argv = ["gcc", *flags, *define, "-o", str(library), "simulator.c", "nvml.c"]
    subprocess.run(argv, cwd=repo_root() / "artifacts/gpu-simulator", check=True, timeout=120)
    (folder / "libnvidia-ml.so.1").symlink_to(library.name)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Scripted(Workload):
    """Takes as long as a script says, on the clock that it is given."""

    name = "scripted"
    unit = "ms"

    def __init__(self, clock: Clock, seconds: Iterable[float], wrong: str | None = None) -> None:
        self.clock, self.seconds, self.wrong = clock, iter(seconds), wrong
        self.state: list[str] = []

    @property
    def parameters(self) -> Parameters:
        return {}

    @override
    def setup(self, resources: Resources) -> None:
        self.state.append(f"set up for {resources.threads}")

    def run(self) -> None:
        self.clock.now += next(self.seconds)

    def check(self) -> str | None:
        return self.wrong

    def teardown(self) -> None:
        self.state.append("torn down")


class Chatty(Scripted):
    """Prints as a library written in C does, past Python's own standard output."""

    name = "chatty"

    def __init__(self) -> None:
        super().__init__(Clock(), itertools.repeat(1.0))

    @override
    def setup(self, resources: Resources) -> None:
        os.write(1, b"[Gloo] Rank 0 is connected to 1 peer ranks\n")


class Dies(Scripted):
    """Cannot even be made: its process ends with a traceback."""

    name = "dies"

    def __init__(self) -> None:
        super().__init__(Clock(), [])
        raise RuntimeError("no such luck")
