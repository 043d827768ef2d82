"""Tokens of people from the site's IAM, and tokens that nobody may believe."""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.acceptance.probes.iam import Iam, decoded
from tests.acceptance.probes.site import Site

TIMEOUT = 20
# A server's clock may be a moment behind ours.
SLACK = 1.5


def issuer_of(site: Site, host: str) -> Iam:
    """The site's issuer of tokens, on ``host``."""
    issuer, seed = (str(site.value(host, name)) for name in ("iam_issuer", "iam_seed"))
    return Iam(issuer, site.address(host), site_trust(site, host), seed)


def site_trust(site: Site, host: str) -> ssl.SSLContext:
    """Who may sign the certificate of the issuer that ``host`` believes."""
    own = site.value(host, "iam_issuer_authority") == "site"
    return site.authority() if own else ssl.create_default_context()


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    return dict(json.loads(decoded(token.split(".")[1])))


def tampered(token: str, **changes: Any) -> str:
    """The token with other claims under the old signature."""
    head, _, signature = token.split(".")
    return f"{head}.{_encoded({**claims(token), **changes})}.{signature}"


def forged(token: str, key: rsa.RSAPrivateKey, **changes: Any) -> str:
    """The token's claims, some changed, under the issuer's key name, signed by ``key``."""
    signed = f"{token.split('.')[0]}.{_encoded({**claims(token), **changes})}"
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def unsigned(said: Mapping[str, Any], algorithm: str = "none") -> str:
    """A token that says this and has no signature, whatever its head says."""
    return f"{_encoded({'alg': algorithm, 'typ': 'JWT'})}.{_encoded(said)}."


def wait_for_end(tokens: Mapping[str, str]) -> None:
    """Wait until all ``tokens`` are over; fails the check where one is meant to live for long."""
    left = max(float(claims(token)["exp"]) for token in tokens.values()) - time.time()
    assert left < TIMEOUT, f"a token that is to be expired lives for {left:.0f} s more"
    time.sleep(max(0.0, left + SLACK))


def _encoded(content: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
