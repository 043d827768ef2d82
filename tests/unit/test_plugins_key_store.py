"""Module key_store and filter key_store_faults: RSA keys as JWK, kept, made, never weak and never lost."""

from __future__ import annotations

import base64
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.deephdc.testbed.plugins.module_utils import jwk
from ansible_collections.deephdc.testbed.plugins.module_utils.jwk import KeyStoreError

from plugins.filter.jwk import FilterModule
from plugins.modules.key_store import new_key, wanted_text

# Big enough for openssl, cheap enough for a test; what sites have is the default.
BITS = 1024
MINIMUM = 1024


@cache
def pkcs8(number: int) -> bytes:
    """A key of its own for each number."""
    return new_key(BITS + 8 * number)


def store(*names: str) -> str:
    return str(jwk.key_store(jwk.signing_key(pkcs8(number), name) for number, name in enumerate(names)))


def wanted(known: str, *names: str, minimum: int = MINIMUM) -> str:
    return wanted_text(known, list(names), minimum, lambda: pkcs8(7))


def numbers(key: dict[str, Any]) -> dict[str, int]:
    return {name: jwk.decoded(key[name]) for name in jwk.NUMBERS}


def test_numbers_of_the_key_fit_each_other() -> None:
    (key,) = jwk.read_keys(store("rsa1"))
    assert key["kty"] == "RSA"
    assert key["kid"] == "rsa1"
    n = numbers(key)
    assert n["n"] == n["p"] * n["q"]
    assert n["e"] == 65537
    assert (n["e"] * n["dp"]) % (n["p"] - 1) == 1
    assert (n["e"] * n["dq"]) % (n["q"] - 1) == 1
    assert (n["q"] * n["qi"]) % n["p"] == 1
    assert pow(pow(42, n["e"], n["n"]), n["d"], n["n"]) == 42


def test_modulus_is_what_openssl_says() -> None:
    argv = ["openssl", "rsa", "-inform", "DER", "-noout", "-modulus"]
    said = subprocess.run(argv, input=pkcs8(0), capture_output=True, check=True).stdout.decode()
    (key,) = jwk.read_keys(store("rsa1"))
    assert jwk.decoded(key["n"]) == int(said.strip().split("=")[1], 16)


def test_encoding_is_that_of_rfc_7518() -> None:
    # The exponent of RFC 7517, appendix A.1; and no padding, no leading zero octets.
    assert jwk.encoded(65537) == "AQAB"
    assert jwk.encoded(0) == "AA"
    assert jwk.encoded(0xFBFF) == "-_8"
    assert jwk.decoded("AQAB") == 65537
    assert jwk.decoded("-_8") == 0xFBFF


@pytest.mark.parametrize("broken", [b"", b"\x30", b"\x30\x82\x01", b"\x30\x03\x02\x01\x00", b"not DER at all"])
def test_what_is_no_rsa_key_is_refused(broken: bytes) -> None:
    with pytest.raises(KeyStoreError):
        jwk.private_numbers(broken)


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_half_a_key_is_refused(cut: int) -> None:
    with pytest.raises(KeyStoreError):
        jwk.private_numbers(pkcs8(0)[:-cut])


def test_a_key_of_another_kind_is_refused() -> None:
    argv = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    pem = subprocess.run(argv, check=True, capture_output=True).stdout
    with pytest.raises(KeyStoreError):
        jwk.private_numbers(base64.b64decode(b"".join(pem.splitlines()[1:-1])))


def test_keys_that_are_there_stay() -> None:
    known = json.dumps(json.loads(store("rsa1", "rsa2")))
    assert wanted(known, "rsa1", "rsa2") == known


def test_keys_are_made_added_and_removed_by_name() -> None:
    first = wanted("", "rsa1")
    both = wanted(first, "rsa1", "rsa2")
    assert jwk.read_keys(both)[0] == jwk.read_keys(first)[0]
    assert [key["kid"] for key in jwk.read_keys(both)] == ["rsa1", "rsa2"]
    assert jwk.read_keys(wanted(both, "rsa2")) == [jwk.read_keys(both)[1]]


@pytest.mark.parametrize("known", ["{", "[]", '{"keys": 1}', '{"keys": [1]}', '{"other": []}'])
def test_an_unreadable_key_store_is_not_made_anew(known: str) -> None:
    with pytest.raises(KeyStoreError, match="no JWK Set"):
        wanted(known, "rsa1")


def test_a_weak_key_is_refused_not_replaced() -> None:
    with pytest.raises(KeyStoreError, match=f"key rsa1 with {BITS} bits"):
        wanted(store("rsa1"), "rsa1", minimum=2048)


def test_default_of_a_new_key_is_strong_enough(tmp_path: Path) -> None:
    text = wanted_text("", ["rsa1"], 2048, lambda: new_key(2048))
    (tmp_path / "store").write_text(text)
    assert jwk.faults(text, ["rsa1"], 2048) == []
    assert jwk.faults(text, ["rsa1"], 3072) == ["key rsa1 with 2048 bits"]


def without(text: str, field: str) -> str:
    keys = jwk.read_keys(text)
    return str(jwk.key_store([{name: value for name, value in keys[0].items() if name != field}]))


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        (store("rsa1"), ["rsa1"], []),
        (store("rsa1", "old"), ["rsa1"], []),
        (store("rsa1"), ["rsa2"], ["no key rsa2"]),
        (without(store("rsa1"), "d"), ["rsa1"], ["key rsa1 with 0 bits"]),
        (store("rsa1").replace('"RSA"', '"oct"'), ["rsa1"], ["key rsa1 with 0 bits"]),
        (
            jwk.key_store([{"kty": "RSA", "kid": "rsa1", "n": "ä", "e": "AQAB", "d": "AA"}]),
            ["rsa1"],
            ["key rsa1 with 0 bits"],
        ),
        ("no JSON", ["rsa1"], ["no JWK Set"]),
    ],
)
def test_faults_of_a_sites_own_key_store(text: str, names: list[str], said: list[str]) -> None:
    assert FilterModule().filters()["key_store_faults"](text, names, MINIMUM) == said
