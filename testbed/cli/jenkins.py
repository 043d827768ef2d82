"""``deep jenkins``: jobs as they are defined, and their builds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipelines.jenkins import builds, jobs, sync
from pipelines.jenkins.client import PATIENCE, Server, connect
from testbed.cli import jenkins_validate
from testbed.cli.options import Json
from testbed.console import emit, err, out
from testbed.errors import CHECK_FAILED, DeepError

app = typer.Typer(no_args_is_help=True)

Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Of the page of all jobs. Default: what JENKINS_URL says.")
]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Send the token unencrypted to another machine.")]
Patience = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, help="How long a server that is away is asked again.")
]
Name = Annotated[str, typer.Argument(metavar="JOB", help="A job of 'deep jenkins status'.")]


@app.command("sync")
def sync_(
    *,
    url: Url = None,
    settings: Annotated[
        Path, typer.Option(metavar="FILE", help="YAML with what is the site's own, such as its repository.")
    ],
    freestyle: Annotated[
        bool, typer.Option("--freestyle", help="Jobs for a server without the Pipeline plug-in.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show each change line by line.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete jobs that are defined no longer; else they are disabled.")
    ] = False,
    plain_http: PlainHttp = False,
    patience: Patience = PATIENCE,
    as_json: Json = False,
) -> None:
    """Create, update, disable or delete our jobs on a server as they are defined; jobs of others stay."""
    server = _server(url, plain_http, patience)
    defined = jobs.expand("freestyle" if freestyle else "pipelines", jobs.read_settings(settings))
    changes = sync.plan(server, defined, delete=delete)
    if dry_run:
        sync.refuse_conflicts(server, changes)
    else:
        for change in sync.apply(server, changes):
            err.print(escape(f"{change.name}: {change.action}"))
    todo = [one for one in changes if one.action != "none"]
    found = {
        "ok": True,
        "server": server.server,
        "dry_run": dry_run,
        "changed": len(todo),
        "jobs": [one.as_dict(diff=diff) for one in changes if one.wanted is not None or one.action != "none"],
    }
    emit(found, as_json, _changes_text)


def _changes_text(found: dict[str, Any]) -> str:
    lines = []
    for one in found["jobs"]:
        lines.append(f"{escape(one['name'])}: {'as it should be' if one['action'] == 'none' else one['action']}")
        lines += [escape(one["diff"])] if one.get("diff") else []
    would = "would be changed" if found["dry_run"] else "changed"
    return "\n".join([*lines, f"{found['changed']} of {len(found['jobs'])} jobs {would} at {found['server']}"])


@app.command()
def status(
    url: Url = None, plain_http: PlainHttp = False, patience: Patience = PATIENCE, as_json: Json = False
) -> None:
    """Show our jobs with their last builds."""
    server = _server(url, plain_http, patience)
    emit({"ok": True, "server": server.server, "jobs": builds.status(server)}, as_json, _status_table)


def _status_table(found: dict[str, Any]) -> RenderableType:
    if not found["jobs"]:
        return f"no job of ours at {found['server']}: deep jenkins sync"
    table = Table("job", "state", "build", "result", "began", "seconds", box=None, pad_edge=False)
    for one in found["jobs"]:
        build = one["last"]
        cells = ["-"] * 4
        if build:
            began = datetime.fromtimestamp(build["started"], UTC)
            cells = [f"#{build['number']}", build["result"] or "running", f"{began:%Y-%m-%d %H:%M} UTC"]
            cells.append(f"{build['seconds']:.0f}")
        table.add_row(escape(one["name"]), "enabled" if one["enabled"] else "disabled", *cells)
    return table


@app.command()
def run(
    name: Name,
    *,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the build.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for its end, and end as it does.")] = True,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How long to wait.")] = 6 * 3600,
    url: Url = None,
    plain_http: PlainHttp = False,
    patience: Patience = PATIENCE,
    as_json: Json = False,
) -> None:
    """Build a job; ends with 1 where the build does not end with SUCCESS."""
    server = _server(url, plain_http, patience)
    until = time.monotonic() + timeout
    number = builds.start(server, name, _assigned(parameters or []), until)
    if wait:
        err.print(escape(f"{name} #{number} has begun; what it writes: deep jenkins log {name} {number} --follow"))
    build = builds.wait(server, name, number, until) if wait else builds.get(server, name, number)
    ok = build.ok or not wait
    emit({"ok": ok, **build.as_dict()}, as_json, _build_text)
    if not ok:
        raise typer.Exit(CHECK_FAILED)


def _build_text(one: dict[str, Any]) -> str:
    tests = one["tests"]
    counted = (
        f"; tests: {tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped" if tests else ""
    )
    return escape(f"{one['job']} #{one['number']}: {one['result'] or 'running'}{counted}; {one['url']}")


def _assigned(words: list[str]) -> dict[str, str]:
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise DeepError("not a parameter", found=word, needed="NAME=VALUE", next_step="write it so")
    return dict(word.split("=", 1) for word in words)


@app.command()
def log(
    name: Name,
    number: Annotated[int | None, typer.Argument(metavar="[BUILD]", min=1, help="The newest by default.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the build has ended.")] = False,
    url: Url = None,
    plain_http: PlainHttp = False,
    patience: Patience = PATIENCE,
    as_json: Json = False,
) -> None:
    """Show what a build has written."""
    server = _server(url, plain_http, patience)
    number = number or builds.last(server, name)
    pieces = builds.log(server, name, number, follow=follow)
    if as_json:
        emit({"ok": True, "job": name, "number": number, "log": "".join(pieces)}, as_json, str)
        return
    for piece in pieces:
        # Without what a program would do to the terminal; lines end with two characters there.
        out.print(Text.from_ansi(piece.replace("\r", "")).plain, markup=False, end="\n" if piece.endswith("\n") else "")


def _server(url: str | None, plain_http: bool, patience: float) -> Server:
    return connect(url, plain_http=plain_http, patience=patience, say=lambda line: err.print(escape(line)))


jenkins_validate.register(app)
