"""Run external programs: output to a log file, failures as a ``DeepError`` that quotes the end of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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
