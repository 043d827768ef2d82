"""Jenkinsfiles for tests: planted mistakes, valid ones, ours; one start of Java reads them all."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.jenkins.jenkinsfile import trees, validate
from pipelines.jenkins.jenkinsfile.trees import Tree

FOLDER = Path(__file__).with_name("jenkinsfiles")
VALID = sorted((FOLDER / "valid").glob("*.Jenkinsfile"))
RUN = sorted((FOLDER / "run").glob("*.Jenkinsfile"))
OURS = validate.ours()
HEAD = re.compile(r"^=== (?P<where>\w+) (?P<name>.+)\n", re.MULTILINE)
MARK = re.compile(r"//! (?:(?P<back>\d+) )?(?P<words>.+)$")
STAGE = "pipeline { agent any; stages { stage('A') {"
# What stands before and after a mistake, in lines of their own.
AROUND = {
    "file": None,
    "pipeline": ("pipeline { agent any; stages { stage('A') { steps { echo 'a' } } }", "}"),
    "stage": (f"{STAGE} steps {{ echo 'a' }}", "} } }"),
    "steps": (f"{STAGE} steps {{", "} } } }"),
}


class Mistake(NamedTuple):
    """A Jenkinsfile, and which lines are wrong in which words."""

    name: str
    text: str
    wrong: list[tuple[int, str]]


def mistakes() -> Iterator[Mistake]:
    """The planted ones of ``mistakes.txt``."""
    _, *parts = HEAD.split((FOLDER / "mistakes.txt").read_text(encoding="utf-8"))
    for where, name, content in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        around = AROUND[where]
        content = f"{content.strip()}\n"
        text = f"{around[0]}\n{content}{around[1]}\n" if around else content
        wrong = [
            (number - int(mark["back"] or 0), mark["words"])
            for number, line in enumerate(text.splitlines(), start=1)
            if (mark := MARK.search(line))
        ]
        yield Mistake(f"{where}: {name}", text, wrong)


@functools.cache
def read() -> dict[str, Tree]:
    """Every file by its name; mistakes by theirs."""
    with tempfile.TemporaryDirectory() as folder:
        planted = {one.name: Path(folder) / f"{number}" for number, one in enumerate(mistakes())}
        for one in mistakes():
            planted[one.name].write_text(one.text, encoding="utf-8")
        files = [*VALID, *RUN, *OURS, *validate.library_files()]
        found = trees.read([*planted.values(), *files])
    return dict(zip([*planted, *(path.name for path in files)], found, strict=True))


def library() -> list[Tree]:
    """The steps of our shared library."""
    return [read()[path.name] for path in validate.library_files()]
