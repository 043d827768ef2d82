"""mypy: types of Python, by the repository's own configuration and, if ``python`` names it, with its packages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqa import interpreter
from sqa.check import Canary, Check, InconclusiveError, Look, Report, Said

FOUND = re.compile(
    r"^(?P<path>[^:\n]+):(?:(?P<line>\d+):)? error: (?P<message>.*?)(?:  \[(?P<rule>[a-z0-9-]+)\])?$", re.M
)
SUMMARY = re.compile(r"(?:^Success: no issues found in|\(checked) (\d+) source file", re.M)
SOURCE = re.compile(r"^LOG: +Found source: +BuildSource\(path='([^']+)'", re.M)
NO_TARGET = "Missing target"
HARMLESS = ("LOG:", "Warning:")


def inspect(look: Look) -> Report:
    """Examine what the configuration names, or else all files; which these are, mypy's log and summary say."""
    said = _examined(look)
    summary = SUMMARY.search(said.stdout)
    complaint = next((one for one in said.stderr.splitlines() if one.strip() and not one.startswith(HARMLESS)), None)
    if complaint or not summary:
        raise InconclusiveError(f"mypy did not finish: {complaint or said.stdout.strip().split('\n')[0]}; correct it")
    sources = SOURCE.findall(said.stderr)
    if len(sources) != int(summary[1]):
        raise InconclusiveError(f"mypy checked {summary[1]} files, and names {len(sources)}")
    return Report(
        [
            look.finding(one["path"], int(one["line"] or 0), one["rule"] or "error", one["message"])
            for one in FOUND.finditer(said.stdout)
        ],
        [os.path.relpath(look.root / name, look.root) for name in sources],
    )


def _examined(look: Look) -> Said:
    python = interpreter.program(look.tree.root, look.settings)
    options = [
        "--verbose", "--no-pretty", "--show-error-codes", "--hide-error-context", "--no-color-output",
        *(["--python-executable", str(python)] if python else []),
    ]  # fmt: skip
    with _memory(look) as folder:
        options.append(f"--cache-dir={folder}")
        said = look.run("mypy", *options, statuses=(0, 1, 2))
        if NO_TARGET in said.stderr:
            said = look.run("mypy", *options, "--", *look.files, statuses=(0, 1, 2))
    return said


@contextmanager
def _memory(look: Look) -> Iterator[str]:
    """Where mypy remembers a repository, for one run at a time; it goes by content, so a copy elsewhere is the same."""
    if look.tree.root == look.root:
        yield os.devnull
        return
    folder = look.scratch / hashlib.sha256(os.fsencode(look.tree.root)).hexdigest()[:16]
    with folder.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield str(folder)


CHECK = Check(
    name="mypy",
    title="Types of Python",
    inspect=inspect,
    files=("*.py", "*.pyi"),
    canary=Canary("assignment", bad={"bad.py": 'x: int = "a"\n'}, good={"good.py": "x: int = 1\n"}),
    tool="mypy",
    configuration=("/mypy.ini", "/.mypy.ini", "/pyproject.toml", "/setup.cfg"),
    support=("py.typed",),
    environment=interpreter.installed,
    takes=interpreter.TAKES,
    seconds=30,
)
