"""``deep site``: the sites of ``inventories/``, checked, deployed and verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from testbed import sites
from testbed.cli.options import Json, SiteName, SiteTestbed
from testbed.console import emit
from testbed.errors import CHECK_FAILED
from testbed.playbook import playbook_names

app = typer.Typer(no_args_is_help=True)
Check = Annotated[bool, typer.Option("--check", help="Say what would change and change nothing.")]
Limit = Annotated[str | None, typer.Option("--limit", help="Only these hosts or groups.")]
MARKS = {
    "passed": "[green]passed[/]",
    "failed": "[red]failed[/]",
    "skipped": "[yellow]skipped[/]",
    "not run": "[red]not run[/]",
}


def finish(result: dict[str, Any], as_json: bool, render: Callable[[Any], RenderableType]) -> None:
    """Print a result and leave with 1 where it is not ok."""
    emit(result, as_json, render)
    if not result["ok"]:
        raise typer.Exit(CHECK_FAILED)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the sites and what their files say."""
    found = [site.as_dict() for site in sites.list_sites()]
    emit({"ok": True, "sites": found}, as_json, lambda data: _sites_table(data["sites"]))


def _sites_table(found: list[dict[str, Any]]) -> Table:
    table = Table("site", "hosts", "GPUs", "secrets", box=None, pad_edge=False)
    for site in found:
        secret = "made" if site["secrets"] else "by the testbed" if site["name"] == sites.TESTBED_SITE else "none yet"
        table.add_row(site["name"], str(site["hosts"] or "-"), "simulated" if site["simulated"] else "real", secret)
    return table


@app.command()
def check(site: SiteName, name: SiteTestbed = None, as_json: Json = False) -> None:
    """Look for what is wrong with a site before any host is contacted."""
    # Ansible's own modules: half a second that the other commands need not wait.
    from testbed import site_check  # pylint: disable=import-outside-toplevel

    finish(site_check.check(site, name), as_json, _check_text)


def _check_text(result: dict[str, Any]) -> RenderableType:
    rows: list[RenderableType] = []
    for problem in result["problems"]:
        facts = ", ".join(f"{key}: {problem[key]}" for key in ("found", "needed") if problem[key])
        host = f"{problem['host']}: " if problem["host"] else ""
        rows.append(f"[red]problem[/] {escape(host + problem['message'])}{escape(f' ({facts})') if facts else ''}")
        if problem["next_step"]:
            rows.append(f"  next: {escape(problem['next_step'])}")
    counted = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in result["checked"].items())
    verdict = "[green]ok[/]" if result["ok"] else f"[red]{len(result['problems'])} problems[/]"
    return Group(*rows, f"{result['site']}: {verdict}; {result['hosts']} hosts; looked at {counted}")


@app.command()
def deploy(
    site: SiteName,
    limit: Limit = None,
    check_mode: Check = False,
    unchanged: Annotated[
        bool, typer.Option("--unchanged", help="End with 1 where anything was, or would be, changed.")
    ] = False,
    name: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Bring a site to what its inventory says."""
    with sites.alone(site, name):
        result = sites.play(site, limit=limit, check_mode=check_mode, name=name)
    kept = {"ok": bool(result.hosts) and not result.changed} if unchanged else {}
    finish({**result.as_dict(), **kept}, as_json, _deploy_text)


def complete_playbook(incomplete: str) -> list[str]:
    """Playbooks that start like this."""
    return [name for name in playbook_names() if name.startswith(incomplete)]


@app.command()
def run(
    site: SiteName,
    playbook: Annotated[str, typer.Argument(help="A file of playbooks/.", autocompletion=complete_playbook)],
    variables: Annotated[
        list[str] | None, typer.Option("--extra-vars", "-e", metavar="NAME=VALUE", help="A variable of the playbook.")
    ] = None,
    limit: Limit = None,
    check_mode: Check = False,
    name: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Run one playbook on a site: a layer, or an operation such as add_node."""
    with sites.alone(site, name):
        result = sites.play(site, playbook, variables=variables or (), limit=limit, check_mode=check_mode, name=name)
    finish(result.as_dict(), as_json, _deploy_text)


def _deploy_text(result: dict[str, Any]) -> RenderableType:
    table = Table("host", "ok", "changed", "skipped", box=None, pad_edge=False)
    for host, counts in result["hosts"].items():
        table.add_row(host, *(str(counts.get(key, 0)) for key in ("ok", "changed", "skipped")))
    verdict = (
        []
        if result["ok"]
        else [f"[red]not as it should be: {result['changed']} changes on {len(result['hosts'])} hosts[/]"]
    )
    return Group(table, *verdict, f"{result['tasks']} tasks in {result['seconds']:.1f} s; log: {escape(result['log'])}")


@app.command()
def verify(
    site: SiteName,
    limit: Limit = None,
    select: Annotated[str | None, typer.Option("--select", help="Only checks whose name matches (pytest -k).")] = None,
    assess: Annotated[bool, typer.Option("--assess", help="Also look at the site as an attacker does.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the report (JUnit, JSON, log) goes.", file_okay=False)
    ] = None,
    name: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Run the acceptance suite against a deployed site."""
    verdict = sites.verify(
        site, name=name, select=select, limit=limit, assess=assess, output=output, quiet=as_json
    )  # fmt: skip
    finish(verdict, as_json, verdict_text)


def verdict_text(verdict: dict[str, Any]) -> RenderableType:
    """A verdict of the acceptance suite for people: every check, the reasons, and how much of it was simulated."""
    table = Table("", "check", "seconds", box=None, pad_edge=False)
    for one in verdict["checks"]:
        which = one["id"].partition("[")[2].rstrip("]")
        reason = f"\n  {escape(one['reason'])}" if one["reason"] else ""
        table.add_row(
            MARKS[one["outcome"]],
            f"{escape(one['title'])}{escape(f' ({which})') if which else ''}{reason}",
            f"{one['seconds']:.1f}",
        )
    kind = " [yellow]with simulated GPUs[/]" if verdict["simulated"] else ""
    outcome = "[green]ok[/]" if verdict["ok"] else f"[red]not ok, {len(verdict['failures'])} failures[/]"
    counts = f"{verdict['passed']} passed, {verdict['skipped']} skipped in {verdict['seconds']:.0f} s"
    return Group(table, f"{verdict['site']}{kind}: {outcome}; {counts}", f"report: {escape(verdict['report'])}")


@app.command()
def secrets(site: SiteName, name: SiteTestbed = None, as_json: Json = False) -> None:
    """Make the secrets that a site lacks, vault-encrypted; values that exist are kept."""
    finish(sites.secrets(site, name), as_json, _secrets_text)


def _secrets_text(result: dict[str, Any]) -> str:
    done = "made" if result["made"] else "nothing was missing of"
    opened = f"opened by {escape(result['password_file'])} (keep that one out of version control)"
    return f"{done} {', '.join(result['secrets'])}: {escape(result['file'])}, {opened}"
