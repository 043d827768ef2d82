"""The table of who may do what, tokens that nobody may believe, and the report: each must be able to say no."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from testbed.paths import repo_root
from tests.acceptance.probes import authorisation, identity
from tests.acceptance.probes.authorisation import (
    EXPECTED,
    PERSONS,
    STATES,
    VALID,
    ApiServer,
    Case,
    NoAnswerError,
    Request,
)

NAME = "api.test"
UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def test_every_combination_is_a_case_once() -> None:
    found = list(authorisation.cases())
    assert len(found) == len(set(found)) == len(PERSONS) * len(STATES) * len(EXPECTED)
    assert len(found) >= 216


def test_only_a_valid_token_says_who_somebody_is() -> None:
    for case in authorisation.cases():
        assert (case.expected == 401) == (case.token != VALID)
    for case in authorisation.cases(stranger=403):
        if case.token == authorisation.NONE:
            assert case.expected == 403


def test_readers_and_strangers_run_nothing() -> None:
    actions = [action for action in EXPECTED if " over " in action]
    assert len(actions) == 4
    for action in actions:
        assert [authorisation.expected(person, VALID, action) for person in PERSONS] == [101, 403, 403, 101]


def test_each_action_is_a_request_that_keeps_nothing() -> None:
    asked = authorisation.requests("imaging", "climate", "web")
    assert set(asked) == set(EXPECTED)
    assert asked["other namespace"].path == "/api/v1/namespaces/climate/pods"
    for action, request in asked.items():
        if " over " in action:
            assert request.headers["Connection"] == "Upgrade"
        elif request.method != "GET":
            assert request.path.endswith("?dryRun=All"), action
            json.loads(request.body)
    # ABAC looks at the method: the one is a GET, the other is not.
    assert asked["exec over WebSocket"].method == "GET"
    assert asked["exec over SPDY"].method == "POST"


def test_the_report_names_what_was_not_as_expected(tmp_path: Path) -> None:
    results = [replace(case, seen=case.expected) for case in authorisation.cases()]
    results[0] = replace(results[0], seen=500)
    authorisation.write_report(tmp_path, results, 1.5)
    content = json.loads((tmp_path / "authorisation.json").read_text())
    assert (content["cases"], content["mismatches"]) == (len(results), 1)
    text = (tmp_path / "authorisation.md").read_text()
    assert text.count("MISMATCH") == 1
    assert "| member | valid | list | 200 | 500 | MISMATCH |" in text
    assert str(Case("reader", VALID, "nodes", 403, 200)) == "reader with token valid: nodes answered 200, not 403"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """(address, answers to give, requests that came): a server with a certificate for NAME."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "tls.key").write_bytes(secret)
    (tmp_path / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    answers: list[bytes] = []
    came: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        while answers:
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as connection:
                came.append(connection.recv(65536))
                connection.sendall(answers.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers += [UPGRADE, REFUSAL, b"SSH-2.0\r\n"]
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", answers, came


def test_the_status_of_an_answer_is_seen(server: tuple[str, list[bytes], list[bytes]], tmp_path: Path) -> None:
    api = ApiServer("127.0.0.1", server[0], str(tmp_path / "tls.crt"), NAME)
    assert api.status(Request("GET", "/exec", authorisation.WEBSOCKET), "abc") == 101
    assert api.status(Request("POST", "/x", {}, "{}"), "") == 403
    with pytest.raises(NoAnswerError, match="SSH"):
        api.status(Request("GET", "/x", {}), "")
    first, second, _ = server[2]
    assert first.startswith(b"GET /exec HTTP/1.1\r\n")
    assert b"Authorization: Bearer abc\r\n" in first
    assert first.count(b"Connection: ") == 1
    assert b"Authorization" not in second
    assert second.endswith(b"Content-Length: 2\r\n\r\n{}")


def test_the_documented_settings_are_those_of_the_testbed() -> None:
    local = yaml.safe_load((repo_root() / "inventories/local/group_vars/all/main.yml").read_text(encoding="utf-8"))
    text = (repo_root() / "docs/kubernetes-access.md").read_text(encoding="utf-8")
    said = yaml.safe_load(text.partition("makes for it:\n\n```yaml\n")[2].partition("```")[0])
    assert said.pop("acceptance_people").keys() == local["acceptance_people"].keys()
    clients = [client for client in local["iam_clients"] if client["name"].startswith("acceptance-")]
    assert said.pop("iam_clients") == clients
    assert said == {name: local[name] for name in said}


def test_a_request_without_an_answer_is_a_line_of_the_table(
    server: tuple[str, list[bytes], list[bytes]], tmp_path: Path
) -> None:
    server[1][:] = [b"SSH-2.0\r\n"]
    case = Case("reader", VALID, "nodes", 403)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"https://127.0.0.1:{gone.getsockname()[1]}"
    for place, why in ((server[0], "in HTTP: 'SSH-2.0'"), (nobody, "ConnectionRefusedError")):
        asked = case.asked(ApiServer("127.0.0.1", place, str(tmp_path / "tls.crt"), NAME), Request("GET", "/", {}), "")
        assert not asked.ok
        assert why in str(asked)
        assert why in authorisation.markdown([asked], 1)


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
HEAD = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"k"}').decode().rstrip("=")
PLAIN = f"{HEAD}.{base64.urlsafe_b64encode(json.dumps({'sub': 'a', 'exp': 1}).encode()).decode().rstrip('=')}.c2ln"


def signed_by(token: str, key: rsa.RSAPrivateKey) -> bool:
    """Whether the signature of a token is that of a key."""
    text, _, signature = token.rpartition(".")
    content = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    try:
        key.public_key().verify(content, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def test_a_forged_token_has_a_good_signature_of_another_key() -> None:
    token = identity.forged(PLAIN, KEY, iss="https://other.test")
    assert token.startswith(f"{HEAD}.")
    assert identity.claims(token) == {"sub": "a", "exp": 1, "iss": "https://other.test"}
    assert signed_by(token, KEY)
    assert not signed_by(token, rsa.generate_private_key(public_exponent=65537, key_size=2048))


def test_a_tampered_token_keeps_its_signature() -> None:
    token = identity.tampered(PLAIN, groups=["administrators"])
    assert identity.claims(token)["groups"] == ["administrators"]
    assert token.rpartition(".")[2] == PLAIN.rpartition(".")[2]


def test_a_token_that_is_to_be_over_is_not_waited_for_long() -> None:
    started = time.monotonic()
    identity.wait_for_end({"member": PLAIN})
    assert time.monotonic() - started < 1
    with pytest.raises(AssertionError, match="lives for"):
        identity.wait_for_end({"member": identity.tampered(PLAIN, exp=time.time() + 300)})
