"""Each person and client has a secret of its own, derived from one of the site."""

from __future__ import annotations

import hashlib
import hmac

from plugins.filter.secrets import DIGITS, derived_secret


def test_it_is_an_hmac_of_the_names() -> None:
    wanted = hmac.new(b"seed", b"user\0member", hashlib.sha256).hexdigest()[:DIGITS]
    assert derived_secret("seed", "user", "member") == wanted


def test_names_seeds_and_borders_between_names_tell_secrets_apart() -> None:
    asked = [
        ("seed", "user", "ab"),
        ("seed", "client", "ab"),
        ("seed", "user", "b"),
        ("other", "user", "ab"),
        ("seed", "usera", "b"),
    ]
    assert len({derived_secret(*one) for one in asked}) == len(asked)
