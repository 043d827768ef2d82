"""PyMarkdown: style of pages in Markdown, by its published rules."""

from __future__ import annotations

import re
from pathlib import Path

from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.options import Options, taken

LINE = re.compile(r"^(?P<path>.+?):(?P<line>\d+):\d+: (?P<rule>[A-Z]+\d+): (?P<message>.*?)(?: \([a-z0-9,-]+\))?$")
CLEAN, FOUND = 0, 4  # of the scheme that tells findings from errors


def inspect(look: Look) -> Report:
    """Lint the pages; which of them it reads, the tool says itself."""
    taken(look, Options)
    common = ("--return-code-scheme", "explicit", "--strict-config")
    said = look.run("pymarkdown", *common, "scan", *look.files, statuses=(CLEAN, FOUND))
    lines = said.stdout.splitlines()
    found = [one for one in map(LINE.match, lines) if one]
    if said.stderr.strip() or len(found) < len([one for one in lines if one.strip()]):
        raise InconclusiveError(f"pymarkdown said what is no finding: {(said.stderr.strip() or said.stdout)[-300:]}")
    listed = look.run("pymarkdown", *common, "scan", "--list-files", *look.files).stdout.splitlines()
    return Report(
        [look.finding(_inside(look, one["path"]), int(one["line"]), one["rule"], one["message"]) for one in found],
        [_inside(look, name) for name in listed],
    )


def _inside(look: Look, name: str) -> str:
    return str((look.root / name).resolve().relative_to(Path(look.root).resolve()))


CHECK = Check(
    name="markdown",
    title="Style of pages in Markdown",
    inspect=inspect,
    files=("*.md",),
    canary=Canary("MD001", bad={"bad.md": "# One\n\n### Three\n"}, good={"good.md": "# One\n\n## Two\n\n- a list\n"}),
    tool="pymarkdownlnt",
    configuration=("/pyproject.toml", "/.pymarkdown", "/.pymarkdown.json", "/.pymarkdown.yml", "/.pymarkdown.yaml"),
    scope="file",
    split=True,
    seconds=4,
    criteria=("QC.Doc02.2",),
)
