"""Scripts that no ending tells apart: known by the program that their first line names."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath

from sqa.tree import Tree

SHEBANG = re.compile(rb"#!\s*/\S*?(?:/env\s+(?:-S\s+)?(?:/\S*/)?|/)(?P<program>[\w.+-]+)(?:\s|$)")
PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?|pypy3?")
SHELL = re.compile(r"sh|bash|dash|ksh")


@lru_cache(maxsize=4)
def programs(tree: Tree) -> Mapping[str, str | None]:
    """Of each file without an ending, or that can be executed: the program, empty where its first line names none.

    Nothing where it cannot be read.
    """
    return {name: _program(tree, name) for name in tree.files if _may_be_script(tree, name)}


def is_python(tree: Tree, name: str) -> bool:
    """Whether a file is a script of Python; of one that cannot be read nobody knows: the runner says why."""
    return _is(PYTHON, tree, name)


def is_shell(tree: Tree, name: str) -> bool:
    """Whether a file is a script for sh, bash, dash or ksh, or cannot be read."""
    return _is(SHELL, tree, name)


def is_either(tree: Tree, name: str) -> bool:
    """Whether a file is one of the two, or cannot be read."""
    return is_python(tree, name) or is_shell(tree, name)


def _is(wanted: re.Pattern[str], tree: Tree, name: str) -> bool:
    program = programs(tree).get(name, "")
    return program is None or bool(wanted.fullmatch(program))


def _may_be_script(tree: Tree, name: str) -> bool:
    return not PurePosixPath(name).suffix or bool((tree.root / name).stat().st_mode & stat.S_IXUSR)


def _program(tree: Tree, name: str) -> str | None:
    try:
        with (tree.root / name).open("rb") as source:
            found = SHEBANG.match(source.readline(200))
    except OSError:
        return None
    return found["program"].decode() if found else ""
