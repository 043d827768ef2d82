"""``deep jenkins validate``: what is wrong with Jenkinsfiles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from pipelines.jenkins.jenkinsfile import validate as validation
from testbed.cli.options import Json
from testbed.console import emit
from testbed.errors import CHECK_FAILED

Files = Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Jenkinsfiles; ours where none is named.")]
Library = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The shared library whose steps they may use; ours if not given.",
        exists=True,
        file_okay=False,
    ),
]


def validate(files: Files = None, library: Library = None, as_json: Json = False) -> None:
    """Look for what is wrong with declarative Jenkinsfiles, without a Jenkins; end with 1 where something is."""
    reports = validation.validate(files or validation.ours(), library or validation.LIBRARY)
    found = [{"file": str(one.path), "problems": [dict(vars(problem)) for problem in one.problems]} for one in reports]
    ok = not any(one.problems for one in reports)
    emit({"ok": ok, "files": found}, as_json, _text)
    if not ok:
        raise typer.Exit(CHECK_FAILED)


def _text(data: dict[str, Any]) -> str:
    lines = [
        f"{escape(one['file'])}:{problem['line']}: {escape(problem['message'])}"
        for one in data["files"]
        for problem in one["problems"]
    ]
    verdict = "[green]ok[/]" if data["ok"] else f"[red]{len(lines)} problems[/]"
    return "\n".join([*lines, f"{len(data['files'])} files, those of the shared library among them: {verdict}"])


def register(app: typer.Typer) -> None:
    """Add the command to those of ``deep jenkins``."""
    app.command()(validate)
