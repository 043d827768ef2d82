"""``deep modules``: pick a module, run it at a site, ask it for a prediction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from testbed import modules, sites
from testbed.cli.options import Json, SiteTestbed, complete_site
from testbed.console import emit, err
from testbed.errors import CHECK_FAILED, DeepError
from testbed.login import Place

app = typer.Typer(no_args_is_help=True)


def complete_module(incomplete: str) -> list[str]:
    """Names of modules for the shell's completion."""
    return [name for name in modules.names() if name.startswith(incomplete)]


def complete_deployment(context: typer.Context, incomplete: str) -> list[str]:
    """What was deployed from this machine, for the shell's completion."""
    with suppress(DeepError):
        place = Place(context.params.get("site") or sites.TESTBED_SITE, context.params.get("name"))
        return [one for one in modules.noted(place) if one.startswith(incomplete)]
    return []


Name = Annotated[
    str, typer.Argument(metavar="MODULE", help="A module of the catalogue.", autocompletion=complete_module)
]
Which = Annotated[
    str,
    typer.Argument(
        metavar="DEPLOYMENT",
        help="A deployment's identifier, or a module: the newest that was deployed from here.",
        autocompletion=complete_deployment,
    ),
]
Site = Annotated[
    str, typer.Option("--site", metavar="SITE", help="A folder of inventories/.", autocompletion=complete_site)
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
Patience = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the modules of the catalogue."""
    found = [one.as_dict() for one in modules.catalogue()]
    emit({"ok": True, "modules": found}, as_json, lambda data: _catalogue_table(data["modules"]))


def _catalogue_table(found: list[dict[str, Any]]) -> Table:
    table = Table("module", "what it does", "tasks", "licence", box=None, pad_edge=False)
    for one in found:
        table.add_row(one["name"], escape(one["summary"]), escape(", ".join(one["tasks"])), escape(one["license"]))
    return table


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show what is known of a module and what its deployment needs."""
    emit({"ok": True, **modules.module(name).as_dict()}, as_json, _module_text)


def _module_text(one: dict[str, Any]) -> RenderableType:
    needs = one["deployment"]
    rows = {
        "tasks": ", ".join(one["tasks"]),
        "keywords": ", ".join(one["keywords"]),
        "licence": one["license"],
        "since": one["date_creation"],
        "data set": one.get("dataset_url", ""),
        "cite": one.get("cite_url", ""),
        "code": one["sources"]["code"],
        "image": needs["image"],
        "needs": f"{needs['cpus']:g} CPUs, {needs['memory_mib']} MiB of memory, {needs['gpus']} GPUs",
        "templates": f"{needs['template']}, with GPUs {needs['gpu_template']}",
        "example": f"deep modules predict {one['name']} {_words(needs['example'])}",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, text in rows.items():
        if text:
            table.add_row(what, escape(text))
    return Group(f"[bold]{escape(one['title'])}[/]", escape("\n".join(one["description"])), table)


def _words(arguments: dict[str, Any]) -> str:
    return " ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in arguments.items())


@app.command()
def deploy(
    name: Name,
    *,
    site: Site = sites.TESTBED_SITE,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs for it alone.")] = None,
    cpus: Annotated[float | None, typer.Option(min=0.1, help="CPUs.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MIB", min=128, help="Memory in MiB.")] = None,
    template: Annotated[str | None, typer.Option(help="Another TOSCA template than the module's.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=VALUE", help="An input of the template, such as image or gpu_model."),
    ] = None,
    organisation: Annotated[
        str | None, typer.Option(help="Which organisation it is for; needed by members of several.")
    ] = None,
    wait: Wait = True,
    timeout: Patience = 900,
    testbed: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Have a module deployed where it suits best, and wait until it answers."""
    wish = modules.Wish(
        gpus=gpus,
        cpus=cpus,
        memory_mib=memory,
        template=template,
        organisation=organisation,
        inputs=_assigned(inputs or []),
    )
    with _progress(f"deploying {name}") as said:
        found = modules.deploy(Place(site, testbed), name, wish, said, wait=wait, patience=timeout)
    _finish(found, as_json)


@app.command()
def status(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEPLOYMENT]", help="As above; all when none is named.", autocompletion=complete_deployment
        ),
    ] = None,
    site: Site = sites.TESTBED_SITE,
    testbed: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Show a deployment, and why each site was chosen or not; or all deployments."""
    place = Place(site, testbed)
    if which is not None:
        _finish(modules.status(place, which), as_json)
        return
    emit({"ok": True, "deployments": modules.statuses(place)}, as_json, lambda data: _table(data["deployments"]))


def _table(found: list[dict[str, Any]]) -> RenderableType:
    if not found:
        return "no deployment"
    table = Table("deployment", "module", "state", "site", "address", box=None, pad_edge=False)
    for one in found:
        cells = (one["uuid"], one["module"], one["status"], one["site"], one["endpoint"])
        table.add_row(*(escape(cell or "-") for cell in cells))
    return table


def _finish(found: dict[str, Any], as_json: bool) -> None:
    """Print what is known of a deployment and leave with 1 where it failed."""
    emit(found, as_json, _deployment_text)
    if not found["ok"]:
        raise typer.Exit(CHECK_FAILED)


def _deployment_text(one: dict[str, Any]) -> str:
    colour = "green" if one["ok"] else "red"
    lines = [f"{escape(one['module'] or 'deployment')} {one['uuid']}: [{colour}]{one['status']}[/]"]
    lines += [f"  {escape(one['reason'])}"] if one["reason"] else []
    lines += [f"  at {escape(one['site'])} for {escape(one['organisation'])}"] if one["site"] else []
    lines += [f"  address {escape(one['endpoint'])}"] if one["endpoint"] else []
    for choice in one["selection"]:
        rank = f"choice {choice['rank']}" if choice["rank"] else "[yellow]not[/]"
        lines.append(f"  {escape(choice['site'])}: {rank}: {escape('; '.join(choice['reasons']))}")
    for attempt in one["attempts"]:
        reason = f": {attempt['reason']}" if attempt["reason"] else ""
        lines.append(f"  tried {escape(attempt['site'])}: {attempt['outcome']}{escape(reason)}")
    lines += [f"  next: {escape(one['next'])}"] if one["next"] else []
    return "\n".join(lines)


@app.command()
def predict(
    which: Which,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="Arguments: JSON, text, or @FILE with JSON; the module's example by default.",
        ),
    ] = None,
    site: Site = sites.TESTBED_SITE,
    testbed: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Ask a deployed module for a prediction."""
    with _progress(f"asking {which}"):
        found = modules.predict(Place(site, testbed), which, _assigned(arguments or []))
    emit(found, as_json, _prediction_text)


def _prediction_text(found: dict[str, Any]) -> str:
    secret = "" if found["endpoint"].startswith("https:") else "; the way there is not encrypted"
    shown = json.dumps(found["predictions"], indent=2)
    return escape(f"{shown}\n{found['model']} at {found['endpoint']} in {found['seconds']} s{secret}")


def _assigned(words: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` as an object; raises ``DeepError`` where a word is none, or its file cannot be read."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise DeepError(
                "not an argument", found=word, needed="NAME=VALUE", next_step="write it so, or NAME=@FILE for a file"
            )
        found[name] = _from_file(Path(value[1:])) if value.startswith("@") else _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _from_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise DeepError(f"{path}: {wrong}", needed="JSON", next_step="correct the file") from wrong


@app.command()
def logs(
    which: Which,
    site: Site = sites.TESTBED_SITE,
    lines: Annotated[int, typer.Option(min=1, max=10_000, help="The last lines of each container.")] = 100,
    testbed: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Show what a deployed module writes, with your own rights in Kubernetes."""
    found = modules.logs(Place(site, testbed), which, lines=lines)
    emit(found, as_json, _logs_text)


def _logs_text(found: dict[str, Any]) -> str:
    parts = []
    for pod in found["pods"]:
        parts.append(f"[bold]{escape(pod['name'])}[/] {escape(pod['phase'])}")
        parts += [f"  {escape(reason)}" for reason in pod["reasons"]]
        # Without what a program in a container would do to the terminal.
        parts.append(escape(Text.from_ansi(pod["log"].rstrip()).plain))
    return "\n".join(part for part in parts if part)


@app.command()
def delete(
    which: Which,
    site: Site = sites.TESTBED_SITE,
    wait: Wait = True,
    timeout: Patience = 900,
    testbed: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Remove a deployment and all that belongs to it."""
    with _progress(f"deleting {which}") as said:
        found = modules.delete(Place(site, testbed), which, said, wait=wait, patience=timeout)
    _finish(found, as_json)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """Say what happens on the way: each as a line, and the last one as what is waited for."""
    if not err.is_terminal:
        yield lambda line: err.print(escape(line))
        return
    with err.status(escape(what)) as waiting:
        yield lambda line: waiting.update(escape(f"{what}: {line}"))
