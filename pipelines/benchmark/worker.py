"""One process that measures one workload: a job as JSON on standard input, what came out as JSON on standard output."""

from __future__ import annotations

import json
import os
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
    except Exception as failure:  # pylint: disable=broad-exception-caught  # what is not known is raised
        known = one.explained(failure)
        if known is None:
            raise
        return {"error": known.as_dict()}
    samples = [one.value(seconds) for seconds in series.seconds]
    return _about(one) | {"samples": samples, "dropped": series.dropped, "libraries": one.versions()}


def _about(one: workload.Workload) -> dict[str, Any]:
    return {"parameters": one.parameters, "work": one.work, "traffic": one.traffic, "gpus": one.gpus}


def main() -> None:
    """Only the result goes to standard output: what libraries print there, Gloo for one, goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as sink:
        os.dup2(2, 1)
        json.dump(work(json.load(sys.stdin)), sink)


if __name__ == "__main__":
    main()
