"""Requirement files of Python: what they ask for, and in which line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sqa.check import InconclusiveError

# Requirement files by their names; those of the tools of this suite are among them.
FILES = ("requirements*.txt", "**/requirements/*.txt", "/sqa/tools/*.txt")


@dataclass(frozen=True, order=True)
class Wanted:
    """A package that a file asks for, and in which line. ``version``: empty where more than one will do."""

    name: str
    version: str
    path: str
    line: int

    @property
    def pin(self) -> str:
        """As it is written: ``NAME==VERSION``."""
        return f"{self.name}=={self.version}"


def read(root: Path, path: str) -> list[Wanted]:
    """What a requirement file asks for; raises ``InconclusiveError`` for a line that is none."""
    return list(_read(root, path))


def _read(root: Path, path: str) -> Iterator[Wanted]:
    for number, text in _lines((root / path).read_text(encoding="utf-8", errors="replace")):
        if text.startswith(("-e", "--editable")):
            yield Wanted(text, "", path, number)
        if text.startswith("-"):
            continue  # an option, or another file, which is looked at by itself
        try:
            wanted = Requirement(re.split(r"\s--", text)[0].strip())
        except InvalidRequirement as broken:
            raise InconclusiveError(
                f"{path}:{number}: no requirement ({str(broken).splitlines()[0]}); correct it, or exclude the file"
            ) from None
        exact = [one.version for one in wanted.specifier if one.operator in ("==", "===") and "*" not in one.version]
        yield Wanted(canonicalize_name(wanted.name), exact[0] if len(exact) == 1 else "", path, number)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number at which each begins, without comments and empty ones."""
    held, began = "", 0
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        line = re.sub(r"(?:^|\s)#.*", "", raw).rstrip()
        began = began if held else number
        held += line.removesuffix("\\") + " "
        if not line.endswith("\\"):
            if held.strip():
                yield began, held.strip()
            held = ""
