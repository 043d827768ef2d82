"""Requests to identity providers under load: how many tokens a second, and how long the slowest of twenty takes."""

from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Any

import httpx

from testbed.at_address import AtAddress

WORKERS = 4
PERCENTILES = 20  # so that the last of the cut points is the 95th percentile
Request = Callable[[], object]
# What is to be done before a burst, such as getting a token, which lasts for minutes only.
Prepare = Callable[[], Request]


@dataclass(frozen=True)
class Load:
    """One burst of requests: how many a second, and the median and the 95th percentile of their latency (ms)."""

    rate: float
    median_ms: float
    p95_ms: float


class Provider:
    """One realm of a Keycloak, reached at ``address`` under its own ``name``."""

    def __init__(self, address: str, name: str, port: int, realm: str, ca: str) -> None:
        self.issuer = f"https://{name}:{port}/realms/{realm}"
        transport = AtAddress({name: address}, ssl.create_default_context(cadata=ca))
        self._client = httpx.Client(base_url=f"https://{name}:{port}", transport=transport, timeout=30)
        self._realm = realm

    def post(self, path: str, form: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send a form (or what ``options`` say) to a path; raises where the answer is an error."""
        answer = self._client.post(path, data=form, **options)
        return answer.raise_for_status()

    def token(self, client: str, secret: str, realm: str | None = None) -> str:
        """A token by client credentials."""
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        answer = self.post(f"/realms/{realm or self._realm}/protocol/openid-connect/token", form)
        return str(answer.json()["access_token"])

    def started(self, client: str, secret: str, realm: str, seconds: float = 120) -> str:
        """The first token of a Keycloak that is starting; the last error where it has none within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.token(client, secret, realm)
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def introspect(self, client: str, secret: str, token: str) -> None:
        """Ask whether a token is valid; raises where it is not."""
        form = {"client_id": client, "client_secret": secret, "token": token}
        answer = self.post(f"/realms/{self._realm}/protocol/openid-connect/token/introspect", form)
        if not answer.json()["active"]:
            raise ValueError("the token is not valid any more")


def burst(request: Request, count: int) -> Load:
    """Send ``count`` requests over ``WORKERS`` connections."""

    def timed(_: int) -> float:
        begin = time.perf_counter()
        request()
        return time.perf_counter() - begin

    begin = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        latencies = list(pool.map(timed, range(count)))
    spent = time.perf_counter() - begin
    slowest = statistics.quantiles(latencies, n=PERCENTILES)[-1]
    return Load(count / spent, statistics.median(latencies) * 1000, slowest * 1000)


def in_turns(prepared: dict[str, Prepare], *, count: int, rounds: int) -> dict[str, Load]:
    """The median of ``rounds`` bursts of each request, taken in turns after one burst each that warms up."""
    found: dict[str, list[Load]] = {name: [] for name in prepared}
    for number in range(rounds + 1):
        for name, prepare in prepared.items():
            load = burst(prepare(), count)
            if number:
                found[name].append(load)
    return {
        name: Load(*map(statistics.median, zip(*map(astuple, loads), strict=True))) for name, loads in found.items()
    }
