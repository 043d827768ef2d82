"""Bandit: patterns of insecure Python, by the repository's own configuration."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from posixpath import normpath
from typing import Any

from sqa import scripts
from sqa.check import Canary, Check, InconclusiveError, Look, Report
from sqa.model import Finding

LEVELS = {"HIGH": "error", "MEDIUM": "warning", "LOW": "note", "UNDEFINED": "note"}
UNKNOWN = re.compile(r"Unknown test found in profile: (.*)")
YAML = ("bandit.yaml", "bandit.yml", ".bandit.yaml", ".bandit.yml")


def inspect(look: Look) -> Report:
    """Examine the files; those in Bandit's own count of lines are the ones that it has read."""
    # As a recursive run from the root names them, so that exclude_dirs matches in the same way.
    names = [f"./{name}" for name in look.files]
    ran = look.run("bandit", "--quiet", "--format=json", "--exit-zero", *_configuration(look), "--", *names)
    unknown = sorted(set(UNKNOWN.findall(ran.stderr)))
    if unknown:
        raise InconclusiveError(f"Bandit's configuration names tests that it does not have: {', '.join(unknown)}")
    said = ran.json()
    if said["errors"]:
        first = said["errors"][0]
        raise InconclusiveError(
            f"Bandit could not read {len(said['errors'])} files, the first {normpath(first['filename'])}: "
            f"{first['reason']}; correct it, or exclude it in sqa.yml"
        )
    return Report(
        [_finding(look, one) for one in said["results"]],
        [normpath(name) for name in said["metrics"] if name != "_totals"],
    )


def _finding(look: Look, one: Mapping[str, Any]) -> Finding:
    level = LEVELS[one["issue_severity"]]
    return look.finding(normpath(one["filename"]), one["line_number"], one["test_id"], one["issue_text"], level)


def _configuration(look: Look) -> list[str]:
    """The option that names the configuration: Bandit finds none by itself in the middle of other files."""
    if (look.root / ".bandit").is_file():
        return ["--ini", ".bandit"]
    named = next((name for name in YAML if (look.root / name).is_file()), None)
    if named:
        return ["--configfile", named]
    project = look.root / "pyproject.toml"
    if not project.is_file():
        return []
    try:
        held = tomllib.loads(project.read_text(encoding="utf-8"))
    except ValueError as broken:
        raise InconclusiveError(f"pyproject.toml: {broken}; correct it") from None
    return ["--configfile", project.name] if "bandit" in held.get("tool", {}) else []


CHECK = Check(
    name="bandit",
    title="Patterns of insecure Python",
    inspect=inspect,
    files=("*.py",),
    selects=scripts.is_python,
    canary=Canary(
        "B602",
        bad={"bad.py": "import subprocess\n\nsubprocess.run(input(), " + "shell=True)\n"},
        good={"good.py": '"""Nothing to see."""\n'},
    ),
    tool="bandit",
    configuration=("/pyproject.toml", "/.bandit", *(f"/{name}" for name in YAML)),
    scope="file",
    split=True,
    takes={},
    seconds=15,
)
