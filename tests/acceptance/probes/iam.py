"""The site's IAM as people's programs, browsers and services see it: at its host's address, under its own name."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import secrets
import ssl
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from plugins.filter.secrets import derived_secret
from testbed.at_address import AtAddress

TIMEOUT = 30
# Seconds between the attempts to log in with a right password; fewer than lock somebody out.
PAUSES = (1, 2, 4)
# What people's own programs log in with: it keeps no secret.
PUBLIC_CLIENT = "deep"
GRANT = "urn:ietf:params:oauth:grant-type:"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # nosec B105 # a name, and no token
FORM = re.compile(r'<form[^>]*\baction="([^"]+)"', re.DOTALL)
HIDDEN = re.compile(r'<input[^>]*type="hidden"[^>]*>', re.DOTALL)
ATTRIBUTE = re.compile(r'\b(name|value)="([^"]*)"')
# Where a program of a person's waits for the browser; nobody listens there in a test.
CALLBACK = "http://127.0.0.1:18080/callback"


class Iam:
    """One realm; ``seed`` is the secret that people's first passwords and clients' secrets are derived from."""

    def __init__(self, issuer: str, address: str, trust: ssl.SSLContext, seed: str) -> None:
        self.issuer = issuer
        self.base = issuer.partition("/realms/")[0]
        self._address = address
        self._trust = trust
        self._seed = seed
        self.client = self.browser()
        self._known: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def browser(self) -> httpx.Client:
        """A client with cookies of its own."""
        name = urlsplit(self.issuer).hostname or ""
        return httpx.Client(transport=AtAddress({name: self._address}, self._trust), timeout=TIMEOUT)

    # --- what the issuer says of itself ---

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        if not self._known:
            answer = self.client.get(f"{self.issuer}/.well-known/openid-configuration")
            assert answer.is_success, f"{self.issuer}: {answer.status_code} {answer.text[:300]}"
            self._known = dict(answer.json())
        return self._known

    def keys(self) -> dict[str, dict[str, Any]]:
        """The public keys that tokens are signed with, by their identifiers."""
        answer = self.client.get(self.discovery()["jwks_uri"])
        return {key["kid"]: key for key in answer.json()["keys"] if key.get("use") == "sig"}

    def claims(self, token: str, at: float = 0) -> dict[str, Any]:
        """What a token says, after its signature, issuer and end (now, or ``at`` a time) were checked."""
        head, body, signature = token.split(".")
        header = json.loads(decoded(head))
        assert header["alg"] == "RS256", header
        key = self.keys().get(header["kid"])
        assert key is not None, f"signed by an unknown key {header['kid']}"
        try:
            _public(key).verify(decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature as wrong:
            raise AssertionError("the signature is wrong") from wrong
        found = dict(json.loads(decoded(body)))
        assert found["iss"] == self.issuer, found
        assert found["exp"] > (at or time.time()), f"the token ended at {found['exp']}"
        return found

    # --- ways to a token ---

    def password_of(self, user: str) -> str:
        """The first password of a person."""
        return derived_secret(self._seed, "user", user)

    def secret_of(self, client: str) -> str:
        """The secret of a confidential client."""
        return derived_secret(self._seed, "client", client)

    def ask(self, **form: str) -> httpx.Response:
        """One request to the token endpoint."""
        return self.client.post(self.discovery()["token_endpoint"], data=form)

    def tokens(self, **form: str) -> dict[str, Any]:
        """What the token endpoint gives; fails where it refuses."""
        answer = self.ask(**form)
        assert answer.is_success, f"{form['grant_type']}: {answer.status_code} {answer.text[:300]}"
        return dict(answer.json())

    def login(
        self, user: str, *, password: str = "", scope: str = "openid", client: str = PUBLIC_CLIENT
    ) -> httpx.Response:
        """The password grant."""
        word = password or self.password_of(user)
        return self.ask(grant_type="password", client_id=client, username=user, password=word, scope=scope)

    def person(self, user: str, **options: str) -> dict[str, Any]:
        """The tokens of a person, by password.

        Asked for again after a refusal: Keycloak refuses a login while it still looks at an earlier one of the same
        person ("Concurrent login requests are blocked by default" in its upgrading guide), as a busy host does.
        """
        answer = self.login(user, **options)
        for pause in PAUSES:
            if answer.is_success:
                break
            time.sleep(pause)
            answer = self.login(user, **options)
        assert answer.is_success, f"{user}: {answer.status_code} {answer.text[:300]}"
        return dict(answer.json())

    def token(self, user: str, client: str = PUBLIC_CLIENT, scope: str = "openid") -> str:
        """The access token of a person, by password."""
        return str(self.person(user, client=client, scope=scope)["access_token"])

    def refresh(self, token: str, client: str = PUBLIC_CLIENT) -> httpx.Response:
        """New tokens for a refresh token."""
        credentials = {} if client == PUBLIC_CLIENT else {"client_secret": self.secret_of(client)}
        return self.ask(grant_type="refresh_token", client_id=client, refresh_token=token, **credentials)

    def service(self, client: str, **form: str) -> httpx.Response:
        """The client credentials grant."""
        secret = form.pop("client_secret", "") or self.secret_of(client)
        return self.ask(grant_type="client_credentials", client_id=client, client_secret=secret, **form)

    def exchange(self, client: str, subject: str, **form: str) -> httpx.Response:
        """A token for ``client`` in place of a person's."""
        credentials = {} if client == PUBLIC_CLIENT else {"client_secret": self.secret_of(client)}
        kind = {"grant_type": f"{GRANT}token-exchange", "subject_token_type": ACCESS_TOKEN}
        return self.ask(**{**kind, "client_id": client, "subject_token": subject, **credentials, **form})

    def device(self, challenge: str, scope: str = "openid", client: str = PUBLIC_CLIENT) -> dict[str, Any]:
        """What a terminal shows: where to go, and the code to type there."""
        form = {"client_id": client, "scope": scope, "code_challenge": challenge, "code_challenge_method": "S256"}
        answer = self.client.post(self.discovery()["device_authorization_endpoint"], data=form)
        assert answer.is_success, f"{answer.status_code} {answer.text[:300]}"
        return dict(answer.json())

    def poll(self, device_code: str, verifier: str, client: str = PUBLIC_CLIENT) -> httpx.Response:
        """A terminal asks whether the person has logged in."""
        form = {"client_id": client, "device_code": device_code, "code_verifier": verifier}
        return self.ask(grant_type=f"{GRANT}device_code", **form)

    def approve(self, url: str, user: str) -> str:
        """A person opens the page that the terminal shows, logs in and agrees; returns the text of the last page."""
        with self.browser() as browser:
            page = follow(browser, browser.get(url))
            page = submit(browser, page, username=user, password=self.password_of(user))
            page = submit(browser, page, accept="Yes")
            return page.text

    def code(self, user: str, challenge: str = "", client: str = PUBLIC_CLIENT, back: str = CALLBACK) -> dict[str, str]:
        """What a browser brings back to a program after its person has logged in: a code, or an error."""
        state = secrets.token_urlsafe(16)
        query = {
            "client_id": client,
            "response_type": "code",
            "redirect_uri": back,
            "scope": "openid",
            "state": state,
            **({"code_challenge": challenge, "code_challenge_method": "S256"} if challenge else {}),
        }
        with self.browser() as browser:
            page = follow(browser, browser.get(self.discovery()["authorization_endpoint"], params=query))
            if not page.is_redirect:
                page = submit(browser, page, username=user, password=self.password_of(user))
        assert page.is_redirect, f"the browser was not sent back: {page.status_code} {text_of(page)}"
        found = {key: values[0] for key, values in parse_qs(urlsplit(page.headers["location"]).query).items()}
        assert found["state"] == state
        return found

    def redeem(self, code: str, client: str = PUBLIC_CLIENT, **form: str) -> httpx.Response:
        """A program trades the code for tokens."""
        return self.ask(grant_type="authorization_code", client_id=client, code=code, redirect_uri=CALLBACK, **form)


