"""What an HTTP endpoint answers to somebody who has not logged in."""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.acceptance.probes import declarations, exposure, identity

# Asked of every endpoint, beside the paths that are declared for it: the root, where interfaces begin, what they say
# of themselves, and what is left open by mistake.
PATHS = (
    "/", "/api", "/v1", "/v2/", "/metrics", "/openapi.json", "/docs", "/debug/pprof/", "/actuator", "/server-status",
)  # fmt: skip
# Whoever asks has to log in (401) or may not (403), or there is nothing (404) or nothing to get (405). A redirect to
# elsewhere, as to a login, refuses too. Anything else, such as a gateway's 502, says nothing of who may read.
REFUSED = (401, 403, 404, 405)
MOST_REDIRECTS = 5
# For whom a token of the site may be.
AUDIENCES = ["kubernetes", "orchestrator", "registry"]
SECONDS = 3600


@dataclass(frozen=True)
class Answered:
    """What a stranger was answered: at the path at which redirects on the same endpoint ended, and the status."""

    path: str
    login: str
    status: int


def stranger() -> httpx.Client:
    """Takes any certificate and any encryption, as an attacker does: nothing of ours is sent, nothing is believed."""
    anything = exposure.anybody()
    anything.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    anything.set_ciphers("ALL:@SECLEVEL=0")
    # A connection for each request: one that was made for another name of the server would be refused.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(verify=anything, timeout=exposure.TIMEOUT, trust_env=False, limits=limits)


def logins(issuer: str) -> dict[str, dict[str, str]]:
    """How a stranger comes, with the headers: with nothing, and with tokens that ``issuer`` has not issued."""
    now = int(time.time())
    said = {
        "iss": issuer, "aud": AUDIENCES, "sub": "stranger", "preferred_username": "stranger",
        "groups": ["administrators"], "iat": now, "nbf": now, "exp": now + SECONDS,
    }  # fmt: skip
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    tokens = {
        "with a made-up token": "made-up",
        "with a token that it signed itself": identity.forged(identity.unsigned(said, "RS256"), key),
        "with an unsigned token": identity.unsigned(said),
    }
    return {"without a login": {}, **{how: {"Authorization": f"Bearer {token}"} for how, token in tokens.items()}}


def ask(
    client: httpx.Client, url: str, paths: Iterable[str], ways: Mapping[str, Mapping[str, str]]
) -> Iterator[Answered]:
    """Every answer of the endpoint ``url`` at ``paths``, in each of the ``ways`` to come; none without HTTP.

    Raises ``AssertionError`` where it stops answering, for then nothing is known of the paths that are left.
    """
    speaks = False
    for path, (login, headers) in itertools.product(dict.fromkeys(paths), ways.items()):
        try:
            end, status = _followed(client, url, path, headers)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as failed:
            if speaks:
                raise AssertionError(f"{url}{path} {login}: no answer, so nothing is known of it: {failed}") from failed
            return
        speaks = True
        yield Answered(end, login, status)


def _followed(client: httpx.Client, url: str, path: str, headers: Mapping[str, str]) -> tuple[str, int]:
    """Path and status of the last answer after redirects to the same port, asked here by whatever name they give it."""
    base = httpx.URL(url)
    where, left = base.join(path), MOST_REDIRECTS
    while True:
        named = {**headers, "Host": where.netloc.decode("ascii")}
        # Behind a gateway, a service takes its own address for one without TLS.
        scheme = "https" if "https" in (base.scheme, where.scheme) else "http"
        there = where.copy_with(scheme=scheme, host=base.host)
        with client.stream("GET", there, headers=named, extensions={"sni_hostname": where.host}) as answer:
            following = where.join(answer.headers["Location"]) if answer.has_redirect_location else None
        if following is None or not left or _port(following) != _port(base):
            return where.path, answer.status_code
        where, left = following, left - 1


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def open_to_strangers(answers: Iterable[Answered], public: Iterable[str]) -> list[str]:
    """Where strangers are let in (2xx), and as whom, at paths that no pattern of ``public`` names."""
    patterns = list(public)
    let_in: dict[str, list[str]] = {}
    for one in answers:
        if 200 <= one.status < 300 and not any(PurePosixPath(one.path).match(pattern) for pattern in patterns):
            let_in.setdefault(one.path, []).append(one.login)
    return [f"{path} ({' and '.join(dict.fromkeys(logins))})" for path, logins in let_in.items()]


def tells_nothing(answers: Iterable[Answered]) -> str:
    """Of an endpoint that neither lets anybody in nor refuses anything at any path, the statuses; else nothing."""
    statuses = {one.status for one in answers}
    if any(200 <= status < 400 or status in REFUSED for status in statuses):
        return ""
    return ", ".join(map(str, sorted(statuses)))


def declared_at(entries: Iterable[declarations.Http], port: int) -> tuple[list[str], dict[str, str]]:
    """For a port, of the declarations: the paths to ask, and pattern to reason of public ones."""
    here = [entry for entry in entries if port in entry.port]
    return [path for entry in here for path in entry.paths], {
        path: reason for entry in here for path, reason in entry.public.items()
    }
