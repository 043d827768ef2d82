#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep a JWK Set of private RSA keys that are made on the host."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deephdc.testbed.plugins.module_utils.jwk import (
    KeyStoreError,
    faults,
    key_store,
    read_keys,
    signing_key,
)
from ansible_collections.deephdc.testbed.plugins.module_utils.managed_files import FilesError, apply

DOCUMENTATION = r"""
module: key_store
short_description: Keep a JWK Set of private RSA keys that are made on the host
description:
  - A key that is there stays. One that is missing is made with the host's OpenSSL, one that is no longer named goes.
  - A key store that cannot be read, or holds a weak key, is refused and never made anew, for with its keys everybody's
    tokens go.
  - A key is only ever in this file.
options:
  path:
    description: Absolute path on the host, made with mode C(0600).
    type: path
    required: true
  names:
    description: Names (C(kid)) of the keys.
    type: list
    elements: str
    required: true
  bits:
    description: Size of a new key.
    type: int
    default: 3072
  minimum:
    description: Size that a key has to have to be kept.
    type: int
    default: 2048
  owner:
    description: The user that reads the file, and nobody else.
    type: str
    default: root
attributes:
  check_mode:
    support: full
    description: Tells whether keys would be made.
  diff_mode:
    support: none
    description: Keys are secret.
  idempotent:
    support: full
    description: A second call changes nothing.
author: deep-testbed maintainers
"""

EXAMPLES = r"""
- name: Have a key to sign with, and the next one
  deephdc.testbed.key_store:
    path: /etc/example/keystore.jwks
    names: [rsa1, rsa2]
"""

RETURN = r"""
paths:
  description: The path, where the file changed.
  returned: always
  type: list
  elements: str
"""


def new_key(bits: int) -> bytes:
    """A private RSA key in PKCS #8, as DER."""
    # As PEM, which is PKCS #8 in every version of OpenSSL; as DER it may be PKCS #1.
    argv = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}"]
    pem = subprocess.run(argv, check=True, capture_output=True).stdout
    return base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-")))


def wanted_text(known: str, names: list[str], minimum: int, make: Callable[[], bytes]) -> str:
    """The key store with exactly the keys ``names``, those of ``known`` kept; raises ``KeyStoreError``."""
    keys = {str(key.get("kid")): key for key in read_keys(known)} if known else {}
    wanted = [keys[name] if name in keys else signing_key(make(), name) for name in names]
    text = key_store(wanted)
    problems = faults(text, names, minimum)
    if problems:
        raise KeyStoreError(", ".join(problems))
    return known if known and read_keys(known) == wanted else text


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "bits": {"type": "int", "default": 3072},
            "minimum": {"type": "int", "default": 2048},
            "owner": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    asked: dict[str, Any] = module.params
    path = Path(asked["path"])
    try:
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        text = wanted_text(known, asked["names"], asked["minimum"], lambda: new_key(asked["bits"]))
        file = {"path": asked["path"], "state": "file", "content": None, "secret_content": text, "wanted": True}
        file |= {"block": None, "replace": True, "mode": "0600", "owner": asked["owner"], "group": "root"}
        changes = apply([file], module.check_mode)
    except KeyStoreError as problem:
        module.fail_json(
            msg=f"{path}: the key store cannot be used (found {problem}, needed private RSA keys of {asked['minimum']} "
            "bits or more). Next: put it back from the backup; or move it away to have new keys, which ends all logins"
        )
    except (OSError, subprocess.CalledProcessError, FilesError) as error:
        module.fail_json(msg=f"{path}: {error}")
    else:
        module.exit_json(changed=bool(changes), paths=[change.path for change in changes])


if __name__ == "__main__":
    main()
