"""Checks and repositories that the tests of the suite's own machinery are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqa.cache import Cache
from sqa.check import Canary, Check, Look, Report
from sqa.model import Outcome
from sqa.registry import Registered
from sqa.runner import Runner
from sqa.settings import Settings
from sqa.tree import Tree


def find_bad(look: Look) -> Report:
    """Every line that says BAD is a defect."""
    found = [
        look.finding(name, number, "bad-word", f"says {line}")
        for name in look.files
        for number, line in enumerate(look.text(name).splitlines(), 1)
        if "BAD" in line
    ]
    return Report(found, look.files, {"rules": 1})


CHECK = Check(
    name="toy",
    title="No line says BAD",
    inspect=find_bad,
    files=("*.txt",),
    canary=Canary("bad-word", bad={"bad.txt": "BAD\n"}, good={"good.txt": "fine\n"}),
    configuration=("toy.cfg",),
    scope="file",
)


def registered(digest: str = "1", **different: Any) -> Registered:
    """The check, with differences."""
    return Registered(replace(CHECK, **different), digest, None)


def after(spoil: Callable[[Look], object]) -> Callable[[Look], Report]:
    """The inspection, after something else was done in the copy of a repository that is not a canary's."""

    def inspect(look: Look) -> Report:
        if not {"bad.txt", "good.txt"} & set(look.files):
            spoil(look)
        return find_bad(look)

    return inspect


def write(root: Path, **files: str) -> Path:
    """Files ``name="text"``, each with the ending .txt, in the folder."""
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / f"{name}.txt").write_text(text, encoding="utf-8")
    return root


def commit(root: Path) -> None:
    """Make all that there is a commit of the folder's own repository."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "made", "--allow-empty"]):
        subprocess.run([*git, *arguments], cwd=root, check=True)


def run(root: Path, check: Registered | None = None, changed: frozenset[str] | None = None, **settings: Any) -> Outcome:
    """The outcome of one check over a folder, with the cache beside it."""
    runner = Runner(Tree(root), Settings.model_validate(settings), jobs=2, cache=Cache(root.parent / "results.db"))
    return runner.run([check or registered()], changed)[0]
