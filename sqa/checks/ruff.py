"""Ruff: style and likely mistakes of Python, by the repository's own configuration."""

from __future__ import annotations

import os

from sqa import scripts
from sqa.check import Canary, Check, Look, Report


def inspect(look: Look) -> Report:
    """Lint the files; which of them it reads, ruff says itself."""
    common = ("--no-cache", "--force-exclude", *look.files)
    found = look.run("ruff", "check", "--exit-zero", "--output-format=json", *common).json()
    listed = look.run("ruff", "check", "--show-files", *common).stdout.splitlines()
    return Report(
        [
            look.finding(one["filename"], one["location"]["row"], one["code"] or "syntax-error", one["message"])
            for one in found
        ],
        [os.path.relpath(name, look.root) for name in listed],
    )


CHECK = Check(
    name="ruff",
    title="Style and likely mistakes of Python",
    inspect=inspect,
    files=("*.py", "*.pyi"),
    selects=scripts.is_python,
    canary=Canary("F401", bad={"bad.py": "import os\n"}, good={"good.py": '"""Nothing to see."""\n'}),
    tool="ruff",
    takes={},
    configuration=("pyproject.toml", "ruff.toml", ".ruff.toml"),
    seconds=1,
)
