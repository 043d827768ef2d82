"""The suite's own checks with their real tools, over small trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqa import registry
from sqa.cache import Cache
from sqa.model import Outcome
from sqa.runner import Runner
from sqa.settings import Settings
from sqa.tree import Tree


def write(root: Path, files: Mapping[str, str]) -> Path:
    """The files, name to text, in the folder; one that begins with ``#!`` can be executed."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    return root


def run(root: Path, name: str, changed: frozenset[str] | None = None, jobs: int = 2, **settings: Any) -> Outcome:
    """The outcome of one check over a folder, with the settings it has in sqa.yml and the cache beside the folder."""
    held = Settings.model_validate({"checks": {name: settings}})
    runner = Runner(Tree(root), held, jobs=jobs, cache=Cache(root.parent / "results.db"))
    return runner.run([registry.load()[name]], changed)[0]


def places(outcome: Outcome) -> set[tuple[str, int, str]]:
    """Where findings are: path, line, rule."""
    return {(one.path, one.line, one.rule) for one in outcome.findings}
