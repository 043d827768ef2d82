"""Telling others that an order is done."""

from __future__ import annotations

import httpx

from deep_orchestrator import views
from deep_orchestrator.store import Deployment

TIMEOUT = 10.0


class Callbacks:
    """Sends deployments to their callbacks, as ``GET /deployments/{uuid}`` shows them.

    ``url``: the address of the service; ``hosts``: where anything may be sent to.
    """

    def __init__(self, url: str, hosts: frozenset[str]) -> None:
        self._url, self._hosts = url, hosts
        # Where it is sent on to has not been named by the site.
        self._http = httpx.Client(timeout=TIMEOUT, follow_redirects=False)

    def send(self, deployment: Deployment) -> None:
        """Send one; raises httpx.HTTPError where it is not taken."""
        # The site may have changed its mind since the order came.
        if deployment.callback and httpx.URL(deployment.callback).host in self._hosts:
            body = views.of_deployment(deployment, self._url).model_dump(mode="json", by_alias=True)
            self._http.post(deployment.callback, json=body).raise_for_status()
