"""``deep testbed``: raise, inspect, use and remove testbeds."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from testbed import image, profiles, settings, sites, testbed
from testbed.cli.options import Json, complete_name
from testbed.cli.site import finish, verdict_text
from testbed.console import emit, err
from testbed.errors import DeepError
from testbed.files import write_atomic

app = typer.Typer(no_args_is_help=True)


class Until(StrEnum):
    """How far ``up`` goes."""

    NODES = "nodes"
    DEPLOY = "deploy"
    VERIFY = "verify"


def complete_node(context: typer.Context, incomplete: str) -> list[str]:
    """Names of nodes for the shell's completion."""
    return [
        node
        for node in testbed.node_names(context.params.get("name") or sites.DEFAULT_NAME)
        if node.startswith(incomplete)
    ]


def complete_profile(incomplete: str) -> list[str]:
    """Names of profiles for the shell's completion."""
    return [name for name in profiles.names() if name.startswith(incomplete)]


def complete_image(incomplete: str) -> list[str]:
    """Names of node images for the shell's completion."""
    return [name for name in image.releases() if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Variables for the shell's completion."""
    return [f"{name}=" for name in settings.names() if name.startswith(incomplete)]


Name = Annotated[str, typer.Option("--name", help="Name of the testbed.", autocompletion=complete_name)]
NodeName = Annotated[str, typer.Argument(help="Name of the node.", autocompletion=complete_node)]


@app.command()
def up(  # pylint: disable=too-many-positional-arguments  # they are options: never given by position
    name: Name = sites.DEFAULT_NAME,
    profile: Annotated[
        str | None, typer.Option(help="What the nodes are for (default: kubernetes).", autocompletion=complete_profile)
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Number of nodes (default: the profile's).")] = None,
    image_name: Annotated[
        str | None,
        typer.Option("--image", help="System of the nodes (default: the profile's).", autocompletion=complete_image),
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A variable of the site, kept for this testbed; VALUE is YAML, and NAME= takes it back.",
            autocompletion=complete_setting,
        ),
    ] = None,
    until: Annotated[Until, typer.Option(help="Stop when this is reached.")] = Until.VERIFY,
    artifacts: Annotated[bool, typer.Option(help="Fill the artefact store and serve it to the nodes.")] = True,
    as_json: Json = False,
) -> None:
    """Raise a testbed, or finish and repair one: nodes, software, acceptance suite."""
    found = testbed.up(
        name,
        profile=profile,
        nodes=nodes,
        image_name=image_name,
        settings=variables or (),
        until=until.value,
        artifacts=artifacts,
        say=_say,
    )
    finish(found, as_json, _status_table)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the testbeds of this machine."""
    emit({"ok": True, "testbeds": testbed.summaries()}, as_json, _summaries_table)


@app.command()
def status(name: Name = sites.DEFAULT_NAME, as_json: Json = False) -> None:
    """Show nodes, addresses, failed units and versions; exit status 1 when something does not run."""
    found = testbed.status(name)
    finish(found, as_json, _status_table)


@app.command()
def verify(
    name: Name = sites.DEFAULT_NAME,
    select: Annotated[
        str | None, typer.Option("-k", "--select", help="Only checks whose name matches (pytest -k).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the acceptance suite against a deployed testbed; exit status 1 when a check fails."""
    finish(testbed.verify(name, select=select), as_json, verdict_text)


@app.command()
def shell(
    node: NodeName,
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run, after --; a login shell without one.")
    ] = None,
    name: Name = sites.DEFAULT_NAME,
    as_json: Annotated[bool, typer.Option("--json", help="Print status and output as one JSON object.")] = False,
) -> None:
    """Open a shell on a node, or run a command there and end with its exit status."""
    if not as_json:
        _become(testbed.shell_command(name, node, command or [], terminal=sys.stdin.isatty() and sys.stdout.isatty()))
        return
    if not command:
        raise DeepError("--json needs a command", found="none", next_step="deep testbed shell NODE --json -- COMMAND")
    found = testbed.run_on(name, node, command)
    emit(found, True, str)
    raise typer.Exit(found["status"])


@app.command()
def logs(
    node: NodeName,
    unit: Annotated[str | None, typer.Argument(help="Only this systemd unit.")] = None,
    name: Name = sites.DEFAULT_NAME,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until interrupted.")] = False,
    as_json: Json = False,
) -> None:
    """Show the log of a node, or of one of its units."""
    if follow:
        _become(testbed.shell_command(name, node, testbed.logs_command(unit, lines=lines, follow=True), terminal=False))
    found = {"ok": True, "node": node, "unit": unit, "lines": testbed.logs(name, node, unit, lines=lines)}
    emit(found, as_json, lambda data: escape("\n".join(data["lines"])))


@app.command()
def kubeconfig(
    name: Name = sites.DEFAULT_NAME,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file (mode 0600).")] = None,
    as_json: Json = False,
) -> None:
    """Print the administrator's kubeconfig, to be used on this machine."""
    found = testbed.kubeconfig(name)
    if output is not None:
        write_atomic(output, found, 0o600)
        emit({"ok": True, "path": str(output)}, as_json, lambda data: f"export KUBECONFIG={escape(data['path'])}")
    else:
        emit({"ok": True, "kubeconfig": found}, as_json, lambda data: escape(data["kubeconfig"].rstrip()))


@app.command()
def down(
    name: Name = sites.DEFAULT_NAME,
    all_: Annotated[bool, typer.Option("--all", help="Every testbed of this machine.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Remove node images and the artefact cache too.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a testbed, or all, and everything it changed on this machine."""
    names = (testbed.everywhere() if all_ else []) or [name]
    found = [testbed.down(one, purge=purge and one == names[-1]) for one in names]
    emit({"ok": True, "testbeds": found} if all_ else found[0], as_json, lambda _: "\n".join(map(_down_text, found)))


def _down_text(found: dict[str, Any]) -> str:
    return f"testbed {found['name']}: removed {_removed(found['removed'])}"


def _say(line: str) -> None:
    err.print(escape(line))


def _become(command: list[str]) -> None:
    """Replace this process by ``command``, so that terminal, signals and exit status are its own."""
    os.execvp(command[0], command)  # nosec B606 # no shell is wanted


def _removed(removed: dict[str, Any]) -> str:
    names = [", ".join(value) if isinstance(value, list) else what for what, value in removed.items() if value]
    return "; ".join(names) or "nothing, there was none"


def _summaries_table(data: dict[str, Any]) -> Any:
    if not data["testbeds"]:
        return "no testbed; raise one: deep testbed up"
    columns = ("name", "profile", "image", "nodes", "phase")
    table = Table(*columns, box=None, header_style="bold")
    for one in data["testbeds"]:
        table.add_row(*(str(one[column] if one[column] is not None else "-") for column in columns))
    return table


def _status_table(found: dict[str, Any]) -> Any:
    table = Table("node", "address", "system", "state", "failed units", "versions", box=None, header_style="bold")
    for node in found["nodes"]:
        versions = {key: value for key, value in (node["versions"] or {}).items() if key != "system"}
        system = node["image"].rpartition(":")[2]
        table.add_row(
            node["name"], node["address"], system, node["system"] or node["status"],
            ", ".join(node["failed_units"]) or "-", "  ".join(f"{key} {value}" for key, value in versions.items()),
        )  # fmt: skip
    served = found["server"]
    lines = [
        f"testbed {found['name']}: profile {found['profile']}, {found['subnet']}, reached: {found['phase']}",
        f"artefacts {served['url']}: {f'process {served["pid"]}' if served['running'] else 'not served'}",
        f"state in {found['state_dir']}",
        *(f"set: {setting}={json.dumps(value)}" for setting, value in found["settings"].items()),
    ]
    verdict = found.get("verdict")
    return Group(*map(escape, lines), table, *([verdict_text(verdict)] if verdict else []))
