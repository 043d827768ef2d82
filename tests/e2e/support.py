"""The command line as its users call it, on a testbed of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
DEEP = Path(sys.executable).with_name("deep")
NAME = "e2e"


def run_deep(*arguments: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run ``deep`` in the checkout and expect the exit status ``status``, or any."""
    done = subprocess.run([DEEP, *arguments], cwd=ROOT, check=False, text=True, capture_output=True)
    assert status is None or done.returncode == status, (
        f"deep {' '.join(arguments)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


def deep_json(*arguments: str, status: int = 0) -> Any:
    """The JSON object that ``deep ... --json`` prints."""
    return json.loads(run_deep(*arguments, "--json", status=status).stdout)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    """Wait until something holds; a server that does not answer yet makes it not hold."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(1)


def kill_deep(*arguments: str, once: Callable[[], bool], seconds: float = 300) -> None:
    """Run ``deep`` and kill it, with all that it has started on this machine, once something holds."""
    command = [str(DEEP), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + seconds
            while not once():
                assert running.poll() is None, f"deep {' '.join(arguments)} has ended: {running.returncode}"
                assert time.monotonic() < deadline, f"not within {seconds:g} s"
                time.sleep(0.5)
        finally:
            for pid in reversed(_family(running.pid) if running.poll() is None else []):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and all that it has started, which would go on without it. Stopped first, so that it starts no more."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text(encoding="ascii").split()]
    return [pid, *(one for child in children for one in _family(child))]
