"""Tokens of people from the site's IAM, and tokens that nobody may believe."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from plugins.filter.secrets import derived_secret
from tests.acceptance.probes.site import Site

TIMEOUT = 20
# A server's clock may be a moment behind ours.
SLACK = 1.5


class Iam:
    """The site's issuer of tokens, asked at its host's address under its own name."""

    def __init__(self, site: Site, host: str) -> None:
        self.site = site
        self.host = host
        self.issuer = str(site.value(host, "iam_issuer"))
        parts = urlsplit(self.issuer)
        self._client = httpx.Client(
            base_url=f"https://{site.address(host)}:{parts.port or 443}",
            headers={"Host": parts.netloc},
            verify=site_trust(site, host),
            timeout=TIMEOUT,
            trust_env=False,
        )
        self._extensions = {"sni_hostname": parts.hostname}
        self._token_path = urlsplit(self._get(f"{parts.path.rstrip('/')}/.well-known/openid-configuration")).path

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def _get(self, path: str) -> str:
        answer = self._client.get(path, extensions=self._extensions)
        assert answer.is_success, f"{self.issuer} says {answer.status_code} at {path}: {answer.text[:300]}"
        return str(answer.json()["token_endpoint"])

    def token(self, user: str, client: str, scope: str = "openid") -> str:
        """An access token of ``user``, by the password grant of ``client``."""
        password = derived_secret(str(self.site.value(self.host, "iam_seed")), "user", user)
        form = {"grant_type": "password", "client_id": client, "username": user, "password": password, "scope": scope}
        answer = self._client.post(self._token_path, data=form, extensions=self._extensions)
        assert answer.is_success, f"{self.issuer} gives {user} no token for client {client}: {answer.text[:300]}"
        return str(answer.json()["access_token"])


def site_trust(site: Site, host: str) -> ssl.SSLContext:
    """Who may sign the certificate of the issuer that ``host`` believes."""
    if site.value(host, "iam_issuer_authority") != "site":
        return ssl.create_default_context()
    path = f"{site.value(host, 'site_ca_dir')}/ca.crt"
    authority = site.host(site.value(host, "site_ca_host")).file(path).content_string
    return ssl.create_default_context(cadata=authority)


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    return dict(json.loads(_decoded(token.split(".")[1])))


def tampered(token: str, **changes: Any) -> str:
    """The token with other claims under the old signature."""
    head, _, signature = token.split(".")
    return f"{head}.{_encoded({**claims(token), **changes})}.{signature}"


def forged(token: str, key: rsa.RSAPrivateKey, **changes: Any) -> str:
    """The token's claims, some changed, under the issuer's key name, signed by ``key``."""
    signed = f"{token.split('.')[0]}.{_encoded({**claims(token), **changes})}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def wait_for_end(tokens: Mapping[str, str]) -> None:
    """Wait until all ``tokens`` are over; fails the check where one is meant to live for long."""
    left = max(float(claims(token)["exp"]) for token in tokens.values()) - time.time()
    assert left < TIMEOUT, f"a token that is to be expired lives for {left:.0f} s more"
    time.sleep(max(0.0, left + SLACK))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _encoded(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
