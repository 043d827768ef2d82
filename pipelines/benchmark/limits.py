"""Whether a figure can be: limits of devices (``limits.yml``), and of processors by what they do in a cycle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from pipelines.benchmark.machine import conditions
from pipelines.benchmark.model import Activity, Cpu, Device, GpuActivity, Machine, Run, Status, counted, figure
from sqa.standard import Strict

FILE = Path(__file__).resolve().parent / "limits.yml"
# Below this share of what was published an idle device is suspect.
FAR_BELOW = 0.6
# The most double-precision FLOP a core does in a cycle: two units for fused multiply-add of the widest vectors it has,
# which no x86 core exceeds (Intel 64 and IA-32 Architectures Optimization Reference Manual; AMD Software Optimization
# Guides for Zen 2 to 5). Of other architectures the flags do not say how many units there are.
FLOP_PER_CYCLE = (("avx512f", 32), ("fma", 16), ("avx", 8), ("sse2", 4))
# Shares of the processors' time that others may use during a run whose figures of processors and memory are believed.
MOST_OTHERS, MOST_STOLEN = 0.05, 0.01
# Why a GPU's clock may be down that is no part of its usual work; under full load the power cap is one.
UNUSUAL = ("hardware slowdown", "heat (driver)", "heat (hardware)", "power brake")
PRECISION = {"gemm-fp64": 1, "gemm-fp32": 2, "torch-gemm-fp64": 1, "torch-gemm-fp32": 2}

Positive = Annotated[float, Field(gt=0)]


class Quantity(Strict):
    """What is known of one figure of one device, with where it is from."""

    unit: str
    limit: Positive | None = None
    limit_source: str = ""
    published: Positive | None = None
    published_source: str = ""


class Known(Strict):
    """What is known of a device: ``model`` is a regular expression on its name as NVML gives it."""

    name: str
    model: str
    quantities: dict[str, Quantity]


class Limits(Strict):
    """The whole file."""

    devices: tuple[Known, ...]


@cache
def known() -> Limits:
    """What ``limits.yml`` says."""
    return Limits.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def quantity(name: str, kind: str, machine: Machine, threads: int) -> Quantity | None:
    """What is known of the figure ``name`` on the device that it is measured on; ``None`` where nothing is."""
    if kind == "cpu":
        return ceiling(name, machine.cpu, threads)
    model = machine.device(kind)
    found = (one.quantities.get(name) for one in known().devices if re.search(one.model, model))
    return next(found, None)


def ceiling(name: str, cpu: Cpu, threads: int) -> Quantity | None:
    """Cores times clock times FLOP a cycle, where the kernel says the highest clock and the flags what a core does."""
    per_cycle = next((flop for flag, flop in FLOP_PER_CYCLE if flag in cpu.flags), None)
    if name not in PRECISION or cpu.max_mhz is None or per_cycle is None:
        return None
    cores, per_cycle = min(threads, cpu.cores), per_cycle * PRECISION[name]
    return Quantity(
        unit="GFLOP/s", limit=cores * cpu.max_mhz * per_cycle / 1000,
        limit_source=f"{cores} cores, {cpu.max_mhz:g} MHz, {per_cycle} FLOP a cycle",
    )  # fmt: skip


def judged(  # pylint: disable=too-many-arguments,too-many-positional-arguments  # each is a fact of its own
    value: float, unit: str, known: Quantity | None, machine: Machine, kind: str, seen: Sequence[str] = ()
) -> tuple[Status, list[str]]:
    """Whether a figure holds: above the limit it is invalid, far below what was published it is suspect.

    ``seen``: what was seen meanwhile that may be a reason.
    """
    if known is None or known.unit != unit:
        return "valid", []
    if known.limit and value > known.limit:
        said = f"{figure(value)} {unit} is more than the device can do, {figure(known.limit)} ({known.limit_source})"
        return "invalid", [f"{said}: a wrong amount of work, a cache, or a call that returns before it is done"]
    if known.published and value < FAR_BELOW * known.published:
        share = f"{value / known.published:.0%} of {figure(known.published)}"
        said = f"{figure(value)} {unit} is {share} ({known.published_source})"
        return "suspect", [said, *([*conditions(machine, kind), *seen] or ["nothing is seen that explains it"])]
    return "valid", []


def held_back(gpu: GpuActivity) -> list[str]:
    """What happened on a GPU during a run that makes its figures suspect."""
    found = []
    if unusual := [one for one in gpu.slowed or () if one in UNUSUAL]:
        found.append(f"its clock was held down meanwhile: {', '.join(unusual)}")
    if gpu.processes:
        found.append(f"{counted(gpu.processes, 'other process')} on it meanwhile")
    if gpu.mps:
        found.append(f"MPS served it meanwhile, with {counted(gpu.mps, 'client')}")
    if gpu.ecc_errors:
        found.append(counted(gpu.ecc_errors, "new uncorrected memory error"))
    return found


def slowing(run: Run, kind: Device) -> list[str]:
    """What may have slowed down a run on devices of this kind: how they were before, and what GPUs did meanwhile."""
    found = conditions(run.machine, kind, run.gpus)
    if kind == "gpu":
        names = {one.uuid: f"GPU {one.index}: " * (run.gpus > 1) for one in run.machine.gpus[: run.gpus]}
        seen = [one for one in run.activity.gpus if one.uuid in names]
        found += [names[one.uuid] + said for one in seen for said in capped(one)]
    return found


def capped(gpu: GpuActivity) -> list[str]:
    """What a GPU does under full load, too, and which explains a figure without making it suspect."""
    usual = [one for one in gpu.slowed or () if one not in UNUSUAL]
    return [f"its clock was held down meanwhile: {', '.join(usual)}"] if usual else []


def disturbed(activity: Activity) -> list[str]:
    """What else happened during a run that makes figures of processors and memory suspect."""
    found = []
    if activity.others > MOST_OTHERS:
        found.append(f"other programs used {activity.others:.0%} of the processors meanwhile")
    if activity.stolen > MOST_STOLEN:
        found.append(f"the hypervisor gave {activity.stolen:.0%} of the processors to other machines meanwhile")
    return found
