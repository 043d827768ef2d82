"""One measurement at a time, in a process of its own; the result of the latest is kept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from deep_module.shared import folder
from pipelines.benchmark import backends, job
from pipelines.benchmark.export import deep
from pipelines.benchmark.model import Run, Specification
from testbed.errors import DeepError
from testbed.files import write_json

# Called when the server imports this, so that its workers have the same.
PLACE = folder()
PACKAGES = str(Path(__file__).resolve().parent.parent)
LATEST, LOCK = PLACE / "latest.json", PLACE / "measuring.lock"


def measure(wanted: Specification, timeout: float) -> dict[str, Any]:
    """Measure and return DEEP's document, which is the latest from then on; raises ``DeepError`` without figures."""
    with _alone(LOCK):
        result = deep(_run(wanted, timeout))
        write_json(LATEST, result)
    return result


def latest() -> dict[str, Any] | None:
    """The document of the latest measurement since the module has started."""
    try:
        return dict(json.loads(LATEST.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two measurements at once would measure each other."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeepError("another measurement is going on here", needed="one at a time") from None
        yield


def _run(wanted: Specification, timeout: float) -> Run:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmark.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {job.VARIABLE: wanted.model_dump_json(), "PYTHONPATH": PACKAGES},
    ) as child:  # fmt: skip
        given_up = threading.Event()
        timer = threading.Timer(timeout, _give_up, (given_up, child))
        timer.start()
        try:
            run = _said(child.stdout or ())
        finally:
            timer.cancel()
    if run is not None:
        return run
    why = f"nothing after {timeout:g} s" if given_up.is_set() else f"its process ended with {child.returncode}"
    raise DeepError("there are no figures", found=why, needed="a run")


def _give_up(given_up: threading.Event, child: subprocess.Popen[str]) -> None:
    given_up.set()
    if child.stdin:
        child.stdin.close()


def _said(lines: IO[str] | tuple[str, ...]) -> Run | None:
    """The run that the job says; its notes go to the module's log, its error is raised."""
    for line in lines:
        said = backends.document(line) or {}
        if "note" in said:
            print(said["note"], flush=True)
        elif "error" in said:
            raise DeepError(**said["error"])
        elif "run" in said:
            return Run.model_validate(said["run"])
    return None
