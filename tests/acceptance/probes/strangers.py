"""What an HTTP endpoint answers to somebody who has not logged in."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import httpx

from tests.acceptance.probes import exposure

# Asked of every endpoint, beside the paths that are declared for it: the root, where interfaces begin, what they say
# of themselves, and what is left open by mistake.
PATHS = (
    "/", "/api", "/v1", "/v2/", "/metrics", "/openapi.json", "/docs", "/debug/pprof/", "/actuator", "/server-status",
)  # fmt: skip
# Without a login, and with a token that nobody has issued.
LOGINS: Mapping[str, Mapping[str, str]] = {
    "without a login": {},
    "with a made-up token": {"Authorization": "Bearer made-up"},
}
MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Answered:
    """What a stranger was answered: at the path at which redirects on the same endpoint ended, and the status."""

    path: str
    login: str
    status: int


def stranger() -> httpx.Client:
    """Takes any certificate and any encryption, as an attacker does: nothing of ours is sent, nothing is believed."""
    anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anything.check_hostname = False  # nosemgrep: tls-not-verified # see above
    anything.verify_mode = ssl.CERT_NONE  # nosemgrep: tls-not-verified # see above
    anything.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    anything.set_ciphers("ALL:@SECLEVEL=0")
    return httpx.Client(verify=anything, timeout=exposure.TIMEOUT, trust_env=False)


def ask(client: httpx.Client, url: str, paths: Iterable[str]) -> Iterator[Answered]:
    """Every answer of the endpoint ``url`` at ``paths``; none where it does not speak HTTP.

    Raises ``AssertionError`` where it stops answering, for then nothing is known of the paths that are left.
    """
    speaks = False
    for path, (login, headers) in itertools.product(dict.fromkeys(paths), LOGINS.items()):
        try:
            end, status = _followed(client, url, path, headers)
        except httpx.HTTPError as failed:
            if speaks:
                raise AssertionError(f"{url}{path} {login}: no answer, so nothing is known of it: {failed}") from failed
            return
        speaks = True
        yield Answered(end, login, status)


def _followed(client: httpx.Client, url: str, path: str, headers: Mapping[str, str]) -> tuple[str, int]:
    """Path and status of the last answer after redirects that stay on the endpoint."""
    base = httpx.URL(url)
    where, left = base.join(path), MOST_REDIRECTS
    while True:
        with client.stream("GET", where, headers=headers) as answer:
            following = answer.next_request
        if following is None or not left or (following.url.host, following.url.port) != (base.host, base.port):
            return where.path, answer.status_code
        where, left = following.url, left - 1


def open_to_strangers(answers: Iterable[Answered], public: Iterable[str]) -> list[str]:
    """Where strangers are let in (2xx), and as whom, at paths that no pattern of ``public`` names."""
    patterns = list(public)
    let_in: dict[str, list[str]] = {}
    for one in answers:
        if 200 <= one.status < 300 and not any(PurePosixPath(one.path).match(pattern) for pattern in patterns):
            let_in.setdefault(one.path, []).append(one.login)
    return [f"{path} ({' and '.join(dict.fromkeys(logins))})" for path, logins in let_in.items()]


def declared_at(entries: Iterable[Mapping[str, Any]], port: int) -> tuple[list[str], dict[str, str]]:
    """For a port, of the entries ``{port, paths, public}``: the paths to ask, and pattern to reason of public ones.

    Raises ``ValueError`` for a public path without a reason.
    """
    paths: list[str] = []
    public: dict[str, str] = {}
    for entry in entries:
        if port in map(int, entry["port"] if isinstance(entry["port"], list) else [entry["port"]]):
            paths += entry.get("paths", [])
            public |= entry.get("public", {})
    without = sorted(path for path, reason in public.items() if not str(reason or "").strip())
    if without:
        raise ValueError(f"port {port}: public without a reason: {', '.join(without)}")
    return paths, public
