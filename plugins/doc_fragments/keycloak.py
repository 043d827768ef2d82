# SPDX-License-Identifier: Apache-2.0
"""What every module that administers Keycloak asks for."""

from __future__ import annotations


class ModuleDocFragment:  # pylint: disable=too-few-public-methods  # Ansible reads its attributes
    """Documentation of the options in module_utils/keycloak.py."""

    DOCUMENTATION = r"""
options:
  url:
    description: Address of Keycloak, with a certificate that this host trusts.
    type: str
    required: true
  client:
    description: Client of the realm master that administers Keycloak.
    type: str
    required: true
  secret:
    description: Secret of that client.
    type: str
    required: true
  timeout:
    description: Seconds to wait for Keycloak to answer.
    type: int
    default: 180
"""
