"""yamllint: style of YAML, by the repository's own configuration."""

from __future__ import annotations

import re

from sqa.check import Canary, Check, Look, Report

LINE = re.compile(
    r"^(?P<path>.+?):(?P<line>\d+):\d+: \[(?P<level>error|warning)\] (?P<message>.*?)(?: \((?P<rule>[a-z-]+)\))?$"
)


def inspect(look: Look) -> Report:
    """Lint the files; which of them its configuration leaves, yamllint says itself."""
    said = look.run("yamllint", "--format", "parsable", *look.files, statuses=(0, 1)).stdout
    found = filter(None, map(LINE.match, said.splitlines()))
    listed = look.run("yamllint", "--list-files", *look.files).stdout.splitlines()
    return Report(
        [
            look.finding(one["path"], int(one["line"]), one["rule"] or "syntax", one["message"], one["level"])
            for one in found
        ],
        listed,
    )


CHECK = Check(
    name="yamllint",
    title="Style of YAML",
    inspect=inspect,
    files=("*.yml", "*.yaml"),
    canary=Canary("key-duplicates", bad={"bad.yml": "---\na: 1\na: 2\n"}, good={"good.yml": "---\na: 1\n"}),
    tool="yamllint",
    takes={},
    support=("/.gitignore",),
    configuration=(".yamllint", ".yamllint.yml", ".yamllint.yaml"),
    scope="file",
    split=True,
    seconds=10,
)
