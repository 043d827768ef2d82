"""Background processes of ours: started detached, found again by id and start time, never by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of this machine: its id and its start time in clock ticks since boot (proc(5), field 22)."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; another process that got the same id does not count."""
        return _start_time(self.pid) == self.started

    def save(self, record: Path) -> None:
        """Remember the process in ``record``."""
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def stop(self, timeout: float = 20.0) -> None:
        """Ask the process to end, and kill it when it has not ended after ``timeout`` seconds."""
        for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
            if not self.alive:
                return
            os.kill(self.pid, number)
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and self.alive:
                time.sleep(0.05)


def load(record: Path) -> Process | None:
    """The process remembered in ``record``, if it still runs."""
    try:
        process = Process(**json.loads(record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if process.alive else None


def of(pid: int) -> Process | None:
    """The process that has this id now."""
    started = _start_time(pid)
    return None if started is None else Process(pid, started)


def command(pid: int) -> list[str]:
    """The words that process ``pid`` was started with; empty where there is no such process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return words.decode(errors="replace").split("\0")[:-1]


def find(argv: Sequence[str]) -> Process | None:
    """The process that was started as ``argv``, if there is one."""
    for entry in Path("/proc").glob("[0-9]*"):
        if command(int(entry.name)) == list(argv):
            return of(int(entry.name))
    return None


def start(argv: Sequence[str], log: Path) -> Process:
    """Start ``argv`` in a session of its own with its output in ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        child = subprocess.Popen(  # pylint: disable=consider-using-with # it outlives this call
            list(argv), stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Process(child.pid, _start_time(child.pid) or 0)


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
