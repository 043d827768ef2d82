"""Running pylint for the checks that do, so that what it finds in a file depends on what the file imports alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqa import imports, interpreter
from sqa.check import InconclusiveError, Look, Report

DRIVER = Path(__file__).resolve().parent / "drivers" / "pylint_listing.py"
BELONGINGS = (DRIVER,)
CONFIGURATION = (
    "/pylintrc", "/.pylintrc", "/pylintrc.toml", "/.pylintrc.toml", "/pyproject.toml", "/setup.cfg", "/tox.ini",
)  # fmt: skip
CROSS_FILE = "cyclic-import,duplicate-code"
# What it says where a configuration or a file cannot be used.
USABLE = "bad-configuration-section,bad-plugin-value,config-parse-error,syntax-error,unrecognized-option"
ANY = range(32)  # its status says which kinds of messages there are; 32 is wrong usage
# Lines of other modules in a message: they move with remarks, for which nobody looks again, see ``imports.code``.
ELSEWHERE = re.compile(r"(An attribute defined in \S+) line \d+|(defined) at line \d+( of \S+)")
LEVELS = {"error": "error", "warning": "warning", "refactor": "note", "convention": "note", "info": "note"}


def examine(look: Look, *options: str) -> Report:
    """Every message on ``look.files``, and the files that pylint says it has looked at.

    Raises ``InconclusiveError`` for a configuration that it cannot use, and where it gave up on a file.
    """
    packages = interpreter.packages(look.tree.root, look.settings)
    # The same folders in every run, whichever files it is about.
    paths = [str(look.root / name) for name in imports.of(look.tree).roots] + ([str(packages)] if packages else [])
    said = look.run(
        "python", "-I", "-B", str(DRIVER), json.dumps(paths), "--source-roots=.", "--jobs=1", "--persistent=n",
        "--recursive=n", "--output-format=json2", *options, "--enable=looked-at", "--", *look.files, statuses=ANY,
    ).json()  # fmt: skip
    messages = said["messages"]
    _refuse(messages, set(look.files))
    return Report(
        [
            look.finding(one["path"], one["line"], one["symbol"], _steady(one["message"]), LEVELS[one["type"]])
            for one in messages
            if one["symbol"] != "looked-at"
        ],
        [one["path"] for one in messages if one["symbol"] == "looked-at"],
    )


def _steady(message: str) -> str:
    return ELSEWHERE.sub(lambda found: "".join(filter(None, found.groups())), message)


def _refuse(messages: Iterable[Mapping[str, Any]], files: set[str]) -> None:
    """Raise ``InconclusiveError`` for messages that are about pylint and not about the code."""
    for one in messages:
        if one["path"] not in files:
            raise InconclusiveError(f"pylint's configuration, {one['path']}: {one['message']}; correct it")
        if one["type"] == "fatal":
            raise InconclusiveError(f"pylint gave up on {one['path']}: {one['message'].splitlines()[0]}")
