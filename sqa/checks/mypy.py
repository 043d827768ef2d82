"""mypy: types of Python, by the repository's own configuration and, if ``python`` names it, with its packages."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqa import interpreter, scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report, Said

FOUND = re.compile(
    r"^(?P<path>[^:\n]+):(?:(?P<line>\d+):)? error: (?P<message>.*?)(?:  \[(?P<rule>[a-z0-9-]+)\])?$", re.M
)
SUMMARY = re.compile(r"(?:^Success: no issues found in|\(checked) (\d+) source file", re.M)
SOURCE = re.compile(r"^LOG: +Found source: +BuildSource\(path='([^']+)'", re.M)
NO_TARGET = "Missing target"
HARMLESS = ("LOG:", "Warning:")


def inspect(look: Look) -> Report:
    """Examine what the configuration names, or else all files; which these are, mypy's log and summary say.

    A script is a module called ``__main__``, of which mypy takes one at a time.
    """
    modules = tuple(name for name in look.files if name.endswith((".py", ".pyi")))
    alone = tuple(name for name in look.files if name not in modules)
    with _memory(look) as folder:
        chosen = _configured(look, folder)
        if chosen:  # the rest is left out by it, scripts as well: the number of files looked at says so
            return _reported(look, chosen)
        runs = [_reported(look, _ran(look, folder, modules))] if modules else []
        runs += [_reported(look, _ran(look, folder, (name,)), {name}) for name in alone]
    return Report([one for run in runs for one in run.findings], [name for run in runs for name in run.examined])


def _reported(look: Look, said: Said, about: Collection[str] | None = None) -> Report:
    """What a run found, in the files ``about`` alone where they are given; those that they import have their own."""
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
            if about is None or one["path"] in about
        ],
        [os.path.relpath(look.root / name, look.root) for name in sources],
    )


def _configured(look: Look, folder: str) -> Said | None:
    """What mypy says of the files that the configuration names, nothing where it names none."""
    said = _ran(look, folder, ())
    return None if NO_TARGET in said.stderr else said


def _ran(look: Look, folder: str, names: tuple[str, ...]) -> Said:
    python = interpreter.program(look.tree.root, look.settings)
    options = [
        "--verbose", "--no-pretty", "--show-error-codes", "--hide-error-context", "--no-color-output",
        *(["--python-executable", str(python)] if python else []),
        f"--cache-dir={folder}", *(["--", *names] if names else []),
    ]  # fmt: skip
    return look.run("mypy", *options, statuses=(0, 1, 2))


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
    selects=scripts.is_python,
    canary=Canary("assignment", bad={"bad.py": 'x: int = "a"\n'}, good={"good.py": "x: int = 1\n"}),
    tool="mypy",
    configuration=("/mypy.ini", "/.mypy.ini", "/pyproject.toml", "/setup.cfg"),
    support=("py.typed",),
    environment=interpreter.installed,
    takes=interpreter.TAKES,
    seconds=30,
)
