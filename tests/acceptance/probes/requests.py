"""HTTP requests at a fixed pace in the background, every failure kept."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import httpx

TIMEOUT = 2.0


def answers(url: str) -> bool:
    """Whether a single request is answered well."""
    try:
        return httpx.get(url, timeout=TIMEOUT, trust_env=False).is_success
    except httpx.HTTPError:
        return False


class SteadyRequests:
    """Ask addresses in turn, one new connection per request, ``pace`` seconds apart, at most ``most`` times."""

    def __init__(self, urls: Sequence[str], *, pace: float, most: int) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._urls = itertools.cycle(urls)
        self._pace = pace
        self._most = most
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def count(self) -> int:
        """Requests that have an outcome so far."""
        return len(self.answers) + len(self.failures)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the request that is under way."""
        self._stop.set()
        self._thread.join()

    def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait until ``count`` requests have an outcome."""
        deadline = time.monotonic() + seconds
        while self.count < count and self._thread.is_alive():
            assert time.monotonic() < deadline, f"only {self.count} of {count} requests within {seconds:g} s"
            time.sleep(self._pace)

    def _run(self) -> None:
        following = time.monotonic()
        # Connections are not kept: each request is routed anew, as a new visitor's would be.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(timeout=TIMEOUT, limits=limits, trust_env=False) as client:
            while not self._stop.is_set() and self.count < self._most:
                self._ask(client, next(self._urls))
                following += self._pace
                self._stop.wait(max(0.0, following - time.monotonic()))

    def _ask(self, client: httpx.Client, url: str) -> None:
        try:
            answer = client.get(url)
            answer.raise_for_status()
            self.answers.append(answer.text.strip())
        except httpx.HTTPError as error:
            after = time.monotonic() - self._started
            self.failures.append(f"request {self.count} after {after:.1f} s to {url}: {type(error).__name__}: {error}")
