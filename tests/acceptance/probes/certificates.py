"""Certificates in the files of a host and how long they still hold."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from cryptography import x509

from tests.acceptance.probes.site import python_on

# Prints {pattern: {path: text}}; ends with an error on a file it may not read.
COLLECT = """
import glob, json, sys
print(json.dumps({pattern: {path: open(path).read() for path in glob.glob(pattern)} for pattern in sys.argv[1:]}))
"""
BEGIN = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True)
class Certificate:
    """One certificate of a file."""

    path: str
    subject: str
    expires: datetime

    def days_left(self, now: datetime | None = None) -> float:
        """Days until it expires; negative once it has."""
        return (self.expires - (now or datetime.now(UTC))).total_seconds() / 86400


def on_host(host: Any, patterns: Sequence[str]) -> list[Certificate]:
    """Every certificate in the files of ``host`` that ``patterns`` name: PEM, or embedded in a kubeconfig.

    ``AssertionError`` for a pattern without a file: a certificate that is not where it is declared was not looked at.
    """
    matches: dict[str, dict[str, str]] = python_on(host, COLLECT, *patterns)
    missing = sorted(pattern for pattern, files in matches.items() if not files)
    assert not missing, f"no file matches {', '.join(missing)}"
    files = {path: text for found in matches.values() for path, text in found.items()}
    return [certificate for path, text in files.items() for certificate in in_file(path, text)]


def in_file(path: str, text: str) -> Iterator[Certificate]:
    """The certificates of one file; ``ValueError`` for a file that holds none."""
    encoded = text.encode() if BEGIN in text else b"\n".join(_embedded(text))
    if not encoded:
        raise ValueError(f"no certificate in {path}")
    for one in x509.load_pem_x509_certificates(encoded):
        yield Certificate(path, one.subject.rfc4514_string(), one.not_valid_after_utc)


def _embedded(text: str) -> Iterator[bytes]:
    """PEM of the certificates inside a kubeconfig."""
    document = yaml.safe_load(text)
    if not isinstance(document, dict):
        return
    for section, entry, key in (
        ("clusters", "cluster", "certificate-authority-data"),
        ("users", "user", "client-certificate-data"),
    ):
        for named in document.get(section) or []:
            if data := (named.get(entry) or {}).get(key):
                yield base64.b64decode(data)
