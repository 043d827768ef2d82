"""The Python environment of a repository: what its code imports, and no file of the repository says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqa.check import InconclusiveError
from sqa.tree import Tree

TAKES: Mapping[str, type] = {"python": str}


def program(root: Path, settings: Mapping[str, Any]) -> Path | None:
    """The interpreter that the setting ``python`` names, relative to ``root``; nothing where it names none."""
    named = settings.get("python")
    return root / named if named else None


def packages(root: Path, settings: Mapping[str, Any]) -> Path | None:
    """The folder of the packages that this interpreter's virtual environment holds.

    Raises ``InconclusiveError`` where it is in none: what code imports would then be anything.
    """
    python = program(root, settings)
    if python is None:
        return None
    home = python.parent.parent
    folders = sorted(home.glob("lib/python3*/site-packages"))
    if not python.is_file() or not (home / "pyvenv.cfg").is_file() or not folders:
        raise InconclusiveError(
            f"python: no virtual environment (found {settings['python']}); make it, or name another in sqa.yml"
        )
    return folders[0]


def installed(tree: Tree, settings: Mapping[str, Any]) -> str:
    """What is installed there, packages with their versions: the ``environment`` of a check that takes ``TAKES``."""
    folder = packages(tree.root, settings)
    if folder is None:
        return ""
    names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info", ".pth"))]  # noqa: PTH208 # quick
    return "\n".join([folder.parent.name, *sorted(names)])
