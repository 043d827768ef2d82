"""Run external programs: output to a log file, failures as a ``DeepError`` that quotes the end of it.

None outlives this process: what is streamed is ended by the kernel when this process dies, however it dies.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from testbed.errors import CHECK_FAILED, DeepError

TAIL_LINES = 12


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    stdin: str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` and return it completed; ``stdout`` holds both streams merged.

    ``env`` is added to the environment. With ``log`` the output is appended to that file as it
    appears and ``stdout`` holds its last lines only. Raises ``DeepError`` when the program cannot
    be started, outlives ``timeout`` seconds or, with ``check``, returns non-zero.
    """
    command = [str(part) for part in argv]
    environment = {**os.environ, **(env or {})}
    try:
        with _sink(log) as sink:
            done = subprocess.run(
                command,
                env=environment,
                cwd=cwd,
                input=stdin,
                timeout=timeout,
                check=False,
                text=True,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
    except FileNotFoundError as missing:
        raise DeepError(
            f"program not found: {command[0]}", next_step=f"install {command[0]}, or run 'make install'"
        ) from missing
    except subprocess.TimeoutExpired as late:
        raise DeepError(f"{command[0]} did not finish within {timeout:g} s", exit_code=CHECK_FAILED) from late
    if log:
        done.stdout = tail(log)
    if check and done.returncode != 0:
        raise _failure(command, done, log)
    return done


class Children:
    """Programs that run for one piece of work, perhaps in several threads, so that all can be ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._ended = False

    @contextmanager
    def started(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> Iterator[subprocess.Popen[str]]:
        """Start a program whose output, both streams merged, is read line by line; none after :meth:`end`."""
        with self._lock:
            if self._ended:
                raise DeepError(f"{argv[0]} was not started: the work was cancelled", exit_code=CHECK_FAILED)
            process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._running.add(process)
        with process:
            try:
                yield process
            finally:
                self._running.discard(process)

    def end(self) -> None:
        """Kill every program that runs and start no other."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()


def stream(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    last_signal: str = "KILL",
    children: Children | None = None,
) -> int:
    """Run ``argv`` with its output appended to ``log`` as it appears, each line given to ``on_line``; its exit status.

    ``last_signal`` is what the program gets when this process dies.
    """
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", last_signal, "--"] if setpriv else []
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8") as sink,
        (children or Children()).started(
            [*prefix, *(str(part) for part in argv)], {**os.environ, **(env or {})}, cwd
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                sink.write(line)
                sink.flush()
                if on_line:
                    on_line(line.rstrip("\n"))
        except BaseException:
            process.send_signal(signal.Signals[f"SIG{last_signal}"])
            raise
    return process.returncode


@contextmanager
def _sink(log: Path | None) -> Iterator[IO[str] | int]:
    if log is None:
        yield subprocess.PIPE
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as sink:
        yield sink


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last ``lines`` lines of a log file."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _failure(command: list[str], done: subprocess.CompletedProcess[str], log: Path | None) -> DeepError:
    last = "\n".join((done.stdout or "").strip().splitlines()[-TAIL_LINES:])
    return DeepError(
        f"{Path(command[0]).name} failed with exit status {done.returncode}:\n{last}",
        next_step=f"read the whole log: {log}" if log else None,
        exit_code=CHECK_FAILED,
    )
