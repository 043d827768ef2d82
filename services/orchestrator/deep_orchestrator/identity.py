"""Who asks, and what they may: tokens of the site's IAM, checked here against the issuer's public keys."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt

from deep_orchestrator import settings
from deep_orchestrator.errors import RefusedError
from deep_orchestrator.store import Deployment

LOG = logging.getLogger(__name__)
DISCOVERY = "/.well-known/openid-configuration"
# Signatures that only the issuer can make; never one by a secret that is shared.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
# Seconds: until the issuer is asked again, the least between two times, and how long its keys count while it is away.
FRESH, AGAIN, KEPT = 300.0, 10.0, 3600.0
TIMEOUT = 10.0
# By how much clocks may differ, in seconds.
LEEWAY = 10
# Keycloak says what kind of token it is; others say nothing, or what RFC 9068 does.
ACCESS_TYPES = {"", "Bearer", "at+jwt"}


@dataclass(frozen=True)
class Person:
    """Who asks, as the token says; ``token`` is good for nothing but this service."""

    issuer: str
    subject: str
    username: str
    groups: frozenset[str]
    token: str = field(repr=False)


class Issuer:
    """The site's identity provider: its addresses and its keys."""

    def __init__(self, identity: settings.Identity) -> None:
        self.name = identity.issuer
        self.http = httpx.Client(verify=ssl.create_default_context(cafile=identity.authority), timeout=TIMEOUT)
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._endpoints: dict[str, Any] = {}
        self._asked = self._answered = float("-inf")

    def key(self, identifier: str) -> jwt.PyJWK | None:
        """The public key of that name, if there is one; raises RefusedError (503) where nobody can say."""
        with self._lock:
            age = time.monotonic() - self._answered
            if age > FRESH or identifier not in self._keys:
                self._ask_again(age)
            return self._keys.get(identifier)

    def endpoint(self, name: str) -> str:
        """Address of an endpoint, such as ``token``; raises RefusedError (503) where it is not known."""
        with self._lock:
            if not self._endpoints:
                self._ask_again(float("inf"))
            address = str(self._endpoints.get(f"{name}_endpoint", ""))
        if not address.startswith("https://"):
            raise RefusedError(503, f"the identity provider {self.name} has no {name} endpoint with https")
        return address

    def _ask_again(self, age: float) -> None:
        """Ask for the keys, unless that was done a moment ago; while it is away, those of before count."""
        if time.monotonic() - self._asked > AGAIN:
            self._asked = time.monotonic()
            try:
                self._ask()
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                LOG.warning("The identity provider %s does not say its keys: %s", self.name, error)
            else:
                self._answered, age = time.monotonic(), 0
        if age > KEPT:
            raise RefusedError(503, f"the identity provider {self.name} does not answer, try again in a moment")

    def _ask(self) -> None:
        endpoints = self._get(self.name.rstrip("/") + DISCOVERY)
        if endpoints.get("issuer") != self.name:
            raise ValueError(f"found issuer {endpoints.get('issuer')}, needed {self.name}")
        address = str(endpoints.get("jwks_uri", ""))
        if not address.startswith("https://"):
            raise ValueError(f"found '{address}' as jwks_uri, needed an https address")
        keys = jwt.PyJWKSet.from_dict(self._get(address)).keys
        self._endpoints = endpoints
        # Those for encryption are of no use here.
        self._keys = {key.key_id: key for key in keys if key.key_id and key.public_key_use in {None, "sig"}}

    def _get(self, address: str) -> dict[str, Any]:
        answer = self.http.get(address).raise_for_status().json()
        if not isinstance(answer, dict):
            raise ValueError(f"{address} answers with something else than an object")  # of its answer
        return answer


class Door:
    """Lets people in, and says what they may see and change."""

    def __init__(self, identity: settings.Identity, issuer: Issuer) -> None:
        self._identity, self._issuer = identity, issuer

    def person(self, authorization: str) -> Person:
        """Who sent this Authorization header; raises RefusedError (401), or 503 where the issuer is away."""
        token = bearer(authorization)
        try:
            header = jwt.get_unverified_header(token)
            key = self._issuer.key(str(header.get("kid", "")))
            if key is None or header.get("alg") not in ALGORITHMS:
                raise RefusedError(401, f"the token is not signed by a key of {self._identity.issuer}")
            claims = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=self._identity.audience,
                issuer=self._identity.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise RefusedError(401, f"the token does not count: {error}. Next: log in again") from None
        if claims.get("typ", "") not in ACCESS_TYPES:
            raise RefusedError(
                401, f"the token is none for access (found {claims['typ']}). Next: send the access token"
            )
        return self._holder(claims, token)

    def _holder(self, claims: dict[str, Any], token: str) -> Person:
        username, groups = claims.get(self._identity.username_claim), claims.get(self._identity.groups_claim, [])
        if not isinstance(username, str) or not isinstance(groups, list):
            needed = f"{self._identity.username_claim} and a list {self._identity.groups_claim}"
            raise RefusedError(401, f"the token does not say who holds it (needed the claims {needed})")
        return Person(claims["iss"], claims["sub"], username, frozenset(map(str, groups)), token)

    def administers(self, person: Person) -> bool:
        """Whether somebody administers the site."""
        return bool(self._identity.administrators) and self._identity.administrators in person.groups

    def memberships(self, person: Person) -> list[str]:
        """Organisations that somebody may deploy for."""
        return [one.name for one in self._identity.organisations if one.members & person.groups]

    def visible_organisations(self, person: Person) -> list[str]:
        """Organisations whose deployments somebody may see."""
        found = self._identity.organisations
        if self.administers(person):
            return [one.name for one in found]
        return [one.name for one in found if (one.members | one.readers) & person.groups]

    def may_see(self, person: Person, deployment: Deployment) -> bool:
        """Own deployments, those of the organisations that one belongs to; an administrator all."""
        return (
            self.owns(person, deployment)
            or self.administers(person)
            or deployment.organisation in self.visible_organisations(person)
        )

    @staticmethod
    def owns(person: Person, deployment: Deployment) -> bool:
        """Whether somebody made a deployment, and may change it: that is done with the rights of who made it."""
        return (deployment.issuer, deployment.subject) == (person.issuer, person.subject)


def bearer(authorization: str) -> str:
    """The token in an Authorization header; orpy 1.0.4 puts no space before it. Raises RefusedError (401)."""
    scheme, token = authorization[:6], authorization[6:].strip()
    if scheme.lower() != "bearer" or not token:
        raise RefusedError(401, "no token (needed the header Authorization: Bearer TOKEN). Next: log in")
    return token
