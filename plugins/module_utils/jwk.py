# SPDX-License-Identifier: Apache-2.0
"""RSA keys as JSON Web Keys (RFC 7517, RFC 7518 section 6.3)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

# Names of the numbers of a private key, in the order in which PKCS #1 (RFC 8017, A.1.2) has them after its version.
NUMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
INTEGER, OCTETS, SEQUENCE = 0x02, 0x04, 0x30
LONG_FORM = 0x80


class KeyStoreError(Exception):
    """A key or a key store that cannot be used."""


def encoded(number: int) -> str:
    """A number as Base64urlUInt (RFC 7518, section 2)."""
    octets = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def decoded(text: str) -> int:
    """The number that Base64urlUInt stands for; raises ``ValueError``."""
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), "big")


def elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of DER values that follow each other."""
    while der:
        length, start = der[1], 2
        if length >= LONG_FORM:
            start += length - LONG_FORM
            length = int.from_bytes(der[2:start], "big")
        if start + length > len(der):
            raise KeyStoreError("the key ends too early")
        yield der[0], der[start : start + length]
        der = der[start + length :]


def private_numbers(pkcs8: bytes) -> dict[str, int]:
    """The numbers of an unencrypted RSA key in PKCS #8 (RFC 5958); raises ``KeyStoreError``."""
    try:
        ((_, outer),) = elements(pkcs8)
        _version, _algorithm, (tag, inner), *_attributes = elements(outer)
        ((_, key),) = elements(inner)
        _version, *numbers = elements(key)
    except (IndexError, ValueError) as unreadable:
        raise KeyStoreError("no RSA key in PKCS #8") from unreadable
    if tag != OCTETS or [kind for kind, _ in numbers] != [INTEGER] * len(NUMBERS):
        raise KeyStoreError("no RSA key in PKCS #8")
    return {name: int.from_bytes(content, "big") for name, (_, content) in zip(NUMBERS, numbers, strict=True)}


def signing_key(pkcs8: bytes, name: str) -> dict[str, str]:
    """A private RSA key as JWK, called ``name``; for any use, as INDIGO IAM signs and encrypts with one key."""
    numbers = {field: encoded(number) for field, number in private_numbers(pkcs8).items()}
    return {"kty": "RSA", "kid": name, **numbers}


def key_store(keys: Iterable[dict[str, Any]]) -> str:
    """A JWK Set as text."""
    return json.dumps({"keys": list(keys)}, indent=2) + "\n"


def read_keys(text: str) -> list[dict[str, Any]]:
    """The keys of a JWK Set; raises ``KeyStoreError``."""
    try:
        found = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError) as unreadable:
        raise KeyStoreError("no JWK Set") from unreadable
    if not isinstance(found, list) or not all(isinstance(key, dict) for key in found):
        raise KeyStoreError("no JWK Set")
    return found


def bits(key: dict[str, Any]) -> int:
    """Size of an RSA key; 0 for what is no private RSA key."""
    if key.get("kty") != "RSA" or not {"n", "e", "d"} <= set(key):
        return 0
    try:
        return decoded(str(key["n"])).bit_length()
    except ValueError:
        return 0


def faults(text: str, names: Iterable[str], minimum: int) -> list[str]:
    """What is wrong with a JWK Set that shall hold exactly the keys ``names``, each of ``minimum`` bits or more."""
    try:
        known = {str(key.get("kid")): bits(key) for key in read_keys(text)}
    except KeyStoreError as unreadable:
        return [str(unreadable)]
    missing = [f"no key {name}" for name in names if name not in known]
    return missing + [f"key {name} with {size} bits" for name, size in known.items() if size < minimum]
