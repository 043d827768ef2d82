"""INDIGO IAM is what the rest of the site believes it to be. Written from its documentation: it has never run here."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest

from plugins.module_utils.jwk import decoded
from testbed.at_address import AtAddress
from tests.acceptance.probes.site import Site

MINIMUM_BITS = 2048


@pytest.fixture
def indigo(site: Site, host: Any, hostname: str) -> httpx.Client:
    """A client that reaches INDIGO IAM by its host's address and checks its certificate for its own name."""
    if site.value(hostname, "iam_backend") != "indigo_iam":
        pytest.skip("INDIGO IAM is not exercised here: the site's IAM is Keycloak")
    endpoint = str(site.value(hostname, "iam_endpoint"))
    trust = ssl.create_default_context(cadata=host.file("/etc/deephdc/iam/proxy/ca.crt").content_string)
    transport = AtAddress({endpoint.rpartition(":")[0]: site.address(hostname)}, trust)
    return httpx.Client(base_url=f"https://{endpoint}", transport=transport, timeout=10)


@pytest.mark.group("iam")
def test_indigo_is_the_issuer(site: Site, indigo: httpx.Client, hostname: str) -> None:
    """Discovery names the issuer that the site's services believe, to the letter."""
    assert indigo.get("/.well-known/openid-configuration").json()["issuer"] == site.value(hostname, "iam_issuer")


@pytest.mark.group("iam")
def test_indigo_signs_with_strong_keys(site: Site, indigo: httpx.Client, hostname: str) -> None:
    """The key set holds the keys of the inventory, each long enough, and no private part."""
    keys = {key["kid"]: key for key in indigo.get("/jwk").json()["keys"]}
    assert set(keys) == set(site.value(hostname, "iam_indigo_signing_keys"))
    assert min(decoded(key["n"]).bit_length() for key in keys.values()) >= MINIMUM_BITS
    assert not [kid for kid, key in keys.items() if "d" in key]


@pytest.mark.group("iam")
def test_indigo_shows_its_health_only(indigo: httpx.Client) -> None:
    """Health is seen from outside, the rest of the actuator is not."""
    assert indigo.get("/actuator/health").json()["status"] == "UP"
    assert [indigo.get(path).status_code for path in ("/actuator", "/actuator/env", "/actuator/info")] == [404] * 3
