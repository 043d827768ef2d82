"""Generate docs/reference/cli.md from the command line itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.generated import ROOT, command, mark, table

TOOL = "tools/cli_docs.py"
PAGE = ROOT / "docs/reference/cli.md"
PREAMBLE = """\
Every command has `--json`: one JSON document on standard output, also for wrong usage; messages and progress go to
standard error. A command ends with 0 when all is well, 1 when what was
checked or done failed, 2 when the call or the environment is wrong; `deep testbed shell` ends as the command on the
node does. A failure names the host, what was found, what is
needed and the next step. `deep --install-completion` adds completion to your shell.
"""


def commands(group: Any, context: typer.Context) -> Iterator[tuple[str, Any, typer.Context]]:
    """Full name, command and context of every command below ``group``, depth first."""
    for name in group.list_commands(context):
        child = group.get_command(context, name)
        if getattr(child, "hidden", False):
            continue
        below = typer.Context(child, info_name=name, parent=context)
        if hasattr(child, "list_commands"):
            yield from commands(child, below)
        else:
            yield below.command_path, child, below


def parameters(child: Any, context: typer.Context) -> list[list[str]]:
    """Rows (as typed, meaning) of the arguments and options of a command."""
    records = (parameter.get_help_record(context) for parameter in child.params if parameter.name != "help")
    return [[f"`{name}`", text] for name, text in (record for record in records if record)]


def section(name: str, child: Any, context: typer.Context) -> list[str]:
    """The lines that describe one command."""
    usage = " ".join([name, *child.collect_usage_pieces(context)])
    lines = [f"## {name}", "", f"`{usage}`", "", *(child.help or "").strip().splitlines(), ""]
    rows = parameters(child, context)
    return [*lines, *table(["Argument or option", "Meaning"], rows), ""] if rows else lines


def render(app: typer.Typer) -> str:
    """The whole page for a Typer application named ``deep``."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="deep")
    lines = [mark(TOOL, "testbed/cli/"), "# Command line", "", PREAMBLE]
    for name, child, below in commands(group, context):
        lines += section(name, child, below)
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[Path, str]:
    """The page of the installed command line, by path."""
    from testbed.cli import app  # pylint: disable=import-outside-toplevel # only for this page

    return {PAGE: render(app)}


if __name__ == "__main__":
    sys.exit(command(__doc__ or "", pages))
