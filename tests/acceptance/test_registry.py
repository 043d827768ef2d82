"""The site's image registry lets in who has the password, and nobody else."""

from __future__ import annotations

import ssl

import httpx
import pytest

from testbed.at_address import AtAddress
from tests.acceptance.probes.site import Site


@pytest.fixture
def registry(site: Site, hostname: str, authority: ssl.SSLContext) -> httpx.Client:
    """A client that reaches the registry by its host's address and checks its certificate for its own name."""
    endpoint = str(site.value(hostname, "registry_endpoint"))
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, authority)
    return httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=10)


def _credentials(site: Site, hostname: str) -> tuple[str, str]:
    return str(site.value(hostname, "registry_username")), str(site.value(hostname, "registry_password"))


@pytest.mark.group("registry")
def test_registry_admits_the_site(site: Site, registry: httpx.Client, hostname: str) -> None:
    """The registry answers the site's own user over TLS."""
    assert registry.get("/v2/", auth=_credentials(site, hostname)).status_code == 200


@pytest.mark.group("registry")
def test_registry_refuses_strangers(registry: httpx.Client) -> None:
    """The registry refuses a request without a password."""
    for path in ("/v2/", "/v2/_catalog"):
        assert registry.get(path).status_code == 401, path


@pytest.mark.group("registry")
def test_registry_refuses_a_wrong_password(site: Site, registry: httpx.Client, hostname: str) -> None:
    """The registry refuses the site's user with a wrong password."""
    user, password = _credentials(site, hostname)
    assert registry.get("/v2/_catalog", auth=(user, password[::-1] + "x")).status_code == 401
