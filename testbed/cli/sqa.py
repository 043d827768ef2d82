"""``deep sqa``: hold a repository against published quality standards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sqa import gate, tools
from sqa.judgement import Judgement
from sqa.model import Outcome, Verdict
from testbed.cli.options import Json
from testbed.console import emit, err
from testbed.errors import CHECK_FAILED

app = typer.Typer(no_args_is_help=True)

Root = Annotated[Path, typer.Option("--root", help="The repository, or a folder in it.", file_okay=False)]
STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
}


def complete_check(incomplete: str) -> list[str]:
    """Names of checks for the shell's completion."""
    return [name for name in gate.repository(Path.cwd()).checks if name.startswith(incomplete)]


def complete_criterion(incomplete: str) -> list[str]:
    """Ids of criteria for the shell's completion."""
    return [one.id for one in gate.repository(Path.cwd()).criteria if one.id.startswith(incomplete)]


@app.command()
def run(
    criteria: Annotated[
        list[str] | None,
        typer.Option(help="An id or a family (QC.Lic01, QC.Sec); again for more.", autocompletion=complete_criterion),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="One check alone; again for more.", autocompletion=complete_check)
    ] = None,
    changed: Annotated[
        str | None, typer.Option(metavar="BASE", help="Only files that differ from where the branch left BASE.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Checks at a time; as many as there are cores.")] = None,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Run the checks, judge the criteria, and end with 1 where the gate holds the tree back."""
    repo = gate.repository(root)
    with _Shown() as shown:
        judged = gate.run(
            repo, criteria=criteria or (), checks=check or (), changed=changed, jobs=jobs, progress=shown.note
        )
    emit(gate.document(repo, judged), as_json, lambda _: _rendered(judged))
    if not judged.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command("tools")
def list_tools(
    install: Annotated[bool, typer.Option("--install", help="Install those that are missing.")] = False,
    root: Root = Path(),
    as_json: Json = False,
) -> None:
    """Show the tools that the checks run, each pinned in an environment of its own."""
    found = {one.tool.name: one.tool for one in gate.repository(root).checks.values() if one.tool}
    for tool in found.values() if install else ():
        if not tool.installed:
            err.print(f"installing {tool.version}")
            tools.install(tool)
    data = [{"tool": one.version, "installed": one.installed, "folder": str(one.folder)} for one in found.values()]
    emit(
        {"tools": data},
        as_json,
        lambda _: _table(["tool", "installed"], [[one["tool"], _yes(one["installed"])] for one in data]),
    )


class _Shown:
    """Progress on a terminal: how many checks have ended, and which are at work."""

    def __init__(self) -> None:
        self._working: dict[str, str] = {}
        self._ended = 0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=err, transient=True, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("checks", total=None)

    def __enter__(self) -> _Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def note(self, check: str, what: str) -> None:
        """A check begins, installs its tool, or ends."""
        if what == "ends":
            self._working.pop(check, None)
            self._ended += 1
        else:
            self._working[check] = check if what == "begins" else f"{check} (installs its tool)"
        self._progress.update(
            self._task, completed=self._ended, description=", ".join(self._working.values()) or "checks"
        )


def _rendered(judged: Judgement) -> Group:
    lines: list[Any] = [_findings(judged), _outcomes(judged.outcomes)]
    if not judged.partial:
        lines.append(_criteria(judged))
    lines += [Text(f"held back: {one}", style="red") for one in judged.obstacles]
    lines += [Text(f"waiver {one} covers nothing; remove it", style="yellow") for one in judged.unused]
    badge = "" if judged.partial else f", badge: {judged.badge}"
    lines.append(
        Text(f"{'passed' if judged.ok else 'held back'}{badge}", style="bold green" if judged.ok else "bold red")
    )
    return Group(*lines)


def _findings(judged: Judgement) -> Text:
    text = Text()
    for one in judged.open_findings:
        text.append(f"{one.path or '(whole tree)'}:{one.line}: {one.check} {one.rule}: {one.message}\n")
    return text


def _outcomes(outcomes: tuple[Outcome, ...]) -> Table:
    rows = []
    for one in outcomes:
        work = f"{one.examined} of {one.selected} files" if one.examined else ""
        more = ", ".join(f"{value} {name}" for name, value in sorted(one.work.items()))
        rows.append([
            one.check, Text(one.verdict.value, style=STYLES[one.verdict]), str(len(one.findings) or ""),
            ", ".join(filter(None, [work, more, *one.reasons])), "known" if one.cached else f"{one.seconds:.1f} s",
        ])  # fmt: skip
    return _table(["check", "verdict", "findings", "looked at", "time"], rows)


def _criteria(judged: Judgement) -> Table:
    shown = [one for one in judged.criteria if one.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)]
    rows = [
        [
            one.criterion.id, one.criterion.level, Text(one.verdict.value, style=STYLES[one.verdict]),
            one.criterion.title, f"waiver {one.waiver}" if one.waiver else one.why,
        ]
        for one in shown
    ]  # fmt: skip
    met = sum(one.met for one in judged.criteria)
    return _table(
        ["criterion", "level", "verdict", "what it asks", "why"], rows, f"{met} of {len(judged.criteria)} criteria met"
    )


def _table(columns: list[str], rows: list[list[Any]], caption: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _yes(value: object) -> str:
    return "yes" if value else "no"
