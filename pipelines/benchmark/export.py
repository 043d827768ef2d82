"""A run in other formats: DEEP's benchmark result, and JUnit's XML for continuous integration."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET  # nosec B405 # it writes, and reads nothing
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pipelines.benchmark.model import UNITS, Machine, Result, Run
from pipelines.benchmark.workload import training

# Times as deephdc/benchmarks_cnn_api writes them.
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
DISTRIBUTION = "deep-testbed"
# Of workloads whose work are examples; precisions in which networks are trained, the one first that a score prefers.
EXAMPLES = ("img/s", "sequences/s")
PRECISIONS = ("amp", "tf32", "fp32")
# What writes reports is imported where it is used: images of jobs do not have it.


def deep(run: Run) -> dict[str, Any]:
    """The keys of deephdc/benchmarks_cnn_api 0.5.0, and beside them, below ``run``, all that it does not know.

    Models are our workloads, those of inference below ``evaluation``.
    """
    duration = (run.ended - run.started).total_seconds()
    inference = [one for one in run.results if "-inference-" in one.workload]
    trained = [one for one in run.results if one not in inference]
    return {
        "machine_config": _machine(run.machine),
        "benchmark": {
            "version": metadata.version(DISTRIBUTION),
            "flavor": "synthetic",
            "docker_base_image": run.machine.container,
            "dataset": "synthetic_data",
            "tf_version": None,
        },
        "training": _models(trained) | {"score": _score(trained)},
        "evaluation": _models(inference) if inference else {},
        "global_start_time": run.started.strftime(TIME),
        "global_end_time": run.ended.strftime(TIME),
        "global_execution_time_sec": duration,
        "run": run.model_dump(mode="json"),
    }


def as_junit(comparison: Mapping[str, Any], created: str, *, lenient: bool = False) -> str:
    """One test for each workload: slower is a failure, not shown an error, or skipped where that is let through.

    What looks slower is never let through.
    """
    from sqa.reports import junit

    suites = ET.Element("testsuites", name="benchmarks")
    junit.suite(suites, "benchmarks", created, [_case(one, lenient) for one in comparison["outcomes"]])
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def as_json(document: Mapping[str, Any]) -> str:
    """A document as text."""
    return json.dumps(document, indent=2) + "\n"


def _machine(machine: Machine) -> dict[str, Any]:
    first = machine.gpus[0] if machine.gpus else None
    return {
        "cpu_info": {
            "num_cores": machine.cpu.count, "cpu_info": machine.cpu.model,
            "mhz_per_cpu": machine.cpu.max_mhz or machine.cpu.mhz,
        },
        "gpu_info": {
            "count": len(machine.gpus), "model": first.model if first else "No GPU found",
            "memory": (first.memory or 0) if first else 0,
        },
        "memory_total": machine.memory,
        "memory_available": machine.memory_available,
    }  # fmt: skip


def _models(results: Sequence[Result]) -> dict[str, Any]:
    return {"models": [one.workload for one in results]} | {one.workload: _model(one) for one in results}


def _score(results: Sequence[Result]) -> float | None:
    """DEEP's score, images per second of its four networks together, where all are valid in one precision.

    Its batches grew with the memory of the GPU and ours do not: scores of the two are not comparable.
    """
    figures = {one.workload: one.summary.median for one in results if one.summary and one.status == "valid"}
    complete = (training(precision) for precision in PRECISIONS if figures.keys() >= set(training(precision)))
    return next((sum(figures[name] for name in names) for names in complete), None)


def _model(result: Result) -> dict[str, Any]:
    """What DEEP says of a network, as far as a workload has it; a matrix product has no examples and no batches."""
    value, batch = result.summary.median if result.summary else None, result.parameters.get("batch")
    return {
        "batch_size": batch, "batch_size_per_device": batch, "num_batches": len(result.pooled) or None,
        "average_examples_per_sec": value if result.unit in EXAMPLES else None, "execution_time_sec": seconds(result),
        "value": value, "unit": result.unit, "status": result.status,
    }  # fmt: skip


def seconds(result: Result) -> float | None:
    """What the steady calls took together."""
    if not result.pooled:
        return None
    direction, one = UNITS[result.unit]
    if direction == "lower":
        return sum(result.pooled) * result.work * one
    return sum(result.work / value / one for value in result.pooled)


def _case(outcome: Mapping[str, Any], lenient: bool) -> ET.Element:
    from sqa.reports import junit

    case = ET.Element("testcase", classname="benchmarks", name=outcome["workload"])
    tag = {"regression": "failure", "inconclusive": "skipped" if lenient and not outcome["worse"] else "error"}.get(
        outcome["verdict"]
    )
    if tag:
        ET.SubElement(case, tag, message=junit.clean(f"{outcome['verdict']}: {outcome['reason']}"))
    return case
