"""Scenarios of Molecule that a repository has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from sqa.check import Look
from sqa.model import Finding


def scenarios(files: Iterable[str]) -> list[str]:
    """Names of the scenarios, each once."""
    found = (PurePosixPath(name) for name in files)
    return sorted({path.parent.name for path in found if path.name == "molecule.yml" and "molecule" in path.parts[:-2]})


def untested(look: Look, without: Iterable[str], shown: Iterable[str]) -> list[Finding]:
    """A finding for each scenario of which no evidence was shown; ``without``: those that are no tests."""
    missing = set(scenarios(look.files)) - set(without) - set(shown)
    return [look.finding("", None, "no-evidence", f"scenario {name}: no report of it") for name in sorted(missing)]
