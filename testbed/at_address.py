"""HTTP to hosts whose names only the site knows: this machine's own name resolution is never touched."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx


class AtAddress(httpx.BaseTransport):
    """Connects to the ``addresses`` of some names, which the Host header, cookies and certificates still say.

    Other names are resolved as usual. ``trust`` says whose certificates are good.
    """

    def __init__(self, addresses: Mapping[str, str], trust: ssl.SSLContext) -> None:
        self._addresses = addresses
        self._trust = trust
        # One for each name: a connection that was made for another name says nothing about this one's certificate.
        self._transports: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The request as it is, but for where it goes."""
        name = request.url.host
        if name not in self._transports:
            self._transports[name] = httpx.HTTPTransport(verify=self._trust, trust_env=False)
        return self._transports[name].handle_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host=self._addresses.get(name, name)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": name},
            )
        )

    def close(self) -> None:
        """End all connections."""
        for transport in self._transports.values():
            transport.close()