class Administration:
    """The interface for administrators, below the path of one realm."""

    def __init__(self, iam: Iam, client: str, secret: str) -> None:
        self._iam = iam
        self._form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}
        self._path = iam.base + "/admin/realms/" + iam.issuer.rpartition("/")[2]

    def request(self, method: str, path: str, data: Any = None, *, token: str = "") -> httpx.Response:
        """One request, with the administrator's token unless another is given."""
        bearer = token or self._token()
        return self._iam.client.request(
            method, self._path + path, json=data, headers={"Authorization": f"Bearer {bearer}"}
        )

    def _token(self) -> str:
        answer = self._iam.client.post(f"{self._iam.base}/realms/master/protocol/openid-connect/token", data=self._form)
        assert answer.is_success, f"the administrator is refused: {answer.status_code} {answer.text[:300]}"
        return str(answer.json()["access_token"])

    def get(self, path: str) -> Any:
        """What is there."""
        answer = self.request("GET", path)
        assert answer.is_success, f"GET {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def change(self, method: str, path: str, data: Any = None) -> None:
        """Make, change or remove something."""
        answer = self.request(method, path, data)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:300]}"

    def user(self, name: str) -> dict[str, Any]:
        """A person; empty for one that is not there."""
        found = self.get(f"/users?username={name}&exact=true")
        return dict(found[0]) if found else {}

    def groups(self) -> set[str]:
        """Names of all groups."""
        return {group["name"] for group in self.get("/groups")}

    def clients(self) -> set[str]:
        """Names of all clients."""
        return {client["clientId"] for client in self.get("/clients")}

    def set_password(self, user: str, password: str) -> None:
        """Another password, as the person would choose it."""
        path = f"/users/{self.user(user)['id']}/reset-password"
        self.change("PUT", path, {"type": "password", "value": password, "temporary": False})


