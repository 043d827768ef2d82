"""What the browser of the acceptance suite trusts: names of the site and pinned keys of verified certificates."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.acceptance.probes import browser

NAME = "registry.deep.test"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the name, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]
    made += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "key", "-out", "crt"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    return folder / "crt", folder / "key"


@pytest.fixture
def endpoint(certificate: tuple[Path, Path]) -> Iterator[browser.Endpoint]:
    """A server that shows the certificate once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def serve(plain: socket.socket) -> None:
        try:
            context.wrap_socket(plain, server_side=True).close()
        except OSError:
            plain.close()  # refused by the client

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: serve(listener.accept()[0]))
        thread.start()
        yield listener.getsockname()
        thread.join()


def test_the_pin_is_of_the_key_that_was_verified(certificate: tuple[Path, Path], endpoint: browser.Endpoint) -> None:
    pem = x509.load_pem_x509_certificate(certificate[0].read_bytes())
    key = pem.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    wanted = base64.b64encode(hashlib.sha256(key).digest()).decode()
    assert browser.served_pin(NAME, endpoint, trust) == wanted


@pytest.mark.parametrize("name", [NAME, "other.deep.test"])
def test_a_certificate_that_is_not_trusted_is_not_pinned(
    certificate: tuple[Path, Path], endpoint: browser.Endpoint, name: str
) -> None:
    trust = ssl.create_default_context() if name == NAME else ssl.create_default_context(cafile=str(certificate[0]))
    with pytest.raises(ssl.SSLError):
        browser.served_pin(name, endpoint, trust)


def test_the_browser_knows_the_sites_names_only_and_ignores_no_error_as_such() -> None:
    options = browser.arguments({NAME: "198.18.1.11"}, ["a=", "b="])
    assert f"--host-resolver-rules=MAP {NAME} 198.18.1.11, MAP * ~NOTFOUND" in options
    assert "--ignore-certificate-errors-spki-list=a=,b=" in options
    assert not [
        option for option in options if option.startswith("--ignore-certificate-errors") and "spki" not in option
    ]


@pytest.mark.parametrize(
    ("program", "package", "said"),
    [
        (None, True, "apt-get install chromium"),
        ("/usr/bin/chromium", None, "Python package playwright"),
        ("/x", True, ""),
    ],
)
def test_what_is_lacking_is_said(
    monkeypatch: pytest.MonkeyPatch, program: str | None, package: bool | None, said: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: program)
    monkeypatch.setattr(browser, "find_spec", lambda name: package)
    found = browser.lacking()
    assert said in found
    assert bool(said) == bool(found)
