"""``deep login`` and what goes with it: who somebody is at a site, for people and the programs that act for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from testbed import login as people
from testbed import sites
from testbed.cli.options import Json, SiteName, SiteTestbed
from testbed.console import emit, err
from testbed.errors import DeepError
from testbed.files import write_atomic
from testbed.login import Place

app = typer.Typer(no_args_is_help=True)


def complete_user(context: typer.Context, incomplete: str) -> list[str]:
    """Names of a testbed's people for the shell's completion."""
    with suppress(DeepError):
        place = Place(context.params.get("site") or sites.TESTBED_SITE, context.params.get("name"))
        return [user for user in sorted(people.users(place)) if user.startswith(incomplete)]
    return []


@app.command()
def login(
    site: SiteName = sites.TESTBED_SITE,
    user: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="One of the testbed's people.", autocompletion=complete_user),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="With a browser on this machine, without a code.")] = False,
    name: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Log in at a site: confirm a code in any browser, or be one of the testbed's people."""
    if user and browser:
        raise DeepError("two ways to log in", found="--as and --browser", needed="one", next_step="leave one out")
    place = Place(site, name)
    with _waiting(f"logging in at {place}"):
        found = people.log_in(place, _show, user=user, browser=browser)
    emit(found, as_json, lambda data: f"logged in at {escape(str(place))} as {_person_text(data)}")


def _show(line: str) -> None:
    err.print(escape(line))


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    if not err.is_terminal:
        yield
        return
    with err.status(escape(what)):
        yield


@app.command()
def logout(site: SiteName = sites.TESTBED_SITE, name: SiteTestbed = None, as_json: Json = False) -> None:
    """Forget the tokens of a site and end the login there."""
    emit(people.log_out(Place(site, name)), as_json, _logout_text)


def _logout_text(found: dict[str, Any]) -> str:
    if not found["logged_out"]:
        return f"nobody was logged in at {escape(found['site'])}"
    ended = "" if found["revoked"] else "; the provider was not told: the login ends there by itself"
    return f"logged out of {escape(found['site'])}{ended}"


@app.command()
def whoami(site: SiteName = sites.TESTBED_SITE, name: SiteTestbed = None, as_json: Json = False) -> None:
    """Ask the site's identity provider who is logged in."""
    emit(people.who(Place(site, name)), as_json, _person_text)


def _person_text(found: dict[str, Any]) -> str:
    groups = ", ".join(found["groups"]) or "no group"
    session = f", renewed by itself until {found['session_until']}" if found["session_until"] else ""
    text = f"{found['user']} ({groups}) by {found['issuer']}; token valid until {found['until']}{session}"
    return escape(text)


@app.command()
def token(site: SiteName = sites.TESTBED_SITE, name: SiteTestbed = None, as_json: Json = False) -> None:
    """Print a valid access token, renewed where it is about to end."""
    found = people.token(Place(site, name))
    data = {"ok": True, "site": site, "access_token": found.access, "until": people.clock(found.until)}
    emit(data, as_json, lambda shown: escape(shown["access_token"]))


@app.command()
def kube_credential(
    site: SiteName = sites.TESTBED_SITE,
    name: SiteTestbed = None,
    as_json: Json = False,  # noqa: ARG001  # as every command has it; kubectl itself wants nothing else
) -> None:
    """Give kubectl the token of whoever is logged in (an ExecCredential, always JSON)."""
    emit(people.credential(Place(site, name)), True, str)


@app.command()
def kubeconfig(
    site: SiteName = sites.TESTBED_SITE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file (mode 0600).")] = None,
    name: SiteTestbed = None,
    as_json: Json = False,
) -> None:
    """Print a kubeconfig for whoever is logged in; it holds no secret."""
    found = people.kubeconfig(Place(site, name))
    if output is not None:
        write_atomic(output, found, 0o600)
        emit({"ok": True, "path": str(output)}, as_json, lambda data: f"export KUBECONFIG={escape(data['path'])}")
    else:
        emit({"ok": True, "kubeconfig": found}, as_json, lambda data: escape(data["kubeconfig"].rstrip()))
