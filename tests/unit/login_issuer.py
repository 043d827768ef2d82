"""An issuer for the tests of logins: a real HTTPS server on the loopback address that answers as providers do."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PATH = "/realms/deep"
ENDPOINTS = ("token", "device_authorization", "authorization", "userinfo", "revocation")


class Authority:
    """A certificate authority that lasts a day."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, None)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, host: str | None) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = subject if host is None else self.certificate.subject
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return built.sign(self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """What has to be trusted."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str, folder: Path) -> ssl.SSLContext:
        """A server's side of TLS with a certificate for ``host``."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = folder / "server.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(secret + self._sign(host, key, host).public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@dataclass
class Issuer:  # pylint: disable=too-many-instance-attributes  # each is one thing that a test sets
    """What the server does: people and their passwords, how long tokens last, what it answers to a device."""

    name: str
    port: int = 0
    passwords: dict[str, str] = field(default_factory=dict)
    expires_in: int = 300
    refresh_expires_in: int = 1800
    rotates: bool = True
    down: bool = False
    client: str = "deep"
    told_issuer: str = ""
    device_answers: list[str] = field(default_factory=list)
    device: dict[str, Any] = field(default_factory=lambda: {"interval": 0, "expires_in": 60})
    challenge: str = ""
    revoked: list[str] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    given: int = 0
    usable: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The issuer as tokens say it."""
        return f"https://{self.name}:{self.port}{PATH}"

    def grants(self) -> list[str]:
        """The grant types that were asked for, in order."""
        return [fields["grant_type"] for what, fields in self.asked if what == "token"]

    # pylint: disable-next=too-many-return-statements  # one for each question
    def answer(self, what: str, fields: dict[str, str], bearer: str) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        if what == "openid-configuration":
            ends = {f"{name}_endpoint": f"{self.url}/{name}" for name in ENDPOINTS}
            return 200, {"issuer": self.told_issuer or self.url, **ends}
        self.asked.append((what, fields))
        if self.down:
            return 503, {}
        if what == "userinfo":
            person = self.usable.get(bearer)
            return (200, {"preferred_username": person, "groups": ["b", "a"]}) if person else refusal("invalid_token")
        if fields.get("client_id") != self.client:
            return refusal("invalid_client")
        match what:
            case "device_authorization":
                self.challenge = fields["code_challenge"]
                uri = f"{self.url}/device"
                return 200, {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": uri, **self.device}
            case "revocation":
                self.revoked.append(fields["token"])
                return 200, {}
        return self._token(fields)

    def _token(self, fields: dict[str, str]) -> tuple[int, dict[str, Any]]:
        match fields["grant_type"]:
            case "password":
                user = fields["username"]
                if self.passwords.get(user) != fields["password"]:
                    return refusal("invalid_grant", "Invalid user credentials")
            case "refresh_token":
                used = fields["refresh_token"]
                user = self.usable.get(used, "")
                if not user:
                    return refusal("invalid_grant", "Token is not active")
                if self.rotates:
                    del self.usable[used]
            case "authorization_code":
                if not self._proven(fields) or fields["code"] != "c":
                    return refusal("invalid_grant", "PKCE verification failed")
                user = "member"
            case _:
                error = self.device_answers.pop(0) if self.device_answers else ""
                if error or not self._proven(fields):
                    return refusal(error or "invalid_grant") if error != "down" else (503, {})
                user = "member"
        return 200, self._tokens(user, first=fields["grant_type"] != "refresh_token")

    def _proven(self, fields: dict[str, str]) -> bool:
        digest = hashlib.sha256(fields["code_verifier"].encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == self.challenge

    def _tokens(self, user: str, *, first: bool) -> dict[str, Any]:
        self.given += 1
        access, refresh = f"access-{self.given}", f"refresh-{self.given}"
        self.usable |= {access: user, refresh: user}
        renewal = {"refresh_token": refresh, "refresh_expires_in": self.refresh_expires_in}
        return {"access_token": access, "expires_in": self.expires_in, **(renewal if first or self.rotates else {})}


def refusal(error: str, description: str = "") -> tuple[int, dict[str, Any]]:
    """How an issuer says no."""
    body = {"error": error, **({"error_description": description} if description else {})}
    return 401 if error == "invalid_token" else 400, body


@contextmanager
def listening(handler: Callable[..., BaseHTTPRequestHandler], context: ssl.SSLContext | None) -> Iterator[int]:
    """Have requests answered, over TLS where there is a context, on a free port of the loopback address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving[I: Issuer](issuer: I, context: ssl.SSLContext) -> Iterator[I]:
    """Let ``issuer`` answer on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.hosts.add(self.headers["Host"])
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
            what = urlsplit(self.path).path.rsplit("/", 1)[-1]
            status, found = issuer.answer(what, dict(parse_qsl(body)), bearer)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
            pass

    with listening(Handler, context) as issuer.port:
        yield issuer
