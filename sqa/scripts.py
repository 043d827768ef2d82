"""Scripts that no ending tells apart: known by the program that their first line names."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath

from sqa.tree import Tree

# uv and pipx run scripts of Python alone.
PYTHON = re.compile(r"(?:platform-)?python[\d.]*t?|pypy[\d.]*|uv|pipx")
SHELL = re.compile(r"sh|r?bash|dash|ash|[mo]?ksh(?:88|93)?")
LAUNCHERS = ("env", "busybox")  # of the program that they name
TAKES_A_WORD = ("-u", "--unset", "-C", "--chdir")  # options of env
SPLIT = re.compile(r"(?:-\w*S|--split-string=)(.+)")  # an option of env with what it splits
# Endings of what is text, or becomes a script only when it is filled in, unless it can be executed.
TEXT = {
    ".adoc", ".csv", ".diff", ".erb", ".htm", ".html", ".in", ".j2", ".jinja", ".jinja2", ".json", ".log", ".md",
    ".patch", ".rst", ".template", ".tmpl", ".tpl", ".txt", ".xml", ".yaml", ".yml",
}  # fmt: skip


@lru_cache(maxsize=4)
def programs(tree: Tree) -> Mapping[str, str | None]:
    """Of each file that may be a script: the program, empty where its first line names none.

    That is one that can be executed, or has none of the endings of ``TEXT``. Nothing where it cannot be read.
    """
    return {name: _program(tree, name) for name in tree.files if _may_be_script(tree, name)}


def is_python(tree: Tree, name: str) -> bool:
    """Whether a file is a script of Python; of one that cannot be read nobody knows: the runner says why."""
    return _is(PYTHON, tree, name)


def is_shell(tree: Tree, name: str) -> bool:
    """Whether a file is a script for sh, bash, dash or a ksh, or cannot be read."""
    return _is(SHELL, tree, name)


def is_either(tree: Tree, name: str) -> bool:
    """Whether a file is one of the two, or cannot be read."""
    return is_python(tree, name) or is_shell(tree, name)


def _is(wanted: re.Pattern[str], tree: Tree, name: str) -> bool:
    program = programs(tree).get(name, "")
    return program is None or bool(wanted.fullmatch(program))


def _may_be_script(tree: Tree, name: str) -> bool:
    return PurePosixPath(name).suffix not in TEXT or bool((tree.root / name).stat().st_mode & stat.S_IXUSR)


def _program(tree: Tree, name: str) -> str | None:
    try:
        with (tree.root / name).open("rb") as source:
            first = source.readline(200).decode(errors="replace")
    except OSError:
        return None
    return _started(first.removeprefix("#!").split()) if first.startswith("#!") else ""


def _started(words: list[str]) -> str:
    """The program that a command starts, behind ``env`` with its options and what it sets, and behind busybox."""
    if not words:
        return ""
    program = PurePosixPath(words[0].strip("\"'")).name
    if program not in LAUNCHERS:
        return program
    rest = words[1:]
    while rest and (rest[0].startswith("-") or "=" in rest[0]):
        option = rest.pop(0)
        split = SPLIT.fullmatch(option)
        rest = [split[1], *rest] if split else rest[option in TAKES_A_WORD :]
    return _started(rest)
