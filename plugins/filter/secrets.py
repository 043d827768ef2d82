# SPDX-License-Identifier: Apache-2.0
"""Filters for secrets of a site."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

DOCUMENTATION = r"""
name: derived_secret
short_description: Derive the secret of one person or client from a secret of the site
description:
  - HMAC-SHA-256 of the names under the seed, so that each holder knows its own secret and can tell no other.
  - The same seed and names give the same secret, so people and clients can be added without a new secret in the vault.
positional: _input, names
options:
  _input:
    description: Secret of the site.
    type: str
    required: true
  names:
    description: Whose secret, such as a kind and a name.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
# {{ iam_seed | deephdc.testbed.derived_secret('user', 'member') }}
"""

RETURN = r"""
_value:
  description: 40 hexadecimal digits.
  type: str
"""

DIGITS = 40


def derived_secret(seed: str, *names: str) -> str:
    """The secret of ``names`` under ``seed``: 160 bits as hexadecimal digits (HMAC-SHA-256, RFC 2104, truncated)."""
    return hmac.new(str(seed).encode(), "\0".join(names).encode(), hashlib.sha256).hexdigest()[:DIGITS]


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Names of the filters."""
        return {"derived_secret": derived_secret}
