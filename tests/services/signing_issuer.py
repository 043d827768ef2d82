"""An issuer whose tokens are signed, for the tests of services that check them: keys, exchange and renewal."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.unit.login_issuer import Issuer, refusal

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass
class SigningIssuer(Issuer):
    """Gives people tokens, and tells the keys that they are signed with.

    ``sites_seconds``: how long tokens for sites last; ``ended``: people whose login is over.
    """

    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    identifier: str = "one"
    secret: str = "of the client"
    sites_seconds: int = 300
    ended: set[str] = field(default_factory=set)
    scopes: list[str] = field(default_factory=list)
    refused: bool = False

    def token(self, person: str, *groups: str, key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        """A token of a person."""
        now = int(time.time())
        said = {
            "iss": self.url, "aud": ["orchestrator"], "sub": f"sub-{person}", "iat": now, "exp": now + 60,
            "preferred_username": person, "groups": list(groups), "typ": "Bearer",
        }  # fmt: skip
        said = {name: value for name, value in (said | claims).items() if value is not None}
        return jwt.encode(said, key or self.key, algorithm, {"kid": self.identifier})

    def answer(self, what: str, fields: dict[str, str], bearer: str) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        self.asked.append((what, fields))
        if self.down:
            return 503, {}
        if what == "openid-configuration":
            told = self.told_issuer or self.url
            return 200, {"issuer": told, "jwks_uri": f"{self.url}/keys", "token_endpoint": f"{self.url}/token"}
        if what == "keys":
            public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return 200, {"keys": [{**public, "kid": self.identifier, "use": "sig", "alg": "RS256"}]}
        given = base64.b64decode(bearer.removeprefix("Basic ")).decode()
        if given != f"orchestrator:{self.secret}":
            return refusal("invalid_client")
        return self._delegated(fields)

    def _delegated(self, fields: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.scopes.append(fields["scope"])
        if fields["grant_type"] == EXCHANGE:
            user = jwt.decode(fields["subject_token"], options={"verify_signature": False})["preferred_username"]
            if self.refused:
                return refusal("access_denied", "not this client")
        else:
            # Each is good once, as in the site's own IAM.
            user = self.usable.pop(fields["refresh_token"], "")
            if not user or user in self.ended:
                return refusal("invalid_grant", "Session not active")
        self.given += 1
        refresh = f"refresh-{self.given}"
        self.usable[refresh] = user
        access = f"{user}-{self.given}"
        return 200, {"access_token": access, "refresh_token": refresh, "expires_in": self.sites_seconds}


def other_key() -> rsa.RSAPrivateKey:
    """One that no issuer has told."""
    return rsa.generate_private_key(65537, 2048)


def elliptic_key() -> ec.EllipticCurvePrivateKey:
    """One of another kind."""
    return ec.generate_private_key(ec.SECP256R1())
