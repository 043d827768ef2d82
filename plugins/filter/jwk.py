# SPDX-License-Identifier: Apache-2.0
"""Filters for keys that tokens are signed with."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.deephdc.testbed.plugins.module_utils.jwk import faults

DOCUMENTATION = r"""
name: key_store_faults
short_description: Say why a site's own JWK Set cannot sign tokens
description:
  - Looks for a private RSA key of each name (RFC 7517, RFC 7518) and at the size of every key.
positional: _input, names, minimum
options:
  _input:
    description: JWK Set as text.
    type: str
    required: true
  names:
    description: Names (C(kid)) of the keys that have to be there.
    type: list
    elements: str
    required: true
  minimum:
    description: Bits that every key has to have.
    type: int
    required: true
"""

EXAMPLES = r"""
# {{ keystore | deephdc.testbed.key_store_faults(['rsa1'], 2048) }}
"""

RETURN = r"""
_value:
  description: What was found to be wrong, empty for a key store that can be used.
  type: list
  elements: str
"""


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Names of the filters."""
        return {"key_store_faults": faults}
