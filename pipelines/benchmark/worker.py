"""One process that measures one workload: a job as JSON on standard input, what came out as JSON on standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from pipelines.benchmark import method, workload
from testbed.errors import DeepError


def work(job: dict[str, Any], clock: method.Clock = time.perf_counter) -> dict[str, Any]:
    """Measure the workload of a job; ``invalid`` or ``error`` says why there are no samples."""
    one = workload.load(job["place"])(**job["parameters"])
    try:
        resources = workload.Resources(job["threads"], job["device"], job["gpus"])
        series = method.measure(one, resources, repeats=job["repeats"], limit=job["limit"], clock=clock)
    except method.InvalidError as invalid:
        return _about(one) | {"invalid": str(invalid)}
    except DeepError as wrong:
        return {"error": wrong.as_dict()}
    samples = [one.value(seconds) for seconds in series.seconds]
    return _about(one) | {"samples": samples, "dropped": series.dropped}


def _about(one: workload.Workload) -> dict[str, Any]:
    return {"parameters": one.parameters, "work": one.work, "traffic": one.traffic}


if __name__ == "__main__":
    json.dump(work(json.load(sys.stdin)), sys.stdout)
