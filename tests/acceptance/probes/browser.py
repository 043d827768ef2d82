"""A person's browser: headless Chromium that knows the site's names and pins the certificates of its services."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from playwright.sync_api import Page

PROGRAM = "chromium"
TIMEOUT_MS = 20_000
Endpoint = tuple[str, int]


def lacking() -> str:
    """Why no browser can be driven here, with what to do; empty when one can."""
    if shutil.which(PROGRAM) is None:
        return f"no browser here (found no program {PROGRAM}). Next: apt-get install {PROGRAM}"
    if find_spec("playwright") is None:
        return "nothing to drive a browser with (found no Python package playwright). Next: scripts/bootstrap.sh test"
    return ""


def pin(certificate: bytes) -> str:
    """The hash of a certificate's public key, as Chromium wants it; ``certificate`` is DER."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return base64.b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()


def served_pin(name: str, endpoint: Endpoint, trust: ssl.SSLContext) -> str:
    """The pin of the certificate that ``endpoint`` shows for ``name``; ``ssl.SSLError`` where ``trust`` refuses it."""
    with (
        socket.create_connection(endpoint, timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname=name) as secure,
    ):
        certificate = secure.getpeercert(binary_form=True)
    assert certificate is not None
    return pin(certificate)


def arguments(addresses: Mapping[str, str], pins: list[str]) -> list[str]:
    """Chromium's options: names -> addresses and no other name at all; keys of the certificates that it takes."""
    rules = [f"MAP {name} {address}" for name, address in addresses.items()]
    return [
        f"--host-resolver-rules={', '.join([*rules, 'MAP * ~NOTFOUND'])}",
        # Chromium does not know the site's authority, so each key is pinned, after its certificate was verified.
        f"--ignore-certificate-errors-spki-list={','.join(pins)}",
        "--no-proxy-server",
        "--disable-background-networking",
    ]


@contextmanager
def person(services: Mapping[str, Endpoint], trust: ssl.SSLContext, profile: str) -> Iterator[Page]:
    """A new person's browser, on ``services`` (name -> address and port) whose certificates ``trust`` verifies.

    ``profile`` is an empty folder: pins hold only in a profile of their own.
    """
    from playwright.sync_api import sync_playwright

    pins = [served_pin(name, endpoint, trust) for name, endpoint in services.items()]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=shutil.which(PROGRAM),
            # Continuous integration runs as root, for whom Chromium has no sandbox; it meets only pages of the site.
            chromium_sandbox=False,
            args=arguments({name: address for name, (address, _) in services.items()}, pins),
        )
        try:
            page = context.pages[0] if context.pages else context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            yield page
        finally:
            context.close()
