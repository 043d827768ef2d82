"""A run: each workload in processes of its own, in turns, with the machine it ran on and whether its figure holds."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pipelines
from pipelines.benchmark import gpu, limits, stats
from pipelines.benchmark.machine import activity, fingerprint, memory_kills, ticks
from pipelines.benchmark.model import UNITS, Activity, GpuActivity, Machine, Plan, Result, Run
from pipelines.benchmark.workload import ARITHMETIC_VARIABLES, THREAD_VARIABLES, Resources, Workload, chosen, load
from testbed.errors import DeepError

# Seconds that a process may need beside its calls: importing libraries, making data, checking the result.
BESIDE = 300
LONGEST_REASON = 300
TRACEBACK = "Traceback (most recent call last):\n"
# What is said of a workload whose processes have all died.
UNKNOWN: dict[str, Any] = {"parameters": {}, "work": 0.0, "traffic": None}

Note = Callable[[str], None]


def run(places: Mapping[str, str], plan: Plan, note: Note = lambda _: None) -> Run:
    """Measure the workloads at these places (``MODULE:CLASS`` by name)."""
    began = datetime.now(UTC)
    machine = fingerprint()
    workloads = {name: load(place) for name, place in places.items()}
    if plan.device == "gpu":
        gpu.require_real(machine)
    threads = plan.threads or machine.cpu.granted
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in places}
    before = ticks()
    with gpu.Watch() if plan.device == "gpu" else nullcontext() as watch:
        for turn in range(1, plan.processes + 1):
            for name, place in places.items():
                if any("invalid" in one for one in outcomes[name]):
                    continue  # nothing that others say makes a figure of it
                note(f"{name}, process {turn} of {plan.processes}")
                outcomes[name].append(_measured(name, place, plan, threads))
    meanwhile = activity(before, ticks())
    if watch:
        meanwhile = meanwhile.model_copy(update={"gpus": watch.seen})
    machine = _with_gpus(_with_libraries(machine, outcomes), outcomes)
    results = [_result(workloads[name], machine, meanwhile, plan, threads, outcomes[name]) for name in places]
    return Run(
        id=f"{began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", label=plan.label, started=began, ended=datetime.now(UTC),
        seed=plan.seed, repeats=plan.repeats, processes=plan.processes, machine=machine, activity=meanwhile,
        results=tuple(results),
    )  # fmt: skip


def runnable(names: Iterable[str], plan: Plan, note: Note = lambda _: None) -> dict[str, str]:
    """The workloads of these names and where they are; where none is named, all of the device that can run here.

    Raises ``DeepError`` where one that was named cannot, or none can.
    """
    names = tuple(names)
    places = chosen(names, plan.device)
    machine = fingerprint()
    if plan.device == "gpu":
        gpu.require_real(machine)
    resources = Resources(plan.threads or machine.cpu.granted, plan.device, plan.gpus)
    refused = {name: why for name, place in places.items() if (why := load(place).lacking(resources, machine))}
    able = {name: place for name, place in places.items() if name not in refused}
    if refused and (names or not able):
        raise next(iter(refused.values()))
    reasons = {name: str(why) for name, why in refused.items()}
    for reason in dict.fromkeys(reasons.values()):
        note(f"left out {', '.join(name for name, why in reasons.items() if why == reason)}: {reason}")
    return able


def _with_libraries(machine: Machine, outcomes: Mapping[str, list[dict[str, Any]]]) -> Machine:
    """The machine with what the processes have said of their libraries."""
    libraries = dict(machine.libraries)
    for outcome in (one for found in outcomes.values() for one in found):
        libraries |= outcome.get("libraries", {})
    return machine.model_copy(update={"libraries": libraries})


def _with_gpus(machine: Machine, outcomes: Mapping[str, list[dict[str, Any]]]) -> Machine:
    """The machine with the GPUs first that CUDA has used, and with its names for slices of them."""
    used = dict(max((one.get("gpus", ()) for found in outcomes.values() for one in found), key=len, default=()))
    order = list(used)
    gpus = [
        one.model_copy(update={"slice": used[one.uuid]}) if one.mig and one.uuid in used else one
        for one in machine.gpus
    ]
    gpus.sort(key=lambda one: order.index(one.uuid) if one.uuid in used else len(order))
    return machine.model_copy(update={"gpus": tuple(gpus)})


def _measured(name: str, place: str, plan: Plan, threads: int) -> dict[str, Any]:
    """What came of a process; where none did and the kernel has killed one of any meanwhile, with that."""
    killed = memory_kills()
    outcome = _process(name, place, plan, threads)
    if "invalid" in outcome and memory_kills() > killed:
        outcome["invalid"] += "; memory ran out: the kernel has killed a process meanwhile"
    return outcome


def _process(name: str, place: str, plan: Plan, threads: int) -> dict[str, Any]:
    """What a process says of a workload; one that ends otherwise than it should says why not."""
    job = {
        "place": place, "parameters": dict(plan.parameters.get(name, {})), "threads": threads,
        "device": plan.device, "gpus": plan.gpus, "repeats": plan.repeats, "limit": plan.limit,
    }  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.benchmark.worker"], input=json.dumps(job), env=_environment(threads),
            capture_output=True, text=True, check=False, timeout=plan.limit + BESIDE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"invalid": f"its process did not end within {plan.limit + BESIDE:g} s: a call hangs"}
    if done.returncode:
        return {"invalid": f"its process ended with {done.returncode}: {_said(done.stderr) or 'it said nothing'}"}
    outcome: dict[str, Any] = json.loads(done.stdout)
    if "error" in outcome:
        return {"invalid": str(DeepError(**outcome["error"]))}
    return outcome


def _said(stderr: str) -> str:
    """The first line of the last exception, else the last line: CUDA's exceptions end with advice of many lines."""
    _, raised, traceback = stderr.rpartition(TRACEBACK)
    lines = (traceback if raised else stderr).strip("\n").splitlines()
    told = next((line for line in lines if not line.startswith(" ")), "") if raised else (lines or [""])[-1]
    return told.strip()[:LONGEST_REASON]


