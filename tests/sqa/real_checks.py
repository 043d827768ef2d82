"""The suite's own checks with their real tools, over small trees."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
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


SEEDS = tempfile.TemporaryDirectory(prefix="deep-sqa-")  # pylint: disable=consider-using-with # ends with the tests


@cache
def _proved(name: str) -> Path:
    """Results of a check that has found its canary, so that each test need not wait for that."""
    check = registry.load()[name]
    root = write(Path(SEEDS.name) / name / "tree", check.check.canary.good)
    results = root.parent / "results.db"
    Runner(Tree(root), Settings(), jobs=1, cache=Cache(results)).run([check])
    return results


def run(
    root: Path,
    name: str,
    changed: frozenset[str] | None = None,
    jobs: int = 2,
    standards: tuple[str, ...] = ("software",),
    **settings: Any,
) -> Outcome:
    """The outcome of one check over a folder, with the settings it has in sqa.yml and the cache beside the folder."""
    results = root.parent / "results.db"
    if not results.exists():
        shutil.copy(_proved(name), results)
    held = Settings.model_validate({"standards": standards, "checks": {name: settings}})
    runner = Runner(Tree(root), held, jobs=jobs, cache=Cache(results))
    return runner.run([registry.load()[name]], changed)[0]


def places(outcome: Outcome) -> set[tuple[str, int, str]]:
    """Where findings are: path, line, rule."""
    return {(one.path, one.line, one.rule) for one in outcome.findings}
