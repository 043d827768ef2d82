"""Who somebody is at a site: logging in, and the tokens kept for programs that act as that person, such as kubectl.

One file of mode 0600 in the site's state holds the tokens. Whoever renews them holds a lock, because a provider may
let each refresh token be used once only. Tokens are for the provider and the client that gave them: where the
inventory has named others since, nobody is given them and nobody is sent them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from testbed import sites
from testbed.errors import CHECK_FAILED, DeepError
from testbed.files import exclusive, sha256_of, write_atomic
from testbed.iam import Client, NoAnswerError, Provider, RefusedError, Tokens
from testbed.playbook import tool

FILE = "login.json"
LOCK = "login.lock"
LOCK_PATIENCE = 60.0
# A token with less time left is renewed: what it is given to needs some time too.
MARGIN = 30.0
SITE_CA = "ca.crt"
KUBERNETES_CA = "kubernetes-ca.crt"
CREDENTIAL = "client.authentication.k8s.io/v1"
# As role iam gives it.
PASSWORD = (  # nosec B105  # not one, but how it is made
    "{{ login_user.password | default(iam_seed | deephdc.testbed.derived_secret('user', login_user.name)) }}"
)


@dataclass(frozen=True)
class Place:
    """A site, or the testbed ``name``, and what its inventory says to those who log in there."""

    site: str
    name: str | None = None

    def __str__(self) -> str:
        """The words that name it on the command line."""
        return f"{self.site} --name {self.name}" if self.name else self.site

    @property
    def folder(self) -> Path:
        """Where its tokens are kept."""
        return sites.state_folder(self.site, self.name)

    @property
    def again(self) -> str:
        """The command that logs in."""
        return f"deep login {self}{' --as USER' if self.site == sites.TESTBED_SITE else ''}"

    @property
    def fingerprint(self) -> str:
        """A hash of all files of the inventory: what it says cannot have changed while this has not."""
        found = hashlib.sha256()
        for source in sites.inventory_sources(self.site, self.name):
            for file in sorted(file for file in source.rglob("*") if file.is_file()):
                found.update(f"{file}\n{sha256_of(file)}\n".encode())
        return found.hexdigest()

    def public_file(self, name: str) -> Path:
        """A file that a deployment of the site leaves here; raises ``DeepError`` where it is not."""
        file = sites.public_dir(self.site, self.name) / name
        if file.is_file():
            return file
        raise DeepError(
            f"{name} of the site is not on this machine",
            found=f"no {file}",
            needed="a copy of it, which is no secret",
            next_step=f"deep site deploy {self}, or get the file from the site's administrator",
        )

    def value(self, expression: str, more: Mapping[str, Any] | None = None) -> Any:
        """What a variable or template is on the site's first host; raises ``DeepError`` where it is not defined."""
        # Ansible's own modules: half a second that a token at hand need not wait.
        from ansible.template import trust_as_template

        from testbed.rendering import Unknown

        variables = self._inventory.variables(self._host, more=more)
        found = self._inventory.render(trust_as_template(expression), variables)
        if isinstance(found, Unknown):
            raise DeepError(f"the inventory of {self.site} lacks something: {found.reason}", next_step=self._check)
        return found

    @cached_property
    def _inventory(self) -> Any:
        from testbed.site_check import settings

        sites.need_testbed(self.site, self.name)
        return settings(self.site, self.name)

    @property
    def _host(self) -> str:
        if not self._inventory.hosts:
            raise DeepError(f"the site {self.site} has no host", next_step=self._check)
        return str(self._inventory.hosts[0])

    @property
    def _check(self) -> str:
        return f"deep site check {self}"


@dataclass(frozen=True)
class Login:
    """What is kept of a login: what it was given, by whom, and the fingerprint of an inventory that names the same."""

    issuer: str
    client: str
    inventory: str
    tokens: Tokens

    def at_hand(self, inventory: str) -> bool:
        """Whether the token can be given out as it is, with an inventory of this fingerprint."""
        return self.inventory == inventory and _left(self.tokens) > MARGIN


def provider(place: Place) -> Provider:
    """The identity provider of a site, with how to reach and how to trust it from this machine."""
    issuer, host = str(place.value("{{ iam_issuer }}")), str(place.value("{{ iam_host }}"))
    if not issuer.startswith("https://"):
        raise DeepError(
            f"nobody can log in at {place}: it has no identity provider",
            found=f"iam_issuer: {issuer or 'empty'}",
            needed="a host in group iam, or the https address of the site's own provider in iam_issuer",
            next_step="correct the site's inventory",
        )
    # The names of a testbed are known to its nodes only; the inventory knows the address.
    own = host and urlsplit(issuer).hostname == place.value("{{ iam_name }}")
    return Provider(
        issuer=issuer,
        client=str(place.value("{{ iam_client }}")),
        scopes=tuple(place.value("{{ iam_scopes }}")),
        host=host or str(urlsplit(issuer).hostname),
        address=str(place.value("{{ hostvars[iam_host].node_address }}")) if own else "",
        authority=place.public_file(SITE_CA) if place.value("{{ iam_issuer_authority }}") == "site" else None,
        audience=tuple(place.value("{{ iam_audience }}")),
    )


