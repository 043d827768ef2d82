"""The client's side of a site's identity provider: finding it, reaching it, OpenID Connect's and OAuth's requests.

``deep`` is a public client: it has no secret, and who somebody is comes from the provider itself, so no signature has
to be verified here. Requests are few and small enough to be written with httpx.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from testbed.errors import CHECK_FAILED, DeepError

DISCOVERY = "/.well-known/openid-configuration"
TIMEOUT = 10.0


@dataclass(frozen=True)
class Provider:
    """An identity provider as a site's inventory names it.

    ``host`` names it in messages. ``address`` is where to connect where its name is the site's own, and ``authority``
    the file that its certificate is held against where not the system's; both may be empty. ``audience`` are the
    services that it has to be told a token is for.
    """

    issuer: str
    client: str
    scopes: tuple[str, ...]
    host: str
    address: str = ""
    authority: Path | None = None
    audience: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The host name in the issuer."""
        return urlsplit(self.issuer).hostname or ""


class NoAnswerError(DeepError):
    """The identity provider cannot be asked now; what is known of before still holds."""


class RefusedError(DeepError):
    """The identity provider says no; ``code`` is the error of OAuth, or the HTTP status where it gives none."""

    def __init__(self, provider: Provider, code: str, said: str) -> None:
        super().__init__(
            f"the identity provider refuses: {said}",
            host=provider.host,
            found=code,
            needed=f"a client {provider.client} that may ask this of {provider.issuer}",
            next_step="ask the site's administrator for: deep site deploy SITE",
            exit_code=CHECK_FAILED,
        )
        self.code = code
        self.said = said


@dataclass(frozen=True)
class Tokens:
    """What a login gives; times are of this machine's clock, ``session_until`` is 0 where the provider tells none."""

    access: str = field(repr=False)
    until: float
    refresh: str = field(default="", repr=False)
    session_until: float = 0


class Client:
    """Asks one provider; every failure is a ``DeepError``."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        # A quarter of a second that a token at hand need not wait.
        import httpx

        from testbed.at_address import AtAddress

        verify = ssl.create_default_context(cafile=provider.authority)
        # A site that is reached by its name may be behind a proxy of this machine's environment.
        transport = AtAddress({provider.name: provider.address}, verify) if provider.address else None
        self._http = httpx.Client(transport=transport, verify=verify, timeout=TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    @cached_property
    def endpoints(self) -> dict[str, Any]:
        """What the provider says of itself (OpenID Connect discovery)."""
        found = self._ask("GET", self.provider.issuer.rstrip("/") + DISCOVERY)
        if found.get("issuer") != self.provider.issuer:
            raise DeepError(
                "the identity provider is another one",
                host=self.provider.host,
                found=f"issuer {found.get('issuer')}",
                needed=f"issuer {self.provider.issuer}",
                next_step="correct iam_issuer in the site's inventory",
            )
        return found

    def endpoint(self, name: str) -> str:
        """Address of an endpoint, such as ``token``."""
        url = str(self.endpoints.get(f"{name}_endpoint", ""))
        if not url.startswith("https://"):
            raise DeepError(
                f"the identity provider offers no {name.replace('_', ' ')}",
                host=self.provider.host,
                found=f"{name}_endpoint: {url or 'none'}",
                needed="an https address in its discovery document",
                next_step="log in another way: deep login --help",
            )
        return url

    def grant(self, grant_type: str, **fields: str) -> Tokens:
        """Ask for tokens; raises ``RefusedError`` with the code of OAuth."""
        asked = time.time()
        found = self._post("token", grant_type=grant_type, **self._audience, **fields)
        lasting = float(found.get("refresh_expires_in") or 0)
        return Tokens(
            access=str(found["access_token"]),
            until=asked + float(found.get("expires_in") or 0),
            # A provider that does not rotate it gives none again.
            refresh=str(found.get("refresh_token") or fields.get("refresh_token", "")),
            session_until=asked + lasting if lasting else 0,
        )

    def device_code(self, verifier: str) -> dict[str, Any]:
        """Begin a login on another device (RFC 8628, section 3.2), with PKCE: Keycloak asks for it here too."""
        scope = " ".join(self.provider.scopes)
        return self._post("device_authorization", scope=scope, **self._audience, **_challenge(verifier))

    def authorization_url(self, redirect_uri: str, state: str, verifier: str) -> str:
        """The address at which a browser logs in (RFC 6749, section 4.1.1, with PKCE)."""
        query = {
            "response_type": "code",
            "client_id": self.provider.client,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.provider.scopes),
            "state": state,
            **self._audience,
            **_challenge(verifier),
        }
        return f"{self.endpoint('authorization')}?{urlencode(query)}"

    def person(self, access: str) -> dict[str, Any]:
        """The claims about whoever has this token."""
        return self._ask("GET", self.endpoint("userinfo"), headers={"Authorization": f"Bearer {access}"})

    def revoke(self, refresh: str) -> None:
        """End a login (RFC 7009)."""
        self._post("revocation", token=refresh)

    @property
    def _audience(self) -> dict[str, str]:
        return {"audience": " ".join(self.provider.audience)} if self.provider.audience else {}

    def _post(self, endpoint: str, **fields: str) -> dict[str, Any]:
        return self._ask("POST", self.endpoint(endpoint), data={"client_id": self.provider.client, **fields})

    def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        import httpx

        try:
            answer = self._http.request(method, url, **options)
        except httpx.TransportError as lost:
            raise self._no_answer(url, lost) from lost
        try:
            found = json.loads(answer.content or b"{}")
        except ValueError:
            found = None
        if answer.is_client_error and isinstance(found, dict):
            code = str(found.get("error") or answer.status_code)
            raise RefusedError(self.provider, code, str(found.get("error_description") or code))
        if not answer.is_success or not isinstance(found, dict):
            raise self._failed(f"HTTP status {answer.status_code} from {url}")
        return found

    def _no_answer(self, url: str, lost: Exception) -> DeepError:
        untrusted = _untrusted(lost)
        if untrusted is None:
            parts = urlsplit(url)
            place = f"{self.provider.address or parts.hostname}:{parts.port or 443}"
            return self._failed(f"{place}: {str(lost) or type(lost).__name__}")
        return DeepError(
            "the certificate of the identity provider is not accepted",
            host=self.provider.host,
            found=untrusted.verify_message,
            needed=f"one for {self.provider.name} by {self.provider.authority or 'one that the system trusts'}",
            next_step="compare the clocks, deploy the site, or get the new ca.crt from the site's administrator",
            exit_code=CHECK_FAILED,
        )

    def _failed(self, found: str) -> NoAnswerError:
        return NoAnswerError(
            "the identity provider does not answer",
            host=self.provider.host,
            found=found,
            needed=f"the issuer {self.provider.issuer}",
            next_step="look after its service on that host, then run the same command again",
            exit_code=CHECK_FAILED,
        )


def _challenge(verifier: str) -> dict[str, str]:
    """What a login begins with that only whoever knows ``verifier`` may finish (PKCE, RFC 7636)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
    return {"code_challenge": digest.rstrip(b"=").decode(), "code_challenge_method": "S256"}


def _untrusted(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refusal of a certificate behind an error of httpx, if it was one."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def random_word() -> str:
    """A value that nobody can guess, of the characters and length that PKCE asks for."""
    return secrets.token_urlsafe(48)
