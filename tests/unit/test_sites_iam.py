"""What the drills of the IAM believe of a token, and how they find their way through its pages."""

from __future__ import annotations

import base64
import json
import ssl
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from testbed.at_address import AtAddress
from tests.acceptance.probes.iam import Iam, follow, kid, pkce, submit

ISSUER = "https://iam.example.test:8443/realms/deep"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(key: rsa.RSAPrivateKey = KEY, name: str = "first", **changes: Any) -> str:
    claims = {"iss": ISSUER, "exp": time.time() + 60, "groups": ["imaging"], **changes}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": name}, claims))
    return f"{signed}.{encoded(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.fixture
def iam(monkeypatch: pytest.MonkeyPatch) -> Iam:
    found = Iam(ISSUER, "192.0.2.1", ssl.create_default_context(), "seed")
    numbers = KEY.public_key().public_numbers()
    public = {"n": encoded(numbers.n.to_bytes(256)), "e": encoded(numbers.e.to_bytes(3))}
    monkeypatch.setattr(found, "keys", lambda: {"first": public})
    return found


def test_a_good_token_is_believed(iam: Iam) -> None:
    assert iam.claims(token())["groups"] == ["imaging"]
    assert kid(token()) == "first"


def test_a_token_that_has_ended_is_believed_of_its_time_only(iam: Iam) -> None:
    ended = token(exp=1000.0)
    assert iam.claims(ended, at=999.0)
    with pytest.raises(AssertionError, match="ended at 1000"):
        iam.claims(ended)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (token(OTHER), "the signature is wrong"),
        (token(name="second"), "unknown key second"),
        (token(iss="https://elsewhere.example.test"), "elsewhere"),
    ],
)
def test_any_other_token_is_not(iam: Iam, bad: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        iam.claims(bad)


def test_changed_claims_are_noticed(iam: Iam) -> None:
    head, _, signature = token().split(".")
    body = encoded(json.dumps({"iss": ISSUER, "exp": time.time() + 60, "groups": ["administrators"]}).encode())
    with pytest.raises(AssertionError, match="signature"):
        iam.claims(f"{head}.{body}.{signature}")


@pytest.mark.parametrize(("refusals", "attempts"), [(0, 1), (2, 3), (9, 4)])
def test_a_login_is_tried_again_a_few_times(
    iam: Iam, monkeypatch: pytest.MonkeyPatch, refusals: int, attempts: int
) -> None:
    asked: list[str] = []

    def login(user: str, **_: str) -> httpx.Response:
        asked.append(user)
        refused = len(asked) <= refusals
        return httpx.Response(
            400 if refused else 200, json={"error": "invalid_grant"} if refused else {"n": len(asked)}
        )

    monkeypatch.setattr(iam, "login", login)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    if refusals < attempts:
        assert iam.person("member") == {"n": attempts}
    else:
        with pytest.raises(AssertionError, match=r"member: 400 .*invalid_grant"):
            iam.person("member")
    assert asked == ["member"] * attempts


def test_a_challenge_hides_its_verifier() -> None:
    verifier, challenge = pkce()
    assert verifier != challenge
    assert pkce()[0] != verifier
    assert 43 <= len(verifier) <= 128, "RFC 7636"


def pages(request: httpx.Request) -> httpx.Response:
    """A login page behind a redirect; a form; a program of the person's that takes over."""
    if request.url.path == "/start":
        return httpx.Response(302, headers={"location": "/login?a=1"})
    if request.url.path == "/login":
        form = '<form id="f" action="/post?b=1&amp;c=2"><input type="hidden" name="h" value="a&amp;b"></form>'
        return httpx.Response(200, text=form)
    said = request.content.decode()
    return httpx.Response(302, headers={"location": f"http://127.0.0.1:1/callback?{said}&{request.url.query.decode()}"})


def test_a_form_is_sent_with_what_is_hidden_in_it_and_nobody_else_is_visited() -> None:
    with httpx.Client(transport=httpx.MockTransport(pages), base_url=ISSUER) as browser:
        page = follow(browser, browser.get("https://iam.example.test/start"))
        back = submit(browser, page, username="member")
    assert back.headers["location"] == "http://127.0.0.1:1/callback?h=a%26b&username=member&b=1&c=2"


def test_a_page_without_a_form_is_told() -> None:
    with httpx.Client() as browser, pytest.raises(AssertionError, match="no form on the page: 400 Sorry"):
        submit(browser, httpx.Response(400, text="<p>Sorry</p>", request=httpx.Request("GET", ISSUER)))


def test_each_name_has_its_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str, str, str]] = []

    def handle(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        name = request.extensions["sni_hostname"]
        asked.append((id(self), request.url.host, name, request.headers["host"]))
        return httpx.Response(200, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)
    addresses = dict.fromkeys(("one.example.test", "other.example.test"), "192.0.2.1")
    with httpx.Client(transport=AtAddress(addresses, ssl.create_default_context())) as client:
        client.get("https://one.example.test:8443/")
        client.get("https://other.example.test:8443/")
    assert {address for _, address, _, _ in asked} == {"192.0.2.1"}
    assert [name for _, _, name, _ in asked] == ["one.example.test", "other.example.test"]
    assert [host for _, _, _, host in asked] == ["one.example.test:8443", "other.example.test:8443"]
    assert asked[0][0] != asked[1][0]