def users(place: Place) -> dict[str, dict[str, Any]]:
    """The people whose passwords the inventory of a testbed gives, by name."""
    if place.site != sites.TESTBED_SITE:
        raise DeepError(
            "only the people of a testbed can be chosen by name",
            found=f"site {place.site}",
            next_step=f"log in as yourself: {place.again}",
        )
    return {str(user["name"]): user for user in place.value("{{ iam_users | default([]) }}")}


# --- logging in and out --------------------------------------------------------------------------------------------


def log_in(
    place: Place, show: Callable[[str], None], *, user: str | None = None, browser: bool = False
) -> dict[str, Any]:
    """Log in, by default on another device, as ``user`` of a testbed with the password; returns what ``whoami`` does.

    ``show`` is given the lines that tell the person what to do.
    """
    # A web server and a browser, which only this needs.
    from testbed import iam_flows

    inventory = place.fingerprint
    password = _password(place, user) if user else ""
    with Client(provider(place)) as client:
        if user:
            tokens = iam_flows.by_password(client, user, password)
        else:
            tokens = (iam_flows.by_browser if browser else iam_flows.by_device)(client, show)
        found = _person(place, client, tokens)
        with alone(place):
            _keep(place, Login(client.provider.issuer, client.provider.client, inventory, tokens))
    return found


def _password(place: Place, user: str) -> str:
    known = users(place)
    if user not in known:
        raise DeepError(
            f"no user {user}",
            found=user,
            needed=f"one of: {', '.join(sorted(known)) or 'none, the inventory has no iam_users'}",
            next_step=place.again,
        )
    return str(place.value(PASSWORD, {"login_user": known[user]}))


def log_out(place: Place) -> dict[str, Any]:
    """Forget the tokens, and end the login at the provider where it answers: ``{ok, site, logged_out, revoked}``."""
    sites.need_testbed(place.site, place.name)
    file = place.folder / FILE
    with alone(place):
        there = file.exists()
        revoked = _revoke(place)
        file.unlink(missing_ok=True)
    return {"ok": True, "site": place.site, "logged_out": there, "revoked": revoked}


def _revoke(place: Place) -> bool:
    try:
        kept = _kept(place)
        if kept is None or not kept.tokens.refresh:
            return False
        _need_same(place, kept)
        with Client(provider(place)) as client:
            client.revoke(kept.tokens.refresh)
    except DeepError:
        # The tokens go from this machine all the same, and end by themselves.
        return False
    return True


# --- tokens --------------------------------------------------------------------------------------------------------


def token(place: Place) -> Tokens:
    """A valid access token, renewed where its end is near; raises ``DeepError`` that says how to log in.

    While the provider does not answer, a token goes on being given out until its very end.
    """
    sites.need_testbed(place.site, place.name)
    inventory = place.fingerprint
    kept = _kept(place)
    if kept and kept.at_hand(inventory):
        return kept.tokens
    with alone(place):
        # Another command may have renewed it by now.
        kept = _kept(place)
        if kept is None:
            raise _not_logged_in(place, f"not logged in at {place}", "no token")
        if kept.at_hand(inventory):
            return kept.tokens
        _need_same(place, kept)
        kept = replace(kept, inventory=inventory)
        _keep(place, kept)
        return kept.tokens if _left(kept.tokens) > MARGIN else _renewed(place, kept)


def _need_same(place: Place, kept: Login) -> None:
    """Raise ``DeepError`` where the inventory names another provider or client than the one of the login."""
    issuer, client = str(place.value("{{ iam_issuer }}")), str(place.value("{{ iam_client }}"))
    if (kept.issuer, kept.client) != (issuer, client):
        raise DeepError(
            f"the login at {place} is one of before the inventory changed",
            found=f"tokens for client {kept.client} by {kept.issuer}",
            needed=f"tokens for client {client} by {issuer or 'nobody, as iam_issuer is empty'}",
            next_step=place.again,
            exit_code=CHECK_FAILED,
        )


