"""What runs where a back end sends it: a specification as JSON on standard input, or in a variable, is measured.

Whatever it says is one JSON document a line on standard output: ``{"note": TEXT}`` for progress, and at the end
``{"run": RUN}`` or ``{"error": FACTS}``. Exit status 0 with a run, whatever its figures, else 1.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pydantic import ValidationError

from pipelines.benchmark import engine
from pipelines.benchmark.model import Specification
from testbed.errors import DeepError

# For schedulers that give no standard input.
VARIABLE = "DEEP_BENCH_SPECIFICATION"
# What a container's machine is called, where the container itself is called otherwise.
HOST = "DEEP_BENCH_HOST"


def main() -> int:
    """Read, measure and say it."""
    try:
        specification = Specification.model_validate_json(os.environ.get(VARIABLE) or sys.stdin.read())
        places = engine.runnable(specification.workloads, specification.plan, note)
        run = engine.run(places, specification.plan, note)
    except ValidationError as refused:
        say(error=DeepError("no specification of a benchmark", found=str(refused)).as_dict())
        return 1
    except DeepError as wrong:
        say(error=wrong.as_dict())
        return 1
    if host := os.environ.get(HOST):
        run = run.model_copy(update={"machine": run.machine.model_copy(update={"host": host})})
    say(run=run.model_dump(mode="json"))
    return 0


def note(text: str) -> None:
    """What is being done."""
    say(note=text)


def say(**document: Any) -> None:
    """One line, at once."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
