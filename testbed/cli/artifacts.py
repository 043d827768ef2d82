"""``deep artifacts``: what is deployed, built and served from one store."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from testbed.artifacts import api, bundle
from testbed.artifacts.declaration import load_all
from testbed.artifacts.serve import make_server
from testbed.artifacts.store import SUMS, failed_check
from testbed.cli.options import Json
from testbed.console import emit, err
from testbed.errors import DeepError
from testbed.files import human

app = typer.Typer(no_args_is_help=True)


def _names(incomplete: str) -> list[str]:
    """Names of artefacts that begin like this."""
    return [name for name in load_all() if name.startswith(incomplete)]


Names = Annotated[list[str] | None, typer.Argument(help="Artefacts; all when none is named.", autocompletion=_names)]


class Source(StrEnum):
    """Where files come from, when an artefact has both."""

    BUILD = api.BUILD
    UPSTREAM = api.UPSTREAM


@app.command("list")
def list_artifacts(as_json: Json = False) -> None:
    """Show every artefact: version, sources and what the store has of it."""
    emit({"ok": True, "artifacts": api.listing()}, as_json, _listing_table)


@app.command()
def build(
    names: Names = None,
    source: Annotated[Source, typer.Option(help="Preferred source.")] = Source.BUILD,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Hash every stored file again; damaged ones are rebuilt.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make artefacts present in the store; unchanged ones are left alone."""
    with api.Display() as display:
        outcomes = api.ensure(names or [], display, source=source.value, rehash=rehash)
    emit({"ok": True, "artifacts": [outcome.as_dict() for outcome in outcomes]}, as_json, _build_table)


@app.command()
def verify(
    names: Names = None,
    directory: Annotated[Path | None, typer.Option("--bundle", help="Check a bundle instead of the store.")] = None,
    as_json: Json = False,
) -> None:
    """Hash every stored file and compare; exit status 1 when one is damaged."""
    if directory is not None and names:
        raise DeepError(
            "a bundle is verified as a whole",
            found=f"--bundle and {', '.join(names)}",
            needed="--bundle alone, or names alone",
            next_step=f"run 'deep artifacts verify --bundle {directory}'",
        )
    checked, problems = api.verify(names or []) if directory is None else (0, bundle.verify(directory))
    if directory is not None:
        checked = len((directory / SUMS).read_bytes().splitlines())
    if problems and not as_json:
        for problem in problems:
            err.print(
                f"{problem.artifact}/{problem.file}: found {problem.found}, needed {problem.needed}", markup=False
            )
        raise failed_check(problems)
    emit(
        {"ok": not problems, "checked": checked, "problems": [asdict(problem) for problem in problems]},
        as_json,
        _verified,
    )
    if problems:
        raise typer.Exit(1)


@app.command()
def serve(
    bind: Annotated[str, typer.Option(help="IPv4 address of this host.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    folder: Annotated[
        Path | None, typer.Option(help="Mirror to serve: that of a bundle, for example. Default: the store's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the mirror over HTTP until interrupted."""
    with make_server(folder or api.mirror_dir(), bind, port) as server:
        address = f"http://{bind}:{server.server_port}"
        emit(
            {"ok": True, "url": address},
            as_json,
            lambda data: f"serving {folder or api.mirror_dir()} on {data['url']} (end with Ctrl-C)",
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            err.print("stopped")


@app.command("bundle")
def make_bundle(
    directory: Annotated[Path, typer.Argument(help="New or empty directory, or an earlier bundle.")],
    names: Names = None,
    as_json: Json = False,
) -> None:
    """Write artefacts into one directory, for a site without a network."""
    emit({"ok": True, **asdict(api.make_bundle(directory, names or []))}, as_json, _bundled)


def _listing_table(data: dict[str, Any]) -> Table:
    table = Table("artefact", "version", "state", "sources", "size", "licence")
    for item in data["artifacts"]:
        sources = ", ".join(name if item["exercised"][name] else f"{name} (not exercised)" for name in item["sources"])
        state = f"{item['state']}: {item['reason']}" if item["state"] in ("outdated", "not held") else item["state"]
        table.add_row(
            item["name"], item["version"], state, sources, human(item["size"]) if item["size"] else "", item["licence"]
        )
    return table


def _build_table(data: dict[str, Any]) -> Table:
    table = Table("artefact", "version", "from", "result", "seconds", "size")
    for item in data["artifacts"]:
        result = f"made: {item['reason']}" if item["changed"] else item["reason"]
        table.add_row(
            item["name"], item["version"], item["source"], result, f"{item['seconds']:.1f}", human(item["size"])
        )
    return table


def _verified(data: dict[str, Any]) -> str:
    return f"{data['checked']} files checked, all as they should be"


def _bundled(data: dict[str, Any]) -> str:
    summary = f"{data['artifacts']} artefacts ({human(data['size'])}) in {data['directory']}"
    lacking = "".join(f"\n  {item}" for item in data["lacking"])
    return f"{summary}, {data['copied']} files copied\nnot in it, and needed by sites that use it:{lacking}"