def pkce() -> tuple[str, str]:
    """The verifier that only the program knows, and the challenge that goes ahead of it (RFC 7636, S256)."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def kid(token: str) -> str:
    """Which key signed a token."""
    return str(json.loads(decoded(token.split(".")[0]))["kid"])


def follow(browser: httpx.Client, page: httpx.Response) -> httpx.Response:
    """Go where the IAM sends the browser, up to where another server would take over."""
    while page.is_redirect:
        target = urljoin(str(page.url), page.headers["location"])
        if urlsplit(target).netloc != urlsplit(str(page.url)).netloc:
            return page
        page = browser.get(target)
    return page


def submit(browser: httpx.Client, page: httpx.Response, **fields: str) -> httpx.Response:
    """Fill in the form of a page and send it."""
    form = FORM.search(page.text)
    assert form, f"no form on the page: {page.status_code} {text_of(page)}"
    hidden = {}
    for tag in HIDDEN.findall(page.text):
        named: Mapping[str, str] = dict(ATTRIBUTE.findall(tag))
        hidden[named.get("name", "")] = html.unescape(named.get("value", ""))
    target = urljoin(str(page.url), html.unescape(form[1]))
    return follow(browser, browser.post(target, data={**hidden, **fields}))


def text_of(page: httpx.Response) -> str:
    """What a person reads on a page, in short."""
    bare = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page.text, flags=re.DOTALL)
    return " ".join(bare.split())[:400]


def _public(key: Mapping[str, Any]) -> rsa.RSAPublicKey:
    exponent, modulus = (int.from_bytes(decoded(key[part])) for part in ("e", "n"))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def decoded(part: str) -> bytes:
    """A part of a token, base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