def _renewed(place: Place, kept: Login) -> Tokens:
    left = _left(kept.tokens)
    if not kept.tokens.refresh:
        if left > 0:
            return kept.tokens
        raise _not_logged_in(
            place, f"the login at {place} has ended", f"a token valid until {clock(kept.tokens.until)}"
        )
    try:
        with Client(provider(place)) as client:
            tokens = client.grant("refresh_token", refresh_token=kept.tokens.refresh)
    except NoAnswerError:
        if left > 0:
            return kept.tokens
        raise
    except RefusedError as refused:
        if refused.code != "invalid_grant":
            raise
        raise _not_logged_in(place, f"the login at {place} has ended", refused.said) from refused
    _keep(place, replace(kept, tokens=tokens))
    return tokens


def _not_logged_in(place: Place, what: str, found: str) -> DeepError:
    return DeepError(what, found=found, needed="a login", next_step=place.again, exit_code=CHECK_FAILED)


def _left(tokens: Tokens) -> float:
    return tokens.until - time.time()


def _kept(place: Place) -> Login | None:
    file = place.folder / FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        tokens = Tokens(**content["tokens"])
        return Login(**{**content, "tokens": replace(tokens, until=float(tokens.until))})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as broken:
        raise _not_logged_in(place, f"the tokens in {file} cannot be read", str(broken)) from broken


def _keep(place: Place, login: Login) -> None:
    write_atomic(place.folder / FILE, json.dumps(asdict(login), indent=2) + "\n", 0o600)


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """Wait until no other command renews the site's tokens, and keep others out."""
    deadline = time.monotonic() + LOCK_PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(exclusive(place.folder / LOCK, f"the login at {place}", "wait for it to end"))
                break
            except DeepError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


# --- what is made of them ------------------------------------------------------------------------------------------


def who(place: Place) -> dict[str, Any]:
    """Who the provider says is logged in: ``{ok, site, user, groups, issuer, until, session_until}``."""
    tokens = token(place)
    with Client(provider(place)) as client:
        return _person(place, client, tokens)


def _person(place: Place, client: Client, tokens: Tokens) -> dict[str, Any]:
    try:
        claims = client.person(tokens.access)
    except RefusedError as refused:
        raise _not_logged_in(place, f"the login at {place} is no longer accepted", refused.said) from refused
    return {
        "ok": True,
        "site": place.site,
        "user": claims.get(place.value("{{ iam_username_claim }}")),
        "groups": sorted(claims.get(place.value("{{ iam_groups_claim }}")) or []),
        "issuer": client.provider.issuer,
        "until": clock(tokens.until),
        "session_until": clock(tokens.session_until) if tokens.session_until else None,
    }


def clock(seconds: float) -> str:
    """Seconds since 1970 as people, JSON and Kubernetes read a time."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def credential(place: Place) -> dict[str, Any]:
    """What kubectl asks a credential plugin for."""
    tokens = token(place)
    status = {"token": tokens.access, "expirationTimestamp": clock(tokens.until)}
    return {"apiVersion": CREDENTIAL, "kind": "ExecCredential", "status": status}


def kubeconfig(place: Place) -> str:
    """A kubeconfig that calls ``deep`` for a token of whoever is logged in; it holds no secret."""
    endpoint = str(place.value("{{ kubernetes_control_plane_endpoint }}")).strip()
    if not endpoint:
        raise DeepError(
            f"{place} has no Kubernetes",
            found="kubernetes_control_plane_endpoint is empty",
            needed="a host in group kubernetes_control_plane",
            next_step="name a site with Kubernetes: deep site list",
        )
    authority = place.public_file(KUBERNETES_CA).read_bytes()
    cluster = {**_server(place, endpoint), "certificate-authority-data": base64.b64encode(authority).decode()}
    label = place.name or place.site
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": label, "cluster": cluster}],
        "users": [{"name": label, "user": {"exec": _plugin(place)}}],
        "contexts": [{"name": label, "context": {"cluster": label, "user": label}}],
        "current-context": label,
    }
    return str(yaml.safe_dump(config, sort_keys=False))


def _server(place: Place, endpoint: str) -> dict[str, str]:
    if place.site != sites.TESTBED_SITE:
        return {"server": f"https://{endpoint}"}
    # The name is known to the nodes only; the certificate is held against it all the same.
    name, _, port = endpoint.rpartition(":")
    address = place.value("{{ hostvars[groups['kubernetes_control_plane'] | first].node_address }}")
    return {"server": f"https://{address}:{port}", **({"tls-server-name": name} if name != address else {})}


def _plugin(place: Place) -> dict[str, Any]:
    state = os.environ.get("DEEP_STATE_DIR")
    return {
        "apiVersion": CREDENTIAL,
        "command": tool("deep"),
        "args": ["kube-credential", place.site, *(["--name", place.name] if place.name else [])],
        "env": [{"name": "DEEP_STATE_DIR", "value": state}] if state else [],
        "installHint": "the program is that of the checkout of deep-testbed that made this file: make install",
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": False,
    }
