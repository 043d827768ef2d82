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
from pipelines.benchmark.workload import chosen
from testbed.errors import DeepError

# For schedulers that give no standard input.
VARIABLE = "DEEP_BENCH_SPECIFICATION"


def main() -> int:
    """Read, measure and say it."""
    try:
        specification = Specification.model_validate_json(os.environ.get(VARIABLE) or sys.stdin.read())
        places = chosen(specification.workloads, specification.plan.device)
        run = engine.run(places, specification.plan, lambda text: say(note=text))
    except ValidationError as refused:
        say(error=DeepError("no specification of a benchmark", found=str(refused)).as_dict())
        return 1
    except DeepError as wrong:
        say(error=wrong.as_dict())
        return 1
    say(run=run.model_dump(mode="json"))
    return 0


def say(**document: Any) -> None:
    """One line, at once."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