def _environment(threads: int) -> dict[str, str]:
    """Of a process that measures: this one's, with our modules first and nothing that changes the arithmetic."""
    root = str(Path(pipelines.__file__).resolve().parent.parent)
    found = {name: value for name, value in os.environ.items() if name not in ARITHMETIC_VARIABLES}
    found |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    paths = (root, os.environ.get("PYTHONPATH"))
    return found | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _seen(machine: Machine, meanwhile: Activity, outcomes: list[dict[str, Any]]) -> dict[str, GpuActivity]:
    """What happened on the GPUs that a workload has used, by what they are called where there are several."""
    used = {uuid for one in outcomes for uuid, _ in one.get("gpus", ())} or {one.uuid for one in machine.gpus[:1]}
    names = {one.uuid: f"GPU {one.index}: " if len(used) > 1 else "" for one in machine.gpus if one.uuid in used}
    return {names[one.uuid]: one for one in meanwhile.gpus if one.uuid in names}


def _result(
    workload: type[Workload],
    machine: Machine,
    meanwhile: Activity,
    plan: Plan,
    threads: int,
    outcomes: list[dict[str, Any]],
) -> Result:
    named: dict[str, Any] = next((one for one in outcomes if "parameters" in one), UNKNOWN)
    result = Result(
        workload=workload.name, device=machine.device(plan.device), unit=workload.unit,
        direction=UNITS[workload.unit][0], parameters=named["parameters"], threads=threads, work=named["work"],
        traffic=named["traffic"], status="invalid",
        reasons=tuple(dict.fromkeys(one["invalid"] for one in outcomes if "invalid" in one)),
        samples=tuple(tuple(one["samples"]) for one in outcomes if "samples" in one),
        dropped=tuple(one["dropped"] for one in outcomes if "samples" in one),
    )  # fmt: skip
    if result.reasons:
        return result
    summary = stats.summary(result.samples, plan.seed)
    known = limits.quantity(workload.name, plan.device, machine, threads)
    seen = _seen(machine, meanwhile, outcomes)
    capped = [name + reason for name, one in seen.items() for reason in limits.capped(one)]
    status, reasons = limits.judged(summary.median, workload.unit, known, machine, plan.device, capped)
    disturbing = limits.disturbed(meanwhile) if plan.device == "cpu" or workload.host_bound else []
    disturbing += [name + reason for name, one in seen.items() for reason in limits.held_back(one)]
    if status != "invalid" and disturbing:
        status, reasons = "suspect", reasons + disturbing
    changes = {"status": status, "reasons": tuple(reasons), "summary": None if status == "invalid" else summary}
    return result.model_copy(update=changes)
