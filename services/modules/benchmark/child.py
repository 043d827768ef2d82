"""The process that measures: ``pipelines.benchmark.job``, ended with all it has started once nobody waits for it.

DEEPaaS kills the worker whose training is cancelled, which gives it no chance to end anything. Standard input is the
worker's: it closes when the worker lets go of it, or is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from pipelines.benchmark import job


def main() -> int:
    """Measure what the variable of the job says."""
    os.setpgrp()
    threading.Thread(target=_watch, daemon=True).start()
    return job.main()


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
